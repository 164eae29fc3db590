/* What this process may use of the machine: a job of a scheduler and a container have a part of it. */
#ifndef STRATA_BASE_LIMITS_H
#define STRATA_BASE_LIMITS_H

/* CPUs, from 1 on: those it is bound to (cpusets, taskset), and no more than the time that its control
 * groups give it in a second. */
int limits_cores(void);
/* Bytes of memory: the machine's, or fewer by its control groups or `ulimit -v`. */
double limits_memory(void);

/* What control groups allow, INFINITY where they say nothing. `membership` is a file like
 * /proc/self/cgroup, `mounted` the folder like /sys/fs/cgroup; both versions of the interface. */
double limits_group_cores(const char *membership, const char *mounted);
double limits_group_memory(const char *membership, const char *mounted);

#endif
