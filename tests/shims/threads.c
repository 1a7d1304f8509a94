/* A system that gives no more threads, for tests. Loaded into the server with LD_PRELOAD.
 *
 * Environment:
 *   SHIM_THREADS  so many calls of pthread_create go through; every further one fails with EAGAIN
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static int calls;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    static int (*system_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    const char *most = getenv("SHIM_THREADS");
    if (most != NULL && __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST) >= atoi(most)) {
        return EAGAIN;
    }
    if (system_create == NULL) {
        *(void **)&system_create = dlsym(RTLD_NEXT, "pthread_create");
    }
    return system_create(thread, attributes, start, argument);
}
