/* What control groups allow. A test's folder holds `cgroup`, as /proc/self/cgroup, and what is in
 * /sys/fs/cgroup. */
#include "base/files.h"
#include "base/limits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data_folder.h"

static void put(const char *name, const char *text) {
  char *path = inside(name), *group = path_folder(path);
  assert_null(folder_create(group));
  assert_null(file_write_atomic(path, text, strlen(text)));
  free(group);
}

static void expect(double cores, double memory) {
  double found_cores = limits_group_cores(inside("cgroup"), folder),
         found_memory = limits_group_memory(inside("cgroup"), folder);
  if (found_cores != cores) fail_msg("%g cores instead of %g", found_cores, cores);
  if (found_memory != memory) fail_msg("%g bytes instead of %g", found_memory, memory);
}

static void the_least_of_a_group_and_those_around_it_counts(void **state) {
  (void)state;
  put("cgroup", "0::/slurm/job_7/step_0\n");
  expect(INFINITY, INFINITY); /* no such groups here */
  put("slurm/job_7/step_0/cpu.max", "max 100000\n");
  put("slurm/job_7/step_0/memory.max", "max\n");
  expect(INFINITY, INFINITY);
  put("slurm/job_7/cpu.max", "250000 100000\n");
  put("slurm/job_7/memory.max", "8589934592\n");
  put("cpu.max", "800000 100000\n");
  expect(2.5, 8589934592);
  put("slurm/job_7/step_0/cpu.max", "50000 100000\n");
  put("memory.max", "1048576\n");
  expect(0.5, 1048576);
}

static void the_first_version_has_a_folder_for_each_controller(void **state) {
  (void)state;
  put("cgroup",
      "9:name=systemd:/\n4:memory:/slurm/job_7\n3:cpuset:/x\n1:cpu,cpuacct:/slurm/job_7\n");
  put("cpu/slurm/job_7/cpu.cfs_quota_us", "-1\n");
  put("cpu/slurm/job_7/cpu.cfs_period_us", "100000\n");
  put("cpuset/x/cpu.cfs_quota_us", "1\n");
  put("memory/slurm/memory.limit_in_bytes", "4096\n");
  expect(INFINITY, 4096);
  put("cpu/slurm/job_7/cpu.cfs_quota_us", "300000\n");
  put("memory/slurm/memory.limit_in_bytes", "9223372036854771712\n");
  expect(3, 9223372036854771712.0);
}

static void what_is_not_understood_limits_nothing(void **state) {
  (void)state;
  unlink(inside("cgroup"));
  expect(INFINITY, INFINITY);
  put("cgroup", "\n:\n::\n0:\n0::nowhere\n0::/odd\nno colon");
  put("odd/cpu.max", "0 0\n");
  put("odd/memory.max", "\n");
  put("cpu.max", "much 100000\n");
  expect(INFINITY, INFINITY);
}

static void there_is_always_something(void **state) {
  (void)state;
  assert_true(limits_cores() >= 1);
  assert_true(limits_memory() > 1 << 20 && isfinite(limits_memory()));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(the_least_of_a_group_and_those_around_it_counts, begin, end),
      cmocka_unit_test_setup_teardown(the_first_version_has_a_folder_for_each_controller, begin,
                                      end),
      cmocka_unit_test_setup_teardown(what_is_not_understood_limits_nothing, begin, end),
      cmocka_unit_test(there_is_always_something),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
