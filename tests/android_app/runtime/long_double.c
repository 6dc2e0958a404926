/* Calls the stand-in's long double functions as Android code does: IEEE binary128 in registers. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *libc = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!libc) return 2;
  _Float128 (*strtold)(const char *, char **);
  _Float128 (*frexpl)(_Float128, int *);
  _Float128 (*ldexpl)(_Float128, int);
  *(void **)&strtold = dlvsym(libc, "strtold", "LIBC");
  *(void **)&frexpl = dlvsym(libc, "frexpl", "LIBC");
  *(void **)&ldexpl = dlvsym(libc, "ldexpl", "LIBC");
  /* 1 + 2^-100 needs more than x87's 64 bits. */
  _Float128 tiny = ldexpl((_Float128)1, -100);
  int exponent = 0;
  _Float128 fraction = frexpl(tiny, &exponent);
  _Float128 read = strtold("1.00000000000000000000000000000078886090522101180541172856528278622967", NULL);
  printf("%d %d %d %d\n", (double)fraction == 0.5, exponent, (double)((read - 1) / tiny) == 1.0,
         (double)read == 1.0);
  return 0;
}
