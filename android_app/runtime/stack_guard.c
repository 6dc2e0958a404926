/*
 * arm64 only; preloaded. Android's code reads its stack guard at offset 0x28 of the thread's own
 * storage, where glibc has whatever thread-local variables come first. A preloaded library's come
 * before libc's: so these do, in every thread, and a guard there does not change inside a function.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { GUARD_OFFSET = 0x28, HEADER = 16 /* glibc's own, before the first variable */ };
enum { GUARD_SLOT = (GUARD_OFFSET - HEADER) / 8 };

static _Alignas(HEADER) _Thread_local volatile uintptr_t slots[GUARD_SLOT + 1] = {
    [GUARD_SLOT] = 0xff0a0d00c0dec0de,
};

__attribute__((constructor)) static void check(void) {
  char *expected = (char *)__builtin_thread_pointer() + GUARD_OFFSET;
  if ((char *)&slots[GUARD_SLOT] == expected) return;
  fputs("stack_guard: not the first thread-local storage: preload this library, first\n", stderr);
  abort();
}
