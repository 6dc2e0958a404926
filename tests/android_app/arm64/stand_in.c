/*
 * Calls the arm64 stand-in libc as Android's arm64 code does, where it differs from x86_64's:
 * stand_in LIBC prints what must hold; with a second argument it calls a refused function instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MUTEX_BYTES = 40, GUARD_OFFSET = 0x28 };

static void *libc;
static void *android(const char *name) {
  void *address = dlvsym(libc, name, "LIBC");
  if (!address) fprintf(stderr, "no %s\n", name), exit(2);
  return address;
}

static uintptr_t guard(void) {
  return *(volatile uintptr_t *)((char *)__builtin_thread_pointer() + GUARD_OFFSET);
}

/* In a new thread: the guard is there at the start, and what glibc keeps per thread leaves it be. */
static void *keeps_its_guard(void *expected) {
  uintptr_t before = guard();
  free(malloc(100));
  errno = 12345;
  dlopen("no such library", RTLD_NOW);
  locale_t other = newlocale(LC_ALL_MASK, "C.UTF-8", NULL), mine = uselocale(other);
  uintptr_t after = guard();
  uselocale(mine);
  return (void *)(intptr_t)(before == (uintptr_t)expected && after == before && before != 0);
}

static int mutex_is_40_bytes_and_works(void) {
  int (*init)(void *, const void *), (*settype)(void *, int), (*attributes)(void *);
  int (*lock)(void *), (*unlock)(void *);
  *(void **)&init = android("pthread_mutex_init");
  *(void **)&attributes = android("pthread_mutexattr_init");
  *(void **)&settype = android("pthread_mutexattr_settype");
  *(void **)&lock = android("pthread_mutex_lock");
  *(void **)&unlock = android("pthread_mutex_unlock");
  _Alignas(8) char mutex[MUTEX_BYTES + 8], expected[8];
  memset(mutex, 0x55, sizeof mutex);
  memset(expected, 0x55, sizeof expected);
  long recursive = 0;
  int failed = attributes(&recursive) || settype(&recursive, 1) || init(mutex, &recursive);
  failed |= lock(mutex) || lock(mutex) || unlock(mutex) || unlock(mutex);
  return !failed && unlock(mutex) == EPERM && !memcmp(mutex + MUTEX_BYTES, expected, 8);
}

static int static_recursive_mutex_works(void) {
  int (*lock)(void *);
  *(void **)&lock = android("pthread_mutex_lock");
  _Alignas(8) int mutex[12] = {1 << 14, [10] = 0x5555, [11] = 0x5555};
  return !lock(mutex) && !lock(mutex) && mutex[10] == 0x5555 && mutex[11] == 0x5555;
}

static int long_double_is_formatted(void) {
  int (*print)(char *, size_t, const char *, ...);
  *(void **)&print = android("snprintf");
  char text[64];
  print(text, sizeof text, "%d %.2Lf %s", 7, 1.25L, "end");
  return !strcmp(text, "7 1.25 end");
}

int main(int argc, char **argv) {
  libc = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!libc) return fprintf(stderr, "%s\n", dlerror()), 2;
  if (argc > 2) ((void (*)(void))android("swprintf"))();
  pthread_t thread;
  void *kept = NULL;
  pthread_create(&thread, NULL, keeps_its_guard, (void *)guard());
  pthread_join(thread, &kept);
  printf("guard %d\n", kept && keeps_its_guard((void *)guard()));
  printf("mutex %d\n", mutex_is_40_bytes_and_works());
  printf("static mutex %d\n", static_recursive_mutex_works());
  printf("long double %d\n", long_double_is_formatted());
  return 0;
}
