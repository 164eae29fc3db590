/* Locks: texts in them come back as they were, names of files mean the same file, and what differs is
 * named. */
#include "base/text.h"
#include "language/bundle.h"
#include "language/tree.h"
#include "run/lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void texts_come_back_as_they_were(void **unused) {
  (void)unused;
  static const char *const texts[] = {"",
                                      "one line",
                                      "one\n",
                                      "two\nlines\n",
                                      "no end\nat all",
                                      "\n",
                                      "\n\n",
                                      "\nfirst empty\n",
                                      "last empty\n\n",
                                      "three\n\n\n",
                                      "  indented\nnot\n",
                                      "\ttab\n",
                                      "a\n\n  \n   \nb\n",
                                      "trailing space \n x \n",
                                      "# no comment\n--- \n... \n",
                                      "key: value\n- item\n",
                                      "cr\r\nlf\r\n",
                                      "bell\a\nesc\033\n",
                                      "\"quotes\" 'and' \\ backslash\n",
                                      "ü €\n\xF0\x9F\x98\x80\n",
                                      "line\xE2\x80\xA8separator\nx\n",
                                      "mark\xEF\xBB\xBF\nx\n",
                                      "next\xC2\x85line\nx\n",
                                      " \n",
                                      "\n \n",
                                      "|\n",
                                      "%TAG\n@`\n",
                                      "a: |\n  b\n"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    text_buffer out = {0};
    arena memory = {0};
    tree *root;
    text_add(&out, "before:\n  - name: ");
    tree_write_text(texts[i], &out, 4);
    text_add(&out, "    text: ");
    tree_write_text(texts[i], &out, 4);
    text_add(&out, "after: 1\n");
    status error = tree_parse(&memory, out.data, out.length, "text", &root);
    if (error) fail_msg("%zu: %s in\n%s", i, error_message(error), out.data);
    const tree *item = tree_get(root, "before")->items[0];
    assert_string_equal(tree_get(item, "name")->text, texts[i]);
    assert_string_equal(tree_get(item, "text")->text, texts[i]);
    assert_string_equal(tree_get(root, "after")->text, "1");
    arena_free(&memory);
    text_free(&out);
  }
}

static void utf8_is_told_apart(void **unused) {
  (void)unused;
  static const char *const good[] = {"",
                                     "abc",
                                     "\xC2\x80",
                                     "\xE0\xA0\x80",
                                     "\xED\x9F\xBF",
                                     "\xF0\x90\x80\x80",
                                     "\xF4\x8F\xBF\xBF"};
  static const char *const bad[] = {
      "\x80",         "\xC0\x80",         "\xC1\xBF", "\xC2",
      "\xE0\x9F\xBF", "\xED\xA0\x80",     "\xE2\x80", "\xF0\x8F\xBF\xBF",
      "\xF8\x88",     "\xF4\x90\x80\x80", "\xFF",     "caf\xE9"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(text_is_utf8(good[i]));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(text_is_utf8(bad[i]));
}

static void names_are_made_normal(void **unused) {
  (void)unused;
  static const struct {
    const char *folder, *name, *expected;
  } cases[] = {{"", "a.yaml", "a.yaml"},
               {".", "./a.yaml", "a.yaml"},
               {"a/b", "c", "a/b/c"},
               {"a/b", "../c", "a/c"},
               {"a/b", "../../c", "c"},
               {"a/b", "../../../c", "../c"},
               {"a", "../../../c", "../../c"},
               {"a//b/", ".//c/./d/..", "a/b/c"},
               {"/a/b", "../c", "/a/c"},
               {"/a/b", "../../../c", "/c"},
               {"a/b", "/c/../d", "/d"},
               {"..a", "b..", "..a/b.."},
               {"pipelines/models", "../blocks/x.yaml", "pipelines/blocks/x.yaml"}};
  arena memory = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_string_equal(normal_name(&memory, cases[i].folder, cases[i].name), cases[i].expected);
  assert_true(normal_path(&memory, "x/../y")[0] == '/');
  bundle b = {.owner = "my.lock"};
  bundle_add(&b, &memory, (bundle_file){.name = "a", .text = "1"});
  bundle_add(&b, &memory, (bundle_file){.name = "a", .text = "2"});
  assert_int_equal(b.count, 1);
  assert_string_equal(bundle_find(&b, "a")->text, "1");
  assert_string_equal(bundle_name(&b, bundle_path(&b, &memory, "a")), "a");
  assert_string_equal(bundle_name(&b, "my.lock"), "");
  assert_null(bundle_name(&b, "my.lockers"));
  assert_null(bundle_name(&b, "other: a"));
  assert_null(bundle_name(NULL, "my.lock"));
  arena_free(&memory);
}

static const char small[] = "strata: 0.1.0\n"
                            "compiler: c\n"
                            "numerics: N\n"
                            "weights: {segment: \"5\"}\n"
                            "pipeline: {seed: \"1\", data: \"2\"}\n"
                            "operators: {conv3d: 2, mse: 1}\n"
                            "init: {\"segment: weights\": \"9\"}\n"
                            "data:\n"
                            "  hash: \"7\"\n"
                            "  cases:\n"
                            "    - {name: a, role: train, image: \"1 2\", label: \"3\"}\n"
                            "    - {name: b, role: test, image: \"4 5\"}\n"
                            "files:\n"
                            "  - {name: x.lua, hash: \"6\", text: t}\n";

static tree *parse(arena *memory, const char *text) {
  tree *root;
  status error = tree_parse(memory, text, strlen(text), "lock", &root);
  if (error) fail_msg("%s", error_message(error));
  return root;
}

/* `text` with the first `from` replaced. */
static char *changed(arena *memory, const char *text, const char *from, const char *to) {
  const char *at = strstr(text, from);
  assert_non_null(at);
  return arena_printf(memory, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void what_differs_is_named(void **unused) {
  (void)unused;
  static const struct {
    const char *from, *to, *expected;
    int count;
  } cases[] = {
      {"numerics: N", "numerics: M", "this device computes with M, the lock was made with N", 1},
      {"seed: \"1\"", "seed: \"8\"", "the pipeline's key seed says something else than it said", 1},
      {"data: \"2\"", "more: \"2\"", "the pipeline's key more says something else than it said", 2},
      {"conv3d: 2", "conv3d: 3", "the operator conv3d is of another version: 3, in the lock 2", 1},
      {", mse: 1", "", "the operator mse is in the lock and no more in use", 1},
      {"hash: \"6\"", "hash: \"60\"", "the file x.lua has changed: 60, in the lock 6", 1},
      {"\"9\"", "\"90\"", "init of stage segment: weights reads another file: 90, in the lock 9",
       1},
      {"hash: \"7\"", "hash: \"70\"", "the classes or the cases of the data set have changed", 1},
      {"\"1 2\"", "\"1 20\"", "case a: the image a_1.nii has changed: 20, in the lock 2", 1},
      {"\"1 2\"", "\"10 2\"", "case a: the image a_0.nii has changed: 10, in the lock 1", 1},
      {"\"1 2\"", "\"1\"", "case a: it has another number of image files", 1},
      {"label: \"3\"", "label: \"30\"", "case a: the label a_l.nii has changed: 30, in the lock 3",
       1},
      {", label: \"3\"", "", "case a: it has no label; in the lock it has one", 1},
      {"\"4 5\"", "\"4 5\", label: \"6\"", "case b: the label b_l.nii has changed", 1},
      {"role: train", "role: validation", "case a: its role is validation, in the lock train", 1},
      {"name: a", "name: c", "case c is not in the lock", 2},
      {"weights: {segment: \"5\"}", "weights: {}", NULL, 0},
      {"compiler: c", "compiler: d", NULL, 0},
  };
  static const char *const more_a[] = {"a_1.nii"}, *const more_b[] = {"b_1.nii"};
  static const content_hash content[3];
  case_entry entries[] = {{.name = "a",
                           .image = "a_0.nii",
                           .more_images = more_a,
                           .more_image_count = 1,
                           .label = "a_l.nii",
                           .content = content},
                          {.name = "b",
                           .image = "b_0.nii",
                           .more_images = more_b,
                           .more_image_count = 1,
                           .label = "b_l.nii",
                           .content = content}};
  dataset data = {.cases = entries, .case_count = 2};
  const run r = {.data = &data};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arena memory = {0};
    lock then, now;
    char *text = changed(&memory, small, cases[i].from, cases[i].to);
    if (cases[i].expected && strstr(cases[i].expected, "case "))
      text = changed(&memory, text, "hash: \"7\"", "hash: \"70\"");
    assert_null(lock_read(parse(&memory, small), NULL, &then));
    assert_null(lock_read(parse(&memory, text), NULL, &now));
    problems found = {0};
    key_differences keys = {0};
    lock_compare_keys(&then, &now, &memory, &keys);
    for (int k = 0; k < keys.count; k++) problems_add(&found, lock_key_sentence(&keys.list[k]));
    lock_compare(&then, &now, &r, &found);
    assert_int_equal(found.count, cases[i].count);
    bool said = !cases[i].expected;
    for (int k = 0; k < found.count; k++)
      said |= cases[i].expected && strstr(error_message(found.list[k]), cases[i].expected);
    if (!said) fail_msg("not %s but %s", cases[i].expected, error_message(found.list[0]));
    assert_string_equal(lock_weights(&then, "segment"), "5");
    assert_null(lock_weights(&then, "pretrain"));
    problems_free(&found);
    lock_free(&then);
    lock_free(&now);
    arena_free(&memory);
  }
}

/* Names of keys with both values; what the identity leaves out is no difference. */
static void keys_that_differ_are_named(void **unused) {
  (void)unused;
  static const char then_text[] =
      "seed: 1\n"
      "data: {root: /a, sample: [{flip: {axes: x}}, {noise: {sd: 1}}]}\n"
      "model: {with: {features: 4, name: /a/b}}\n"
      "stages:\n"
      "  - fit: {epochs: 3, memory: 1GiB, clip_norm: 1, optimizer: {sgd: {}}}\n"
      "  - gone: {epochs: 1}\n";
  static const char now_text[] =
      "seed: 1.0\n"
      "data: {root: /b, sample: [{flip: {axes: y}}, {noise: {sd: 1}}]}\n"
      "model: {with: {features: 8, name: /c/d}}\n"
      "stages:\n"
      "  - fit: {epochs: 3, ema: {decay: 0.9}, optimizer: {adamw: {}}}\n";
  static const struct {
    const char *part, *expected; /* "key then now" of each, with / between */
  } cases[] = {{"seed", ""},
               {"data", "data.sample.flip.axes x y/"},
               {"model.with", "model.with.features 4 8/"},
               {"stages.fit", "stages.fit.ema - {decay: 0.9}/stages.fit.optimizer.adamw - {}/"
                              "stages.fit.optimizer.sgd {} -/stages.fit.clip_norm 1 -/"},
               {"stages.gone", "stages.gone {epochs: 1} -/"},
               {"evaluate", ""}};
  arena memory = {0};
  const tree *then = parse(&memory, then_text), *now = parse(&memory, now_text);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    key_differences found = {0};
    const char *text = "";
    pipeline_differences(&memory, cases[i].part, then, now, &found);
    for (int k = 0; k < found.count; k++)
      text = arena_printf(&memory, "%s%s %s %s/", text, found.list[k].key,
                          found.list[k].then ? found.list[k].then : "-",
                          found.list[k].now ? found.list[k].now : "-");
    assert_string_equal(text, cases[i].expected);
  }
  arena_free(&memory);
}

static void a_damaged_lock_is_an_error(void **unused) {
  (void)unused;
  static const struct {
    const char *from, *to, *expected;
  } cases[] = {{"files:", "fils:", "lock needs \"files\""},
               {"weights: {segment: \"5\"}", "weights: 3", "weights must be a mapping"},
               {"pipeline: {seed: \"1\", data: \"2\"}", "", "lock needs \"pipeline\""},
               {"operators: {conv3d: 2, mse: 1}", "operators: [a]", "operators must be a mapping"},
               {"- {name: b, role: test, image: \"4 5\"}", "- b", "a case is {name: …"},
               {"  hash: \"7\"\n  cases:", "  hash: \"7\"\n  case:", "lock needs \"cases\""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arena memory = {0};
    lock l;
    status error =
        lock_read(parse(&memory, changed(&memory, small, cases[i].from, cases[i].to)), NULL, &l);
    assert_non_null(error);
    if (!strstr(error_message(error), cases[i].expected)) fail_msg("%s", error_message(error));
    error_free(error);
    lock_free(&l);
    arena_free(&memory);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(texts_come_back_as_they_were), cmocka_unit_test(utf8_is_told_apart),
      cmocka_unit_test(names_are_made_normal),        cmocka_unit_test(what_differs_is_named),
      cmocka_unit_test(keys_that_differ_are_named),   cmocka_unit_test(a_damaged_lock_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
