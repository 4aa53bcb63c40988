/* Loaded before libc into a gateway under test: when the file that CLOCK_FAILS names is there, and a worker has slept, its
 * clock fails once, and the file is gone. Rust's standard library panics then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread int fails;

int epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    int (*wait)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
    int ready = wait(epoll, events, max, timeout);
    int error = errno;
    const char *file = getenv("CLOCK_FAILS");
    char thread[16];

    fails = file && prctl(PR_GET_NAME, thread) == 0 && strncmp(thread, "worker-", 7) == 0 && unlink(file) == 0;
    errno = error;
    return ready;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (fails && clock == CLOCK_MONOTONIC) {
        fails = 0;
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_clock_gettime, clock, time);
}
