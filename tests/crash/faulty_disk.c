/* Preloaded into a test process: the n-th call of a kind, on files below one folder, fails as a disk fails,
 * or (error 0) the process is killed right before it.
 *
 * This is below Python, Arrow and zstd alike. Files are those whose absolute path begins with FAULTY_FOLDER.
 * A close that fails has closed, as on Linux. Kinds are numbered as CALLS in crash_child.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, FSYNC, CLOSE, RENAME, LIST, UNLINK, MKDIR, KINDS };
#define FILES 1024
#define LENGTH 1024

static char paths[FILES][LENGTH]; /* of open files below the folder; "" = not ours */
static char failed[LENGTH];
static int armed, kind_wanted, number, error_wanted, from_then_on;
static int calls[KINDS];

void fault_arm(int kind, int n, int error, int sticky) {
    memset(calls, 0, sizeof calls);
    failed[0] = 0;
    kind_wanted = kind, number = n, error_wanted = error, from_then_on = sticky, armed = 1;
}
void fault_off(void) { armed = 0; }
int fault_calls(int kind) { return calls[kind]; }
const char *fault_path(void) { return failed; }

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int ours(const char *path) {
    const char *folder = getenv("FAULTY_FOLDER");
    return path && folder && !strncmp(path, folder, strlen(folder));
}

static const char *path_of(int fd) { return fd >= 0 && fd < FILES ? paths[fd] : ""; }

/* Absolute path of a name relative to an open directory. */
static const char *joined(int at, const char *name, char *out) {
    if (!name || name[0] == '/' || at < 0 || !path_of(at)[0]) return name;
    snprintf(out, LENGTH, "%s/%s", path_of(at), name);
    return out;
}

static int fails(int kind, const char *path) {
    if (!armed || !path[0] || !ours(path)) return 0;
    int n = __atomic_add_fetch(&calls[kind], 1, __ATOMIC_SEQ_CST);
    if (kind != kind_wanted || !(n == number || (from_then_on && n > number))) return 0;
    if (!failed[0]) snprintf(failed, LENGTH, "%s", path);
    if (!error_wanted) kill(getpid(), SIGKILL);
    errno = error_wanted;
    return 1;
}

static int keep(int fd, const char *path) {
    if (fd >= 0 && fd < FILES) snprintf(paths[fd], LENGTH, "%s", ours(path) ? path : "");
    return fd;
}

#define OPENS(name)                                                        \
    int name(const char *path, int flags, ...) {                           \
        REAL(name);                                                        \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = va_arg(rest, mode_t);                                \
        va_end(rest);                                                      \
        return fails(OPEN, path) ? -1 : keep(real(path, flags, mode), path); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                     \
    int name(int at, const char *path, int flags, ...) {                   \
        REAL(name);                                                        \
        char buffer[LENGTH];                                               \
        const char *whole = joined(at, path, buffer);                      \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = va_arg(rest, mode_t);                                \
        va_end(rest);                                                      \
        return fails(OPEN, whole) ? -1 : keep(real(at, path, flags, mode), whole); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define ON_FILE(result, name, kind, declared, passed)                      \
    result name declared {                                                 \
        REAL(name);                                                        \
        return fails(kind, path_of(fd)) ? -1 : real passed;                \
    }
ON_FILE(ssize_t, read, READ, (int fd, void *to, size_t size), (fd, to, size))
ON_FILE(ssize_t, pread, READ, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
ON_FILE(ssize_t, pread64, READ, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
ON_FILE(ssize_t, write, WRITE, (int fd, const void *from, size_t size), (fd, from, size))
ON_FILE(ssize_t, pwrite, WRITE, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
ON_FILE(ssize_t, pwrite64, WRITE, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
ON_FILE(ssize_t, writev, WRITE, (int fd, const struct iovec *from, int count), (fd, from, count))
ON_FILE(int, fsync, FSYNC, (int fd), (fd))
ON_FILE(int, fdatasync, FSYNC, (int fd), (fd))

int close(int fd) {
    REAL(close);
    char path[LENGTH];
    snprintf(path, LENGTH, "%s", path_of(fd));
    struct stat found;
    int is_folder = !fstat(fd, &found) && S_ISDIR(found.st_mode); /* nothing was written: it cannot fail */
    keep(fd, "");
    int result = real(fd);
    return !is_folder && fails(CLOSE, path) ? -1 : result;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails(RENAME, to) ? -1 : real(from, to);
}

int renameat(int at_from, const char *from, int at_to, const char *to) {
    REAL(renameat);
    return fails(RENAME, to) ? -1 : real(at_from, from, at_to, to);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    if (fails(LIST, path)) return NULL;
    DIR *found = real(path);
    if (found) keep(dirfd(found), path);
    return found;
}

DIR *fdopendir(int fd) {
    REAL(fdopendir);
    return fails(LIST, path_of(fd)) ? NULL : real(fd);
}

#define READS_FOLDER(name, entry)                                          \
    struct entry *name(DIR *folder) {                                      \
        REAL(name);                                                        \
        return fails(LIST, path_of(dirfd(folder))) ? NULL : real(folder);  \
    }
READS_FOLDER(readdir, dirent)
READS_FOLDER(readdir64, dirent64)

int unlink(const char *path) {
    REAL(unlink);
    return fails(UNLINK, path) ? -1 : real(path);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    char buffer[LENGTH];
    return fails(UNLINK, joined(at, path, buffer)) ? -1 : real(at, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    return fails(UNLINK, path) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails(MKDIR, path) ? -1 : real(path, mode);
}
