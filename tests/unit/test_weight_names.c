/* Name rules for imported weights: what they do, and what they refuse at which line. */
#include "weights/names.h"

#include "base/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURE_FILE "rules.yaml"
#include "tests/unit/file_fixture.h"

enum { MAX_NAMES = 8 };

static status apply(const char *yaml, const char *const *names, arena *memory, const char **out) {
  const name_rules *rules;
  int count = 0;
  while (names[count]) count++;
  TRY(file_write_atomic(path, yaml, strlen(yaml)));
  TRY(name_rules_load(memory, path, &rules));
  return name_rules_apply(rules, names, count, memory, out);
}

static void names_change_by_rules(void **unused) {
  (void)unused;
  static const struct {
    const char *yaml, *names[MAX_NAMES], *become[MAX_NAMES];
  } cases[] = {
      {"strata: 1\n", {"a", "b.c"}, {"a", "b.c"}},
      /* The first prefix that fits, and only one. */
      {"strata: 1\nstrip: [module., net., never.]\n",
       {"module.net.a", "net.module.b", "c", "modules.d"},
       {"net.a", "module.b", "c", "modules.d"}},
      /* Rules see names without the prefix. */
      {"strata: 1\nstrip: [m.]\ndrop: [a]\nrename: [{from: b, to: c}]\n",
       {"m.a", "m.b"},
       {NULL, "c"}},
      {"strata: 1\ndrop: ['*.num', 'head.*']\n",
       {"a.num", "head.w", "a.num.b", "heads.w"},
       {NULL, NULL, "a.num.b", "heads.w"}},
      /* The first rule that fits. */
      {"strata: 1\nrename: [{from: 'a.x', to: q}, {from: 'a.*', to: 'b.*'}]\n",
       {"a.x", "a.y", "c"},
       {"q", "b.y", "c"}},
      /* A star takes the least that fits; stars are repeated in order and may be left away. */
      {"strata: 1\nrename: [{from: '*.b.*.w', to: '*/*'}]\n",
       {"a.b.b.c.w", "a.b.c.w.w"},
       {"a/b.c", "a/c.w"}},
      {"strata: 1\nrename: [{from: 'x*y*', to: 'z*'}]\n", {"xy", "x1y2"}, {"z", "z1"}},
      {"strata: 1\nrename: [{from: '*', to: 'net.*'}]\n", {"a", "b.c"}, {"net.a", "net.b.c"}},
      {"strata: 1\nrename: [{from: '**aa', to: '*-*'}]\n", {"aaa", "b"}, {"-a", "b"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arena memory = {0};
    const char *out[MAX_NAMES];
    status error = apply(cases[i].yaml, cases[i].names, &memory, out);
    if (error) print_error("%s: %s\n", cases[i].yaml, error_message(error));
    assert_null(error);
    for (int k = 0; cases[i].names[k]; k++) {
      bool same = out[k] && cases[i].become[k] ? strcmp(out[k], cases[i].become[k]) == 0
                                               : out[k] == cases[i].become[k];
      if (!same)
        fail_msg("%s%s becomes %s, not %s", cases[i].yaml, cases[i].names[k],
                 out[k] ? out[k] : "nothing", cases[i].become[k] ? cases[i].become[k] : "nothing");
    }
    arena_free(&memory);
  }
}

static void mistakes_in_rules_stand_at_their_lines(void **unused) {
  (void)unused;
  static const char *const names[] = {"encoder.layer1.weight", "encoder.layer1.bias",
                                      "decoder.conv.num_batches_tracked", "head.weight", NULL};
  static const struct {
    const char *yaml;
    int line;
    const char *expected;
  } cases[] = {
      {"strip: [a.]\n", 1, "name rules begin with strata: 1"},
      {"strata: 2\n", 1, "name rules begin with strata: 1"},
      {"- a\n", 1, "name rules are a mapping"},
      {"strata: 1\ndorp: [a]\n", 2, "drop"},
      {"strata: 1\ndrop: a\n", 2, "drop is a list"},
      {"strata: 1\ndrop: ['']\n", 2, "drop is empty"},
      {"strata: 1\ndrop: [[a]]\n", 2, "drop"},
      {"strata: 1\nrename: [a]\n", 2, "a rule is {from: pattern, to: pattern}"},
      {"strata: 1\nrename: [{from: a}]\n", 2, "a rule is {from: pattern, to: pattern}"},
      {"strata: 1\nrename: [{from: a, to: b, form: c}]\n", 2, "did you mean \"from\""},
      {"strata: 1\nrename:\n - {from: a*, to: '*.*'}\n", 3, "to has more stars than from"},
      {"strata: 1\nrename: [{from: '*********', to: a}]\n", 2, "more than 8 stars"},
      {"strata: 1\nstrip: [modul., net.]\n", 2, "strip: \"modul.\" fits none of the 4 names"},
      {"strata: 1\nstrip: [encodr.]\n", 2, "did you mean \"encoder.\"?"},
      {"strata: 1\ndrop:\n - head.*\n - encodre.*\n", 4, "did you mean \"encoder.\"?"},
      {"strata: 1\ndrop: ['*.num_batches_trackd']\n", 2, "did you mean \".num_batches_tracked\"?"},
      {"strata: 1\ndrop: [head.wieght]\n", 2, "did you mean \"head.weight\"?"},
      {"strata: 1\nrename: [{from: 'encoder.layr1.*', to: 'a.*'}]\n", 2,
       "rename: \"encoder.layr1.*\" fits none of the 4 names; did you mean \"encoder.layer1.\"?"},
      {"strata: 1\nrename: [{from: '*.weight', to: w}]\n", 0,
       "encoder.layer1.weight and head.weight would both be called w"},
      {"strata: 1\nrename: [{from: 'encoder.layer1.bias', to: head.weight}]\n", 0,
       "encoder.layer1.bias and head.weight would both be called head.weight"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arena memory = {0};
    const char *out[MAX_NAMES];
    status error = apply(cases[i].yaml, names, &memory, out);
    if (!error) fail_msg("accepted: %s", cases[i].yaml);
    if (!strstr(error_message(error), cases[i].expected) ||
        error_position(error).line != cases[i].line)
      fail_msg("%s\nexpected, at line %d: %s\ngot, at line %d: %s", cases[i].yaml, cases[i].line,
               cases[i].expected, error_position(error).line, error_message(error));
    error_free(error);
    arena_free(&memory);
  }
}

static void wrappers_go_only_when_every_name_has_them(void **unused) {
  (void)unused;
  const char *const wrapped[] = {"module.net.a", "module.net.b"},
                    *const plain[] = {"module.a", "b"}, *const other[] = {"encoder.a", "encoder.b"},
                    *const torch_compiled[] = {"_orig_mod.module.a"},
                    *const lightning[] = {"_model.a", "_model.b"},
                    *const unet[] = {"net.model.0.conv.weight",
                                     "net.model.1.submodule.0.conv.bias"};
  assert_int_equal(names_common_wrapper(wrapped, 2), strlen("module.net."));
  assert_int_equal(names_common_wrapper(plain, 2), 0);
  assert_int_equal(names_common_wrapper(other, 2), 0);
  assert_int_equal(names_common_wrapper(torch_compiled, 1), strlen("_orig_mod.module."));
  assert_int_equal(names_common_wrapper(lightning, 2), strlen("_model."));
  assert_int_equal(names_common_wrapper(unet, 2), strlen("net."));
  assert_int_equal(names_common_wrapper(NULL, 0), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_change_by_rules),
      cmocka_unit_test(mistakes_in_rules_stand_at_their_lines),
      cmocka_unit_test(wrappers_go_only_when_every_name_has_them),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
