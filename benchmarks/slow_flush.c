/* A disk whose flush takes longer: loaded before a process's libraries, fsync and fdatasync return FLUSH_US later. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int later(int (*flush)(int), int file) {
    const char *wanted = getenv("FLUSH_US");
    long us = wanted ? atol(wanted) : 0;
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    int result = flush(file);
    nanosleep(&pause, NULL);
    return result;
}

int fsync(int file) { return later((int (*)(int))dlsym(RTLD_NEXT, "fsync"), file); }
int fdatasync(int file) { return later((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"), file); }
