/* Kills the program at one of its calls that change files, for tests. Loaded with LD_PRELOAD.
 *
 * Environment:
 *   SHIM_KILL_AT  the call at which it is killed, before it has any effect: 1 is the first
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int calls;

static void count(void) {
    const char *at = getenv("SHIM_KILL_AT");
    if (at != NULL && __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) == atoi(at)) {
        kill(getpid(), SIGKILL);
    }
}

#define PASS_ON(name, types, ...)                      \
    int name types {                                   \
        static int(*system_call) types;                \
        count();                                       \
        if (system_call == NULL) {                     \
            *(void **)&system_call = dlsym(RTLD_NEXT, #name); \
        }                                              \
        return system_call(__VA_ARGS__);               \
    }

PASS_ON(fsync, (int file), file)
PASS_ON(fdatasync, (int file), file)
PASS_ON(rename, (const char *from, const char *to), from, to)
PASS_ON(unlink, (const char *path), path)
PASS_ON(unlinkat, (int folder, const char *path, int flags), folder, path, flags)
PASS_ON(ftruncate, (int file, off_t length), file, length)
PASS_ON(ftruncate64, (int file, off64_t length), file, length)
