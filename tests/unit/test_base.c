/* Random numbers, threads, files, errors, text and arenas. */
#include "base/arena.h"
#include "base/files.h"
#include "base/index.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/rng_draw.h"
#include "base/status.h"
#include "base/table.h"
#include "base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- random numbers ---------------------------------------------------------------------------
 */

/* Known answers published with Random123, the reference implementation of Salmon et al. */
static void philox_gives_the_known_answers(void **unused) {
  (void)unused;
  static const struct {
    uint32_t counter[4], key[2], expected[4];
  } cases[] = {{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
               {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                {0xffffffff, 0xffffffff},
                {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
               {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                {0xa4093822, 0x299f31d0},
                {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (int i = 0; i < 3; i++) {
    uint32_t out[4];
    philox4x32(cases[i].counter, cases[i].key, out);
    assert_memory_equal(out, cases[i].expected, sizeof out);
  }
}

static rng stream(uint64_t seed, const char *stage, int64_t epoch, const char *case_name,
                  int64_t crop, const char *operator) {
  return rng_open(rng_key_of(seed, stage, epoch, case_name, crop), text_hash(operator));
}

static void a_stream_follows_from_its_name_alone(void **unused) {
  (void)unused;
  rng streams[] = {stream(1, "a", 0, "case", 0, "flip"),  stream(2, "a", 0, "case", 0, "flip"),
                   stream(1, "b", 0, "case", 0, "flip"),  stream(1, "a", 1, "case", 0, "flip"),
                   stream(1, "a", 0, "other", 0, "flip"), stream(1, "a", 0, "case", 1, "flip"),
                   stream(1, "a", 0, "case", 0, "rotate")};
  enum { STREAMS = sizeof streams / sizeof *streams };
  uint64_t first[STREAMS];
  for (int i = 0; i < STREAMS; i++) {
    rng r = streams[i], again = streams[i];
    first[i] = (uint64_t)rng_u32(&r) << 32;
    first[i] |= rng_u32(&r);
    assert_int_equal(rng_u32(&again), first[i] >> 32);
    for (int j = 0; j < i; j++) assert_true(first[i] != first[j]);
  }
}

/* Runs, caches and published results depend on these values: they may not change. */
static void hashes_and_streams_are_pinned(void **unused) {
  (void)unused;
  assert_true(text_hash("") == UINT64_C(0x2d06800538d394c2)); /* XXH3_64bits of nothing */
  assert_true(text_hash("strata") == bytes_hash("strata", 6));
  assert_true(hash_mix(1, 2) != hash_mix(2, 1));
  rng r = stream(17, "pretrain", 3, "hippocampus_001", 2, "random_crop");
  uint32_t got[6];
  for (int i = 0; i < 6; i++) got[i] = rng_u32(&r);
  static const uint32_t expected[6] = {0x052859f9, 0x417a71a8, 0x1df0e181,
                                       0xa5adbbbb, 0xf944d80a, 0x2f6e027b};
  assert_memory_equal(got, expected, sizeof got);
}

/* From every place within a block of four, and across blocks. */
static void numbers_can_be_drawn_ahead(void **unused) {
  (void)unused;
  for (int used = 0; used < 9; used++) {
    rng r = stream(5, "stage", 0, "case", 0, "random_noise");
    for (int i = 0; i < used; i++) rng_u32(&r);
    const rng kept = r;
    for (uint64_t n = 0; n < 12; n++) assert_int_equal(draw_ahead(&kept, n), rng_u32(&r));
    rng again = kept;
    assert_true(draw_normal(draw_ahead(&kept, 0), draw_ahead(&kept, 1)) == rng_normal(&again));
  }
}

static void distributions_have_their_moments(void **unused) {
  (void)unused;
  enum { N = 100000 };
  rng r = stream(5, "s", 0, "c", 0, "o");
  double uniform = 0, range = 0, normal = 0, normal2 = 0;
  int below[7] = {0};
  for (int i = 0; i < N; i++) {
    float u = rng_uniform(&r);
    double x = rng_range(&r, -3, 5);
    float z = rng_normal(&r);
    assert_true(u >= 0 && u < 1 && x >= -3 && x < 5 && isfinite(z));
    uniform += (double)u / N;
    range += x / N;
    normal += (double)z / N;
    normal2 += (double)z * (double)z / N;
    below[rng_below(&r, 7)]++;
  }
  /* Five standard errors each. */
  assert_true(fabs(uniform - 0.5) < 5 * 0.2887 / sqrt(N));
  assert_true(fabs(range - 1) < 5 * 8 * 0.2887 / sqrt(N));
  assert_true(fabs(normal) < 5 / sqrt(N));
  assert_true(fabs(normal2 - 1) < 5 * sqrt(2.0 / N));
  for (int i = 0; i < 7; i++) assert_true(fabs(below[i] - N / 7.0) < 5 * sqrt(N / 7.0));
  for (int i = 0; i < 100; i++) assert_int_equal(rng_below(&r, 1), 0);
}

static void permutations_hold_every_number_once_and_all_occur(void **unused) {
  (void)unused;
  rng r = stream(5, "s", 0, "c", 0, "o");
  int seen[24] = {0};
  for (int i = 0; i < 24 * 200; i++) {
    int32_t order[4], sum = 0;
    rng_permutation(&r, order, 4);
    for (int j = 0; j < 4; j++) sum |= 1 << order[j];
    assert_int_equal(sum, 15);
    int rank = 0;
    for (int j = 0; j < 4; j++) {
      int smaller = 0;
      for (int k = j + 1; k < 4; k++) smaller += order[k] < order[j];
      rank = rank * (4 - j) + smaller;
    }
    seen[rank]++;
  }
  for (int i = 0; i < 24; i++) assert_true(abs(seen[i] - 200) < 5 * 15);
}

/* ---- threads ----------------------------------------------------------------------------------
 */

typedef struct work {
  _Atomic int counts[1000];
  double results[1000];
} work;

static void do_task(void *context, int64_t task) {
  work *w = context;
  atomic_fetch_add(&w->counts[task], 1);
  double x = 1;
  for (int i = 0; i < 50 + (int)task % 7 * 100; i++) x = x * 1.0001 + (double)task;
  w->results[task] = x;
}

static void every_task_runs_once_with_one_result_on_any_number_of_threads(void **unused) {
  (void)unused;
  static work alone, together;
  parallel_for(NULL, 1000, do_task, &alone);
  for (int threads = 1; threads <= 5; threads++) {
    thread_pool *pool;
    assert_null(pool_create(threads, &pool));
    assert_int_equal(pool_threads(pool), threads);
    for (int round = 0; round < 20; round++) {
      memset(&together, 0, sizeof together);
      int64_t tasks = round % 4 == 0 ? round / 4 : 1000; /* 0 to 4 tasks too */
      if (round % 5 == 4) usleep(500);                   /* let the workers fall asleep */
      parallel_for(pool, tasks, do_task, &together);
      for (int i = 0; i < 1000; i++) assert_int_equal(together.counts[i], i < tasks);
      assert_memory_equal(together.results, alone.results, (size_t)tasks * sizeof(double));
    }
    pool_destroy(pool);
  }
  thread_pool *pool;
  assert_null(pool_create(0, &pool));
  assert_true(pool_threads(pool) >= 1);
  pool_destroy(pool);
  pool_destroy(NULL);
  assert_int_equal(pool_threads(NULL), 1);
}

/* ---- files ------------------------------------------------------------------------------------
 */

static char folder[200];

static int make_folder(void **unused) {
  (void)unused;
  const char *base = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.150s/strata-base-XXXXXX", base ? base : P_tmpdir);
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **unused) {
  (void)unused;
  return rmdir(folder); /* fails when a test has left a file behind */
}

static void assert_fails(status error, error_code code, const char *expected) {
  if (!error || !strstr(error_message(error), expected))
    print_error("expected: %s\ngot: %s\n", expected, error_message(error));
  assert_int_equal(error_code_of(error), code);
  assert_non_null(strstr(error_message(error), expected));
  error_free(error);
}

static void files_come_back_as_written(void **unused) {
  (void)unused;
  char *path = path_join(folder, "f"), *data;
  size_t length;
  static const size_t sizes[] = {0, 1, 16383, 16384, 16385, 100000};
  char *content = malloc(100000);
  assert_non_null(content);
  for (int i = 0; i < 100000; i++) content[i] = (char)(i * 7);
  for (int i = 0; i < 6; i++) {
    assert_null(file_write_atomic(path, content, sizes[i]));
    assert_null(file_read(path, sizes[i], &data, &length));
    assert_int_equal(length, sizes[i]);
    assert_memory_equal(data, content, length);
    assert_int_equal(data[length], 0);
    free(data);
  }
  assert_fails(file_read(path, 99999, &data, &length), ERROR_IO, "larger than");
  assert_null(data);
  free(content);
  unlink(path);
  assert_false(file_exists(path));
  assert_fails(file_read(path, 10, &data, &length), ERROR_IO, path);
  assert_fails(file_read(folder, 10, &data, &length), ERROR_IO, "it is a folder");
  free(path);
}

/* Nobody writes to the pipe and the device has no end: neither may be waited for. */
static void what_is_no_file_is_refused(void **unused) {
  (void)unused;
  char *path = path_join(folder, "pipe"), *data;
  size_t length;
  uint64_t bytes, low, high;
  assert_int_equal(mkfifo(path, 0600), 0);
  assert_fails(file_read(path, 10, &data, &length), ERROR_IO, "not a regular file");
  assert_fails(file_hash(path, &bytes, &low, &high), ERROR_IO, "not a regular file");
  assert_fails(file_read("/dev/zero", 10, &data, &length), ERROR_IO, "not a regular file");
  assert_null(data);
  unlink(path);
  free(path);
}

static void an_abandoned_write_leaves_the_old_file(void **unused) {
  (void)unused;
  char *path = path_join(folder, "f"), *data;
  size_t length;
  assert_null(file_write_atomic(path, "old", 3));
  atomic_file f;
  assert_null(atomic_begin(path, &f));
  fputs("new", f.stream);
  atomic_abandon(&f);
  assert_null(file_read(path, 10, &data, &length));
  assert_string_equal(data, "old");
  free(data);
  assert_null(atomic_begin(path, &f));
  fputs("new", f.stream);
  assert_null(atomic_commit(&f));
  assert_null(file_read(path, 10, &data, &length));
  assert_string_equal(data, "new");
  free(data);
  /* A full disk is an error, and the old file stays. */
  if (file_exists("/dev/full")) {
    assert_null(atomic_begin(path, &f));
    assert_non_null(freopen("/dev/full", "wb", f.stream));
    fputs("newer", f.stream);
    assert_fails(atomic_commit(&f), ERROR_IO, "cannot write");
    /* With its reason, although that came long before the commit. */
    assert_null(atomic_begin(path, &f));
    assert_non_null(freopen("/dev/full", "wb", f.stream));
    for (int i = 0; i < 100000; i++) fputs("newer", f.stream);
    assert_fails(atomic_commit(&f), ERROR_IO, "No space left on device");
    assert_null(file_read(path, 10, &data, &length));
    assert_string_equal(data, "new");
    free(data);
  }
  folder_remove(path);
  assert_false(file_exists(path));
  free(path);
}

static void what_a_killed_program_left_is_in_nobodys_way(void **unused) {
  (void)unused;
  char *below = path_join(folder, "below"), *path = path_join(below, "f");
  assert_null(folder_create(below));
  /* Of a program that had our number, as in a container. */
  for (int i = 0; i < 100; i++) {
    char left[400];
    snprintf(left, sizeof left, "%s.part-%ld-%d", path, (long)getpid(), i);
    FILE *file = fopen(left, "wb");
    assert_non_null(file);
    fclose(file);
  }
  assert_null(file_write_atomic(path, "whole", 5));
  assert_true(file_exists(path));
  folder_remove(below);
  assert_false(file_exists(below));
  free(path);
  free(below);
}

static void folders_are_made_with_their_parents(void **unused) {
  (void)unused;
  char *deep = path_join(folder, "a/b/c");
  assert_null(folder_create(deep));
  assert_null(folder_create(deep));
  assert_true(file_exists(deep));
  char *file = path_join(deep, "f"), *under = path_join(file, "g");
  assert_null(file_write_atomic(file, "", 0));
  assert_fails(folder_create(file), ERROR_IO, "a file is in the way");
  assert_fails(folder_create(under), ERROR_IO, "cannot create folder");
  assert_fails(file_write_atomic(under, "", 0), ERROR_IO, under);
  unlink(file);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(rmdir(deep), 0);
    *strrchr(deep, '/') = 0;
  }
  free(file);
  free(under);
  free(deep);
}

static void wildcards_stand_for_what_is_within_a_name(void **unused) {
  (void)unused;
  static const struct {
    const char *pattern, *text;
    bool fits;
  } rows[] = {{"", "", true},          {"*", "", true},        {"*", "abc", true},
              {"a*c", "abbc", true},   {"a*c", "abcd", false}, {"a*bc*", "abbcbcd", true},
              {"?", "", false},        {"??", "ab", true},     {"img/*.nii", "img/1.nii", true},
              {"*.nii", "a/b", false}, {"*", "a/b", false},    {"a?b", "a/b", false},
              {"*/*", "a/b", true},    {"a**b", "ab", true},   {"*a*a*a*b", "aaaaaaaaaa", false}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (wildcard_match(rows[i].pattern, rows[i].text, NULL) != rows[i].fits)
      fail_msg("%s and %s", rows[i].pattern, rows[i].text);
  int by[12];
  assert_true(wildcard_match("i*_?.nii", "ia_b_1.nii", by));
  const int expected[] = {0, 1, 1, 1, 2, 3, 4, 5, 6, 7};
  assert_memory_equal(by, expected, sizeof expected);
}

static void paths_join_and_split(void **unused) {
  (void)unused;
  static const struct {
    const char *folder, *name, *joined;
  } joins[] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"a", "/b", "/b"}, {".", "b", "b"},
               {"", "b", "b"},    {NULL, "b", "b"},   {"/", "b", "/b"}};
  for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
    char *joined = path_join(joins[i].folder, joins[i].name);
    assert_string_equal(joined, joins[i].joined);
    free(joined);
  }
  static const char *const folders[][2] = {
      {"a/b", "a"}, {"b", "."}, {"/b", "/"}, {"a/b/c", "a/b"}, {"a/", "a"}};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    char *got = path_folder(folders[i][0]);
    assert_string_equal(got, folders[i][1]);
    free(got);
  }
}

/* ---- errors -----------------------------------------------------------------------------------
 */

static void errors_carry_code_message_and_place(void **unused) {
  (void)unused;
  assert_int_equal(error_count(OK), 0);
  assert_string_equal(error_message(OK), "");
  assert_null(error_prefix(OK, "x"));
  assert_null(error_locate(OK, NOWHERE));
  error_free(OK);
  status error = error_new(ERROR_DATA, NOWHERE, "%d voxels", 3);
  error = error_prefix(error, "case %s", "a");
  error = error_locate(error, (source_pos){"f.yaml", 2, 5});
  error = error_locate(error, (source_pos){"other.yaml", 9, 9}); /* the first place stays */
  assert_int_equal(error_code_of(error), ERROR_DATA);
  assert_string_equal(error_message(error), "case a: 3 voxels");
  assert_string_equal(error_position(error).file, "f.yaml");
  assert_int_equal(error_position(error).line, 2);
  assert_int_equal(error_count(error), 1);
  error_free(error);
}

static char *printed(status error) {
  static char *text; /* the stream keeps its address */
  size_t length;
  FILE *out = open_memstream(&text, &length);
  error_print(out, error);
  fclose(out);
  return text;
}

static void a_printed_error_shows_its_line(void **unused) {
  (void)unused;
  char *path = path_join(folder, "f.yaml");
  assert_null(file_write_atomic(path, "one: 1\nzwölf: \x1b[2J?\n\tthree: 3", 30));
  status error = error_new(ERROR_PIPELINE, (source_pos){path, 2, 8}, "no");
  char *text = printed(error);
  text_buffer expected = {0};
  text_add(&expected, "%s:2:8: error: no\n  zwölf: ?[2J?\n         ^\n", path);
  assert_string_equal(text, expected.data);
  free(text);
  text_free(&expected);
  error_free(error);
  unlink(path);
  error = error_new(ERROR_PIPELINE, (source_pos){path, 2, 8}, "no");
  text = printed(error); /* the file is gone: the message alone */
  assert_null(strchr(strchr(text, '\n') + 1, '\n'));
  free(text);
  error_free(error);
  free(path);
  error = error_new(ERROR_USAGE, NOWHERE, "no");
  text = printed(error);
  assert_string_equal(text, "strata: error: no\n");
  free(text);
  error_free(error);
}

/* What is in a stranger's file must not steer the terminal that an error about it is printed to. */
static void a_message_is_printable(void **unused) {
  (void)unused;
  status error = error_new(ERROR_DATA, NOWHERE, "%s",
                           "\x1b]0;a\a\xC2\x9B"
                           "2Jé\x7f\n\tb\xC2");
  assert_string_equal(error_message(error), "?]0;a???2Jé?\n\tb\xC2");
  error_free(error);
  static const char *const printable[] = {"", "zwölf", "\xC2\xA0", "\xC2"}, *const controls[] = {
                                                                                "a\n", "\x1b",
                                                                                "\x7f",
                                                                                "é\xC2\x80"};
  for (int i = 0; i < 4; i++) {
    assert_true(text_is_printable(printable[i]));
    assert_false(text_is_printable(controls[i]));
  }
}

static void problems_gather_and_flatten(void **unused) {
  (void)unused;
  problems all = {0}, more = {0};
  assert_null(problems_take(&all));
  problems_add(&all, OK);
  problems_add(&all, error_new(ERROR_DATA, NOWHERE, "first"));
  status one = problems_take(&all);
  assert_int_equal(error_count(one), 1);
  for (int i = 0; i < 70; i++) problems_add(&more, error_new(ERROR_USAGE, NOWHERE, "p%d", i));
  problems_add(&all, one);
  problems_add(&all, problems_take(&more));
  status many = problems_take(&all);
  assert_int_equal(error_count(many), 71);
  assert_int_equal(error_code_of(many), ERROR_DATA);
  assert_string_equal(error_message(many), "first");
  char *text = printed(many);
  int lines = 0;
  for (char *p = text; *p; p++) lines += *p == '\n';
  assert_int_equal(lines, 51); /* fifty and the count of the rest */
  assert_non_null(strstr(text, "and 21 more"));
  free(text);
  error_free(many);
  problems_add(&all, error_new(ERROR_DATA, NOWHERE, "dropped"));
  problems_free(&all);
}

/* ---- text and arenas --------------------------------------------------------------------------
 */

static void the_nearest_name_is_suggested_when_near(void **unused) {
  (void)unused;
  static const char *const names[] = {"instance_norm", "layer_norm", "conv3d", "relu", "gelu"};
  static const struct {
    const char *word, *expected;
  } cases[] = {{"instnace_norm", "instance_norm"}, /* swapped letters count once */
               {"instancenorm", "instance_norm"},
               {"conv", "conv3d"},
               {"conv2d", "conv3d"},
               {"rleu", "relu"},
               {"geluu", "gelu"},
               {"attention", NULL},
               {"softmax", NULL},
               {"", NULL}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *got = nearest_name(cases[i].word, names, 5);
    if (!cases[i].expected)
      assert_null(got);
    else
      assert_string_equal(got, cases[i].expected);
  }
  char *long_word = calloc(1, 10001);
  memset(long_word, 'a', 10000);
  const char *const long_name = long_word;
  nearest_name(long_word, &long_name, 1);
  nearest_name("abc", &long_name, 1);
  assert_null(nearest_name("abc", NULL, 0));
  free(long_word);
}

static void an_index_finds_each_of_many_names(void **unused) {
  (void)unused;
  enum { NAMES = 1000 };
  arena memory = {0};
  name_index x = {0};
  assert_int_equal(index_find(&x, "name 0"), -1);
  for (int i = 0; i < NAMES; i++) index_add(&memory, &x, arena_printf(&memory, "name %d", i), i);
  for (int i = 0; i < NAMES; i++)
    assert_int_equal(index_find(&x, arena_printf(&memory, "name %d", i)), i);
  assert_int_equal(index_find(&x, "name 1000"), -1);
  assert_int_equal(index_find(&x, ""), -1);
  arena_free(&memory);
}

static void text_grows_and_formats(void **unused) {
  (void)unused;
  text_buffer t = {0};
  for (int i = 0; i < 1000; i++) text_add(&t, "%d,", i);
  assert_int_equal(t.length, 3890);
  assert_int_equal(strlen(t.data), 3890);
  text_append(&t, "a\0b", 3);
  assert_memory_equal(t.data + 3890, "a\0b", 4);
  text_free(&t);
  assert_true(text_starts_with("abc", "ab") && !text_starts_with("a", "ab"));
  assert_true(text_ends_with("abc", "bc") && !text_ends_with("c", "bc"));
  char out[24];
  static const struct {
    double value;
    const char *bytes, *duration;
  } cases[] = {{0, "0 B", "0:00"},
               {59.4, "59 B", "0:59"},
               {1023, "1023 B", "17:03"},
               {1536, "1.50 KiB", "25:36"},
               {-5, "-5 B", "0:00"},
               {3723, "3.64 KiB", "1:02:03"},
               {50 * 1048576.0, "50.0 MiB", "14563:33:20"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_string_equal(format_bytes(out, cases[i].value), cases[i].bytes);
    assert_string_equal(format_duration(out, cases[i].value), cases[i].duration);
  }
  format_bytes(out, 1e300);
  assert_string_equal(format_duration(out, 1e300), "27777:46:39");
  assert_string_equal(format_duration(out, (double)NAN), "0:00");
}

static void a_word_is_quoted_as_a_shell_needs_it(void **unused) {
  (void)unused;
  static const char *const cases[][2] = {{"a/b_1=0.5", "a/b_1=0.5"}, {"", "''"},
                                         {"a b", "'a b'"},           {"it's $x", "'it'\\''s $x'"},
                                         {"100%d", "100%d"},         {"[1, %s]", "'[1, %s]'"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    text_buffer t = {0};
    text_add_word(&t, cases[i][0]);
    assert_string_equal(t.data, cases[i][1]);
    text_free(&t);
  }
}

static void an_arena_hands_out_zeroed_aligned_memory(void **unused) {
  (void)unused;
  arena a = {0};
  static const size_t sizes[] = {0, 1, 15, 16, 17, 65536, 65537, 1 << 20, 3};
  for (int i = 0; i < 9; i++) {
    unsigned char *p = arena_alloc(&a, sizes[i]);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(p[j], 0);
    if (sizes[i]) memset(p, 255, sizes[i]);
  }
  assert_string_equal(arena_strndup(&a, "abcdef", 3), "abc");
  assert_string_equal(arena_printf(&a, "%s-%d", "x", 7), "x-7");
  int *items = NULL, count = 0, capacity = 0;
  for (int i = 0; i < 1000; i++) ARENA_PUSH(&a, items, count, capacity, i * i);
  for (int i = 0; i < 1000; i++) assert_int_equal(items[i], i * i);
  arena_free(&a);
  assert_null(a.blocks);
  assert_string_equal(arena_strdup(&a, "again"), "again");
  arena_free(&a);
}

static void check_table(const table *t, void (*write)(const table *, FILE *), const char *wanted) {
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  write(t, out);
  fclose(out);
  assert_string_equal(text, wanted);
  free(text);
}

static void a_table_is_aligned_by_columns_and_escaped_by_format(void **unused) {
  (void)unused;
  table t = {0};
  table_column(&t, "arm", false);
  table_column(&t, "Dice", true);
  table_column(&t, "note", false);
  assert_int_equal(table_rows(&t), 0);
  const char *const notes[] = {"", "a|b, \"c\"\n"};
  for (int i = 0; i < 2; i++) {
    table_cell(&t, "%s", i == 0 ? "größer" : "x");
    table_cell(&t, "%.*f", i + 1, 0.5);
    table_cell(&t, "%s", notes[i]);
  }
  assert_int_equal(table_rows(&t), 2);
  check_table(&t, table_print,
              "arm     Dice  note\n"
              "größer   0.5  \n"
              "x       0.50  a|b, \"c\"?\n");
  check_table(&t, table_markdown,
              "| arm | Dice | note |\n"
              "|---|---:|---|\n"
              "| größer | 0.5 |  |\n"
              "| x | 0.50 | a\\|b, \"c\"  |\n");
  check_table(&t, table_csv,
              "arm,Dice,note\n"
              "größer,0.5,\n"
              "x,0.50,\"a|b, \"\"c\"\"\n\"\n");
  table_free(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_gives_the_known_answers),
      cmocka_unit_test(a_stream_follows_from_its_name_alone),
      cmocka_unit_test(hashes_and_streams_are_pinned),
      cmocka_unit_test(numbers_can_be_drawn_ahead),
      cmocka_unit_test(distributions_have_their_moments),
      cmocka_unit_test(permutations_hold_every_number_once_and_all_occur),
      cmocka_unit_test(every_task_runs_once_with_one_result_on_any_number_of_threads),
      cmocka_unit_test(files_come_back_as_written),
      cmocka_unit_test(what_is_no_file_is_refused),
      cmocka_unit_test(an_abandoned_write_leaves_the_old_file),
      cmocka_unit_test(what_a_killed_program_left_is_in_nobodys_way),
      cmocka_unit_test(folders_are_made_with_their_parents),
      cmocka_unit_test(wildcards_stand_for_what_is_within_a_name),
      cmocka_unit_test(paths_join_and_split),
      cmocka_unit_test(errors_carry_code_message_and_place),
      cmocka_unit_test(a_printed_error_shows_its_line),
      cmocka_unit_test(a_message_is_printable),
      cmocka_unit_test(problems_gather_and_flatten),
      cmocka_unit_test(the_nearest_name_is_suggested_when_near),
      cmocka_unit_test(an_index_finds_each_of_many_names),
      cmocka_unit_test(text_grows_and_formats),
      cmocka_unit_test(a_word_is_quoted_as_a_shell_needs_it),
      cmocka_unit_test(a_table_is_aligned_by_columns_and_escaped_by_format),
      cmocka_unit_test(an_arena_hands_out_zeroed_aligned_memory),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
