/* A disk that loses power and has faults, for tests. Loaded into the server with LD_PRELOAD.
 *
 * Environment:
 *   SHIM_DIRECTORY  the directory that is watched: the database, its log and the files beside it (real path)
 *   SHIM_SYNCED     an empty directory that receives what is on the disk for certain. It begins with what
 *                   SHIM_DIRECTORY has; then each fsync of a file copies it to `<inode>`, and each fsync of the directory
 *                   writes `names`, a line "<inode> <name>" for each file. After SIGKILL a test makes of both what a
 *                   power cut leaves.
 *   SHIM_CONTROL    a file of `struct control`, which the test writes while the server runs
 *
 * The system is called with syscall(2), so that the shim does not come across itself.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Which calls. */
enum { READ = 1, WRITE = 2, SYNC = 4, TRUNCATE = 8, RENAME = 16 };
/* Which files. */
enum { DATABASE = 1, LOG = 2, SHARED = 4, JOURNAL = 8, FENCE = 16, DIRECTORY = 32, OTHER = 64 };

struct control {
    int32_t calls; /* which calls fail; 0 is none */
    int32_t files; /* on which files */
    int32_t error; /* with which errno */
    int32_t times; /* how often from now on; negative is for ever */
    int32_t hits;  /* how often one has failed */
    int32_t lies;  /* fsync of these files says that it went well and does nothing */
};

static const char *directory, *synced;
static struct control *control;
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

static int ends(const char *text, const char *end) {
    size_t length = strlen(text), of_end = strlen(end);
    return length >= of_end && strcmp(text + length - of_end, end) == 0;
}

static int kind_of_path(const char *path) {
    if (directory == NULL) return 0;
    size_t length = strlen(directory);
    if (strncmp(path, directory, length) != 0) return 0;
    if (path[length] == '\0') return DIRECTORY;
    if (path[length] != '/') return 0;
    const char *name = path + length + 1;
    if (strstr(name, ".fence") != NULL) return FENCE;
    if (ends(name, "-wal")) return LOG;
    if (ends(name, "-shm")) return SHARED;
    if (ends(name, "-journal")) return JOURNAL;
    if (ends(name, ".db")) return DATABASE;
    return OTHER;
}

/* Which of the watched files it is; 0 when it is none of them, or has no name any more. */
static int kind_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return kind_of_path(path);
}

/* Whether this call is to fail; errno is set. */
static int fails(int call, int kind) {
    if ((__atomic_load_n(&control->calls, __ATOMIC_SEQ_CST) & call) == 0 || (control->files & kind) == 0) return 0;
    int32_t times = __atomic_load_n(&control->times, __ATOMIC_SEQ_CST);
    do {
        if (times == 0) return 0;
        if (times < 0) break;
    } while (!__atomic_compare_exchange_n(&control->times, &times, times - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    __atomic_add_fetch(&control->hits, 1, __ATOMIC_SEQ_CST);
    errno = control->error;
    return 1;
}

static int fd_fails(int call, int fd) {
    return control != NULL && (control->calls & call) != 0 && fails(call, kind_of(fd));
}

static void give_up(const char *what) {
    perror(what);
    abort();
}

/* Writes a file whole or not at all, whenever the process is killed. */
static void keep(const char *name, int from) {
    char temporary[PATH_MAX], path[PATH_MAX];
    static char buffer[1 << 16];
    snprintf(temporary, sizeof temporary, "%s/temporary", synced);
    snprintf(path, sizeof path, "%s/%s", synced, name);
    int to = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) give_up(temporary);
    for (off_t at = 0;;) {
        ssize_t count = syscall(SYS_pread64, from, buffer, sizeof buffer, at);
        if (count < 0) give_up("pread");
        if (count == 0) break;
        if (syscall(SYS_write, to, buffer, count) != count) give_up("write");
        at += count;
    }
    close(to);
    if (syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 0) != 0) give_up(path);
}

static void keep_file(int fd, ino_t inode) {
    char name[32];
    snprintf(name, sizeof name, "%llu", (unsigned long long)inode);
    keep(name, fd);
}

static void keep_names(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/listing", synced);
    FILE *listing = fopen(path, "we");
    DIR *entries = opendir(directory);
    if (listing == NULL || entries == NULL) give_up("listing");
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2)
            fprintf(listing, "%llu %s\n", (unsigned long long)entry->d_ino, entry->d_name);
    closedir(entries);
    fclose(listing);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    keep("names", fd);
    close(fd);
}

static int synchronise(int fd, long call) {
    int kind = kind_of(fd);
    if (kind == 0) return syscall(call, fd);
    if (control != NULL && fails(SYNC, kind)) return -1;
    if (synced == NULL) return syscall(call, fd);
    if (control != NULL && (control->lies & kind) != 0) return 0;
    struct stat status;
    if (fstat(fd, &status) != 0) give_up("fstat");
    pthread_mutex_lock(&copying);
    if (kind == DIRECTORY) {
        keep_names();
    } else {
        /* A file that was opened for writing only is none of SQLite's: another descriptor does not end its locks. */
        int readable = fd;
        if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            readable = open(link, O_RDONLY | O_CLOEXEC);
        }
        keep_file(readable, status.st_ino);
        /* A descriptor that is never closed: the number of this inode is not used again. */
        if (readable == fd) fcntl(fd, F_DUPFD_CLOEXEC, 256);
    }
    pthread_mutex_unlock(&copying);
    return 0;
}

__attribute__((constructor)) static void start(void) {
    directory = getenv("SHIM_DIRECTORY");
    synced = getenv("SHIM_SYNCED");
    const char *path = getenv("SHIM_CONTROL");
    if (path != NULL) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) give_up(path);
        control = memory;
        close(fd);
    }
    if (synced == NULL || directory == NULL) return;
    DIR *entries = opendir(directory);
    if (entries == NULL) give_up(directory);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int fd = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC);
        struct stat status;
        if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) keep_file(fd, status.st_ino);
        close(fd);
    }
    closedir(entries);
    keep_names();
}

int fsync(int fd) { return synchronise(fd, SYS_fsync); }
int fdatasync(int fd) { return synchronise(fd, SYS_fdatasync); }

ssize_t read(int fd, void *to, size_t count) {
    return fd_fails(READ, fd) ? -1 : syscall(SYS_read, fd, to, count);
}
ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
    return fd_fails(READ, fd) ? -1 : syscall(SYS_pread64, fd, to, count, at);
}
ssize_t pread(int fd, void *to, size_t count, off_t at) { return pread64(fd, to, count, at); }

ssize_t write(int fd, const void *from, size_t count) {
    return fd_fails(WRITE, fd) ? -1 : syscall(SYS_write, fd, from, count);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    return fd_fails(WRITE, fd) ? -1 : syscall(SYS_pwrite64, fd, from, count, at);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return pwrite64(fd, from, count, at); }

int ftruncate64(int fd, off64_t length) {
    return fd_fails(TRUNCATE, fd) ? -1 : syscall(SYS_ftruncate, fd, length);
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int rename(const char *from, const char *to) {
    if (control != NULL && fails(RENAME, kind_of_path(to))) return -1;
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
