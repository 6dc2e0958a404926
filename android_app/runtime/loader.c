/*
 * A JNI library under the name that Java loads, in front of Android's library of that name.
 *
 * Compiled once for each TARGET ("libexecutorch.so", "libfbjni.so"). libgroup.so brings in all of
 * Android's libraries at once, in the order in which Android would search them for a symbol.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <jni.h>

typedef jint (*on_load)(JavaVM *, void *);

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved) {
  /* DEEPBIND: the library must find its own C++ runtime before the one that the JVM brings. */
  void *group = dlopen("$ORIGIN/android/libgroup.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  void *library = group ? dlopen("$ORIGIN/android/" TARGET, RTLD_NOW | RTLD_LOCAL) : NULL;
  on_load start = NULL;
  if (library) *(void **)&start = dlsym(library, "JNI_OnLoad");
  if (start) return start(vm, reserved);

  const char *reason = dlerror();
  JNIEnv *env;
  if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_6) == JNI_OK) {
    jclass type = (*env)->FindClass(env, "java/lang/UnsatisfiedLinkError");
    if (type) (*env)->ThrowNew(env, type, reason ? reason : "no JNI_OnLoad in " TARGET);
  }
  return JNI_ERR;
}
