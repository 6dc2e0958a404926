/*
 * What Android's libc, libm, libdl and liblog have and glibc lacks or lays out differently.
 *
 * Compiled into the stand-in libc.so beside the trampolines that build.py makes from symbols.tsv;
 * a function `bionic_x` here answers Android's `x` or `__x`. Facts about Android are from bionic's
 * public headers (include/bits/sysconf.h, pthread.h, stdio.h, ...). x86_64 and arm64.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <float.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

/* ---- the end of the process, and the log ------------------------------------------------ */

_Noreturn __attribute__((format(printf, 1, 2))) static void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("desktop runtime: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  abort();
}

/* Called by the trampoline of a `refused` symbol. */
_Noreturn void bionic_refuse(const char *symbol) {
  die("%s() was called: Android's and glibc's differ and no translation is written "
      "(see android_app/runtime/symbols.tsv)", symbol);
}

int *bionic_errno(void) { return &errno; }

_Noreturn void bionic_assert2(const char *file, int line, const char *function, const char *text) {
  die("%s:%d: %s: assertion \"%s\" failed", file, line, function, text);
}

void bionic_android_set_abort_message(const char *message) {
  fprintf(stderr, "desktop runtime: abort message: %s\n", message ? message : "(null)");
}

/* Priorities are those of android/log.h: 2 verbose .. 7 fatal. Info and below stay silent. */
enum { LOG_PRIORITY_WARN = 5, LOG_PRIORITY_SILENT = 8 };

int bionic_android_log_vprint(int priority, const char *tag, const char *format, va_list args) {
  if (priority < LOG_PRIORITY_WARN || priority >= LOG_PRIORITY_SILENT) return 0;
  flockfile(stderr);
  fprintf(stderr, "%c/%s: ", "??VDIWEF"[priority], tag ? tag : "");
  int written = vfprintf(stderr, format, args);
  fputc('\n', stderr);
  funlockfile(stderr);
  return written;
}

int bionic_android_log_print(int priority, const char *tag, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int written = bionic_android_log_vprint(priority, tag, format, args);
  va_end(args);
  return written;
}

int bionic_android_log_write(int priority, const char *tag, const char *text) {
  return bionic_android_log_print(priority, tag, "%s", text);
}

_Noreturn void bionic_android_log_assert(const char *condition, const char *tag,
                                         const char *format, ...) {
  if (format) {
    va_list args;
    va_start(args, format);
    bionic_android_log_vprint(7, tag, format, args);
    va_end(args);
  }
  die("%s: assertion \"%s\" failed", tag ? tag : "log", condition ? condition : "");
}

/* A desktop has no Android properties: every one is unset. */
int bionic_system_property_get(const char *name, char *value) {
  (void)name;
  value[0] = '\0';
  return 0;
}

/* ---- numbers that are named differently ------------------------------------------------- */

long bionic_sysconf(int name) {
  static const struct { int bionic, glibc; } names[] = {
      {0x00, _SC_ARG_MAX},          {0x05, _SC_CHILD_MAX},        {0x06, _SC_CLK_TCK},
      {0x0a, _SC_NGROUPS_MAX},      {0x0b, _SC_OPEN_MAX},         {0x26, _SC_IOV_MAX},
      {0x27, _SC_PAGESIZE},         {0x28, _SC_PAGESIZE},         {0x47, _SC_GETGR_R_SIZE_MAX},
      {0x48, _SC_GETPW_R_SIZE_MAX}, {0x49, _SC_LOGIN_NAME_MAX},   {0x4b, _SC_THREAD_KEYS_MAX},
      {0x4c, _SC_THREAD_STACK_MIN}, {0x4d, _SC_THREAD_THREADS_MAX},
      {0x60, _SC_NPROCESSORS_CONF}, {0x61, _SC_NPROCESSORS_ONLN}, {0x62, _SC_PHYS_PAGES},
      {0x63, _SC_AVPHYS_PAGES},     {0x64, _SC_MONOTONIC_CLOCK},  {0x6f, _SC_HOST_NAME_MAX},
      {0x79, _SC_SYMLOOP_MAX},
      {0x8f, _SC_LEVEL1_ICACHE_SIZE},     {0x90, _SC_LEVEL1_ICACHE_ASSOC},
      {0x91, _SC_LEVEL1_ICACHE_LINESIZE}, {0x92, _SC_LEVEL1_DCACHE_SIZE},
      {0x93, _SC_LEVEL1_DCACHE_ASSOC},    {0x94, _SC_LEVEL1_DCACHE_LINESIZE},
      {0x95, _SC_LEVEL2_CACHE_SIZE},      {0x96, _SC_LEVEL2_CACHE_ASSOC},
      {0x97, _SC_LEVEL2_CACHE_LINESIZE},  {0x98, _SC_LEVEL3_CACHE_SIZE},
      {0x99, _SC_LEVEL3_CACHE_ASSOC},     {0x9a, _SC_LEVEL3_CACHE_LINESIZE},
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (names[i].bionic == name) return sysconf(names[i].glibc);
  die("sysconf(0x%x) has no translation in android_app/runtime/shim.c", (unsigned)name);
}

long bionic_pathconf(const char *path, int name) {
  static const int names[] = {
      _PC_FILESIZEBITS,   _PC_LINK_MAX,          _PC_MAX_CANON,         _PC_MAX_INPUT,
      _PC_NAME_MAX,       _PC_PATH_MAX,          _PC_PIPE_BUF,          _PC_2_SYMLINKS,
      _PC_ALLOC_SIZE_MIN, _PC_REC_INCR_XFER_SIZE, _PC_REC_MAX_XFER_SIZE, _PC_REC_MIN_XFER_SIZE,
      _PC_REC_XFER_ALIGN, _PC_SYMLINK_MAX,       _PC_CHOWN_RESTRICTED,  _PC_NO_TRUNC,
      _PC_VDISABLE,       _PC_ASYNC_IO,          _PC_PRIO_IO,           _PC_SYNC_IO,
  };
  if (name < 0 || (size_t)name >= sizeof names / sizeof names[0]) {
    errno = EINVAL;
    return -1;
  }
  return pathconf(path, names[name]);
}

/* ---- threads and signals ---------------------------------------------------------------- */

enum { BIONIC_MUTEX_BYTES = 40 };  /* glibc's type has 48 on arm64, and uses 40 of them */
_Static_assert(sizeof ((pthread_mutex_t *)0)->__data == BIONIC_MUTEX_BYTES, "pthread_mutex_t");
_Static_assert(sizeof(pthread_cond_t) == 48, "bionic's pthread_cond_t has 48 bytes");
_Static_assert(sizeof(pthread_rwlock_t) == 56, "bionic's pthread_rwlock_t has 56 bytes");
_Static_assert(sizeof(pthread_once_t) == sizeof(int) && PTHREAD_ONCE_INIT == 0, "pthread_once_t");
_Static_assert(sizeof(pthread_mutexattr_t) <= sizeof(long), "bionic's pthread_mutexattr_t is long");
_Static_assert(PTHREAD_MUTEX_NORMAL == 0 && PTHREAD_MUTEX_RECURSIVE == 1 &&
               PTHREAD_MUTEX_ERRORCHECK == 2, "mutex types have bionic's numbers");

/*
 * bionic's static initialisers put the mutex type into bits 14 and 15 of the first word, which in
 * glibc is the lock itself (0, 1 or 2 for these types). So such a word means a mutex that nobody
 * has locked yet: give it glibc's initialiser, publishing the lock word last.
 */
static void adopt(pthread_mutex_t *mutex) {
  static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
  static const pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  static const pthread_mutex_t checking = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
  enum { RECURSIVE = PTHREAD_MUTEX_RECURSIVE << 14, CHECKING = PTHREAD_MUTEX_ERRORCHECK << 14 };
  _Atomic int *word = (_Atomic int *)mutex;
  int seen = atomic_load_explicit(word, memory_order_acquire);
  if (seen != RECURSIVE && seen != CHECKING) return;
  pthread_mutex_lock(&guard);
  if (atomic_load_explicit(word, memory_order_relaxed) == seen) {
    const pthread_mutex_t *fresh = seen == RECURSIVE ? &recursive : &checking;
    memcpy((char *)mutex + sizeof(int), (const char *)fresh + sizeof(int),
           BIONIC_MUTEX_BYTES - sizeof(int));
    atomic_store_explicit(word, 0, memory_order_release);
  }
  pthread_mutex_unlock(&guard);
}

int bionic_pthread_mutex_init(void *mutex, const pthread_mutexattr_t *attributes) {
  pthread_mutex_t whole;
  int error = pthread_mutex_init(&whole, attributes);
  if (error == 0) memcpy(mutex, &whole, BIONIC_MUTEX_BYTES);
  return error;
}

int bionic_pthread_mutex_lock(pthread_mutex_t *mutex) {
  adopt(mutex);
  return pthread_mutex_lock(mutex);
}

int bionic_pthread_mutex_trylock(pthread_mutex_t *mutex) {
  adopt(mutex);
  return pthread_mutex_trylock(mutex);
}

int bionic_sigfillset(uint64_t *set) {
  *set = UINT64_MAX;
  return 0;
}

/* Bit n - 1 stands for signal n in both, and in glibc's set the first 64 bits are the kernel's. */
int bionic_pthread_sigmask(int how, const uint64_t *set, uint64_t *old) {
  sigset_t wide, wide_old;
  sigemptyset(&wide);
  if (set) memcpy(&wide, set, sizeof *set);
  int error = pthread_sigmask(how, set ? &wide : NULL, &wide_old);
  if (error == 0 && old) memcpy(old, &wide_old, sizeof *old);
  return error;
}

/* ---- stdio: Android's standard streams are the elements of __sF ------------------------- */

enum { BIONIC_FILE_BYTES = 152 };
typedef union { char bytes[BIONIC_FILE_BYTES]; void *align; } bionic_file;
bionic_file bionic_sF[3];
bionic_file *bionic_stdout = &bionic_sF[1];
bionic_file *bionic_stderr = &bionic_sF[2];

/* The `data` lines of symbols.tsv. */
#define EXPORT(object, name)                         \
  extern __attribute__((visibility("default"))) __typeof__(object) object; \
  __asm__(".symver " #object ", " name "@LIBC")
EXPORT(bionic_sF, "__sF");
EXPORT(bionic_stdout, "stdout");
EXPORT(bionic_stderr, "stderr");

/* Every other FILE* came from glibc's own fopen(). */
static FILE *host(void *file) {
  if (file == &bionic_sF[0]) return stdin;
  if (file == &bionic_sF[1]) return stdout;
  if (file == &bionic_sF[2]) return stderr;
  return file;
}

int bionic_fclose(void *f) { return fclose(host(f)); }
int bionic_ferror(void *f) { return ferror(host(f)); }
int bionic_fflush(void *f) { return fflush(host(f)); }
int bionic_fputc(int c, void *f) { return fputc(c, host(f)); }
int bionic_fputs(const char *text, void *f) { return fputs(text, host(f)); }
wint_t bionic_fputwc(wchar_t c, void *f) { return fputwc(c, host(f)); }
int bionic_fseek(void *f, long offset, int whence) { return fseek(host(f), offset, whence); }
int bionic_fseeko(void *f, off_t offset, int whence) { return fseeko(host(f), offset, whence); }
off_t bionic_ftello(void *f) { return ftello(host(f)); }
int bionic_getc(void *f) { return getc(host(f)); }
wint_t bionic_getwc(void *f) { return getwc(host(f)); }
int bionic_ungetc(int c, void *f) { return ungetc(c, host(f)); }
wint_t bionic_ungetwc(wint_t c, void *f) { return ungetwc(c, host(f)); }
size_t bionic_fread(void *p, size_t size, size_t n, void *f) { return fread(p, size, n, host(f)); }
size_t bionic_fwrite(const void *p, size_t size, size_t n, void *f) {
  return fwrite(p, size, n, host(f));
}
int bionic_setvbuf(void *f, char *buffer, int mode, size_t size) {
  return setvbuf(host(f), buffer, mode, size);
}

/* ---- formats: long double is binary128 on Android, and in glibc on arm64 only ------------ */

static const char *checked(const char *format) {
  if (LDBL_MANT_DIG == 113) return format;
  for (const char *p = strchr(format, '%'); p; p = strchr(p + 1, '%')) {
    p += 1 + strspn(p + 1, "0123456789+-# .*$'");
    if (*p == 'L') die("format \"%s\": long double has no translation", format);
    if (*p == '\0') break;
  }
  return format;
}

/* Body of a variadic function: pass the arguments after `last` on to `call`. */
#define WITH_ARGS(last, call) \
  va_list args;               \
  va_start(args, last);       \
  int result = (call);        \
  va_end(args);               \
  return result

int bionic_vfprintf(void *f, const char *format, va_list args) {
  return vfprintf(host(f), checked(format), args);
}
int bionic_fprintf(void *f, const char *format, ...) {
  WITH_ARGS(format, bionic_vfprintf(f, format, args));
}
int bionic_printf(const char *format, ...) { WITH_ARGS(format, vprintf(checked(format), args)); }
int bionic_vsnprintf(char *to, size_t size, const char *format, va_list args) {
  return vsnprintf(to, size, checked(format), args);
}
int bionic_snprintf(char *to, size_t size, const char *format, ...) {
  WITH_ARGS(format, bionic_vsnprintf(to, size, format, args));
}
int bionic_vasprintf(char **to, const char *format, va_list args) {
  return vasprintf(to, checked(format), args);
}
int bionic_vsscanf(const char *from, const char *format, va_list args) {
  return vsscanf(from, checked(format), args);
}
int bionic_sscanf(const char *from, const char *format, ...) {
  WITH_ARGS(format, bionic_vsscanf(from, format, args));
}

/* ---- fortify: bounds checks that the Android headers compile in ------------------------- */

int bionic_vsnprintf_chk(char *to, size_t size, int flags, size_t room, const char *format,
                         va_list args) {
  (void)flags;
  if (size > room) die("vsnprintf: %zu bytes into a buffer of %zu", size, room);
  return vsnprintf(to, size, checked(format), args);
}

int bionic_vsprintf_chk(char *to, int flags, size_t room, const char *format, va_list args) {
  (void)flags;
  int written = vsnprintf(to, room, checked(format), args);
  if (written >= 0 && (size_t)written >= room) die("vsprintf: the buffer has only %zu bytes", room);
  return written;
}

size_t bionic_strlen_chk(const char *text, size_t room) {
  size_t length = strlen(text);
  if (length >= room) die("strlen: no end within the buffer's %zu bytes", room);
  return length;
}

char *bionic_strchr_chk(const char *text, int c, size_t room) {
  bionic_strlen_chk(text, room);
  return strchr(text, c);
}

char *bionic_strrchr_chk(const char *text, int c, size_t room) {
  bionic_strlen_chk(text, room);
  return strrchr(text, c);
}

ssize_t bionic_write_chk(int fd, const void *from, size_t size, size_t room) {
  if (size > room) die("write: %zu bytes from a buffer of %zu", size, room);
  return write(fd, from, size);
}
