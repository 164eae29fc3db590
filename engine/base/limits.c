#include "base/limits.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char membership_file[] = "/proc/self/cgroup", mounted_folder[] = "/sys/fs/cgroup";

/* Two numbers of a group's file, as many as are there; "max" is no limit. */
static void read_numbers(const char *group, const char *name, double out[2]) {
  char *path = path_join(group, name), *text = NULL;
  size_t length = 0;
  out[0] = out[1] = INFINITY;
  status error = file_exists(path) ? file_read(path, 4096, &text, &length) : OK;
  char *at = text;
  for (int i = 0; i < 2 && !error && at; i++) {
    char *end;
    double number = strtod(at, &end);
    if (end == at) break;
    out[i] = number;
    at = end;
  }
  error_free(error);
  free(text);
  free(path);
}

/* The limit of one group. */
typedef double (*group_limit)(const char *group);

static double cores_1(const char *group) {
  double quota[2], period[2];
  read_numbers(group, "cpu.cfs_quota_us", quota);
  read_numbers(group, "cpu.cfs_period_us", period);
  return quota[0] > 0 && isfinite(quota[0]) && period[0] > 0 ? quota[0] / period[0] : INFINITY;
}

static double cores_2(const char *group) {
  double both[2];
  read_numbers(group, "cpu.max", both);
  return both[0] > 0 && isfinite(both[0]) && both[1] > 0 ? both[0] / both[1] : INFINITY;
}

static double memory_1(const char *group) {
  double bytes[2];
  read_numbers(group, "memory.limit_in_bytes", bytes);
  return bytes[0] > 0 ? bytes[0] : INFINITY;
}

static double memory_2(const char *group) {
  double bytes[2];
  read_numbers(group, "memory.max", bytes);
  return bytes[0] > 0 ? bytes[0] : INFINITY;
}

/* Of a group and all that it is in. `path` begins with a slash, and is cut short. In a container it may
 * be a path of the host, of which only the root is there. */
static double least_above(const char *hierarchy, char *path, group_limit limit_of) {
  double least = INFINITY;
  for (;;) {
    text_buffer group = {0};
    text_add(&group, "%s%s", hierarchy, path);
    least = fmin(least, limit_of(group.data));
    text_free(&group);
    char *slash = strrchr(path, '/');
    if (!slash) return least;
    *slash = 0;
  }
}

static bool is_listed(const char *list, const char *name) {
  for (const char *at = list; *at; at += *at == ',') {
    size_t length = strcspn(at, ",");
    if (length == strlen(name) && strncmp(at, name, length) == 0) return true;
    at += length;
  }
  return false;
}

/* Lines are "number:controllers:path"; version 2 has no controllers. */
static double least_limit(const char *membership, const char *mounted, const char *controller,
                          group_limit limit_1, group_limit limit_2) {
  char *text = NULL, *rest;
  size_t length = 0;
  double least = INFINITY;
  error_free(file_read(membership, 1 << 20, &text, &length));
  for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
       line = strtok_r(NULL, "\n", &rest)) {
    char *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path || path[1] != '/') continue;
    *path++ = 0;
    controllers++;
    bool is_version_2 = !controllers[0];
    if (!is_version_2 && !is_listed(controllers, controller)) continue;
    char *hierarchy = is_version_2 ? memory_strdup(mounted) : path_join(mounted, controller);
    least = fmin(least, least_above(hierarchy, path, is_version_2 ? limit_2 : limit_1));
    free(hierarchy);
  }
  free(text);
  return least;
}

double limits_group_cores(const char *membership, const char *mounted) {
  return least_limit(membership, mounted, "cpu", cores_1, cores_2);
}

double limits_group_memory(const char *membership, const char *mounted) {
  return least_limit(membership, mounted, "memory", memory_1, memory_2);
}

int limits_cores(void) {
  cpu_set_t set;
  int bound = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  double time = limits_group_cores(membership_file, mounted_folder);
  if (time >= bound) return bound;
  return time >= 1 ? (int)time : 1;
}

double limits_memory(void) {
  double machine = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  double bytes = fmin(machine, limits_group_memory(membership_file, mounted_folder));
  struct rlimit own;
  if (getrlimit(RLIMIT_AS, &own) == 0 && own.rlim_cur != RLIM_INFINITY)
    bytes = fmin(bytes, (double)own.rlim_cur);
  return bytes;
}
