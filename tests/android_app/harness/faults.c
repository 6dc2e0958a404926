/*
 * Preloaded into a process: at the n-th call that changes a file below a folder, something happens.
 *
 *   FAULT_ROOT  the folder, without a slash at its end
 *   FAULT_LOG   a file that gets a line for each such call: its name and its path
 *   FAULT_AT    n, counted from 1; 0: nothing happens
 *   FAULT_HOW   kill: SIGKILL before the call; tear: the same, but half of a write is done;
 *               full: from this call on, nothing can be made or written (ENOSPC)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long calls;

static int below(const char *path) {
    const char *root = getenv("FAULT_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return below(path);
}

/* Whether the call is to fail for want of space; does not return where the process is killed. */
static int fault(const char *call, const char *path, int fd, const void *data, size_t size) {
    const char *at = getenv("FAULT_AT"), *how = getenv("FAULT_HOW"), *log = getenv("FAULT_LOG");
    if (!at || !how || !log) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1, wanted = atol(at);
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    long file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
    if (!wanted || number < wanted) return 0;
    if (!strcmp(how, "full")) return 1;
    if (number > wanted) return 0;
    if (!strcmp(how, "tear") && data) syscall(SYS_write, fd, data, size / 2);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int refused(const char *call, const char *path) {
    if (!below(path) || !fault(call, path, -1, NULL, 0)) return 0;
    errno = ENOSPC;
    return 1;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (flags & (O_CREAT | O_TRUNC) && refused("open", path)) return -1;
    return REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (flags & (O_CREAT | O_TRUNC) && refused("open", path)) return -1;
    return REAL(open)(path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    if (path_of(fd, path) && fault("write", path, fd, data, size)) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(write)(fd, data, size);
}

int fsync(int fd) {
    char path[PATH_MAX];
    if (path_of(fd, path)) fault("fsync", path, fd, NULL, 0);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    char path[PATH_MAX];
    if (path_of(fd, path)) fault("fsync", path, fd, NULL, 0);
    return REAL(fdatasync)(fd);
}

int mkdir(const char *path, mode_t mode) {
    return refused("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}

/* Names change and go on a full disk too. */
int rename(const char *from, const char *to) {
    if (below(from)) fault("rename", from, -1, NULL, 0);
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (below(path)) fault("unlink", path, -1, NULL, 0);
    return REAL(unlink)(path);
}

int rmdir(const char *path) {
    if (below(path)) fault("rmdir", path, -1, NULL, 0);
    return REAL(rmdir)(path);
}
