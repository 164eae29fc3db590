/* metrics.csv and TensorBoard's event files. */
#include "data_folder.h"

#include "run/metrics_csv.h"
#include "run/tensorboard.h"

#include <dirent.h>

/* ---- metrics.csv --------------------------------------------------------------------------- */

static void expect_csv(const char *jsonl, const char *csv) {
  char *text;
  size_t length;
  write_text(inside("metrics.jsonl"), jsonl);
  expect_ok(metrics_csv_write(inside("metrics.jsonl"), inside("metrics.csv")));
  expect_ok(file_read(inside("metrics.csv"), 1 << 20, &text, &length));
  assert_string_equal(text, csv);
  free(text);
}

static void the_csv_has_a_column_for_every_key(void **state) {
  (void)state;
  expect_csv("", "stage,epoch,updates,seconds\n");
  expect_csv(
      "{\"stage\":\"a\",\"epoch\":1,\"updates\":4,\"loss\":0.10000000000000001,\"seconds\":2.5}\n"
      "{\"stage\":\"a\",\"epoch\":2,\"updates\":8,\"loss\":null,\"dice\":1e-300,\"seconds\":2.0}\n"
      "{\"stage\":\"b, \\\"c\\\"\",\"epoch\":1,\"updates\":4,\"x,y\":3,\"seconds\":1.0}\n",
      "stage,epoch,updates,loss,dice,\"x,y\",seconds\n"
      "a,1,4,0.10000000000000001,,,2.5\n"
      "a,2,8,,1e-300,,2.0\n"
      "\"b, \"\"c\"\"\",1,4,,,3,1.0\n");
}

static void a_half_written_last_line_is_left_out_and_a_broken_one_is_an_error(void **state) {
  (void)state;
  expect_csv("{\"stage\":\"a\",\"epoch\":1,\"updates\":4,\"seconds\":1}\n{\"stage\":\"a\",\"epo",
             "stage,epoch,updates,seconds\na,1,4,1\n");
  static const char *const broken[] = {"{\"stage\":\"a\"}\n{\"stage\":\n{}\n", "[]\n{}\n", "\n",
                                       "{\"a\":1,\"a\":2}\n"};
  for (int i = 0; i < 4; i++) {
    write_text(inside("metrics.jsonl"), broken[i]);
    expect_error(metrics_csv_write(inside("metrics.jsonl"), inside("metrics.csv")),
                 i == 0 ? "metrics.jsonl: line 2" : "metrics.jsonl: line 1");
  }
  char *text;
  size_t length; /* the file of before is still whole */
  expect_ok(file_read(inside("metrics.csv"), 1 << 20, &text, &length));
  assert_string_equal(text, "stage,epoch,updates,seconds\na,1,4,1\n");
  free(text);
  expect_error(metrics_csv_write(inside("none.jsonl"), inside("metrics.csv")), "none.jsonl");
}

/* ---- event files --------------------------------------------------------------------------- */

enum { FILES_MAX = 8 };

/* What a small reader of one's own finds in the event files of a folder. */
typedef struct found_events {
  int count;
  int64_t step[32];
  double wall_time[32];
  char tag[32][64]; /* of the first value */
  float value[32];
  int starts, versions;
  int64_t start_step; /* of the last SessionLog START */
} found_events;

/* The event files of a folder, oldest first. */
static int event_paths(const char *events_folder, char paths[][1024]) {
  struct dirent **entries;
  int count = 0, all = scandir(events_folder, &entries, NULL, alphasort);
  assert_true(all >= 0);
  for (int i = 0; i < all; i++) {
    const char *name = entries[i]->d_name;
    if (strstr(name, "tfevents") && !strstr(name, "another")) {
      assert_true(count < FILES_MAX);
      snprintf(paths[count++], 1024, "%s/%s", events_folder, name);
    }
    free(entries[i]);
  }
  free(entries);
  return count;
}

/* The one that there is. */
static char *event_path(const char *events_folder) {
  static char paths[FILES_MAX][1024];
  assert_int_equal(event_paths(events_folder, paths), 1);
  return paths[0];
}

static uint64_t varint(const unsigned char **p) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    value |= (uint64_t)(**p & 0x7F) << shift;
    if (*(*p)++ < 0x80) return value;
  }
}

static void read_value(const unsigned char *p, const unsigned char *end, found_events *f) {
  while (p < end) {
    uint64_t key = varint(&p);
    if (key == (1 << 3 | 2)) { /* tag */
      uint64_t length = varint(&p);
      assert_true(length < sizeof *f->tag);
      memcpy(f->tag[f->count], p, length);
      p += length;
    } else {
      assert_int_equal(key, 2 << 3 | 5); /* simple_value */
      memcpy(&f->value[f->count], p, 4);
      p += 4;
    }
  }
}

static void read_event(const unsigned char *p, const unsigned char *end, found_events *f) {
  bool has_summary = false;
  while (p < end) {
    uint64_t key = varint(&p), length;
    if (key == (1 << 3 | 1)) {
      memcpy(&f->wall_time[f->count], p, 8);
      p += 8;
    } else if (key == 2 << 3) {
      f->step[f->count] = (int64_t)varint(&p);
    } else {
      assert_int_equal(key & 7, 2);
      length = varint(&p);
      if (key >> 3 == 5) {
        const unsigned char *value = p;
        assert_int_equal(varint(&value), 1 << 3 | 2);
        uint64_t bytes = varint(&value);
        read_value(value, value + bytes, f);
        has_summary = true;
      }
      f->versions += key >> 3 == 3;
      f->starts += key >> 3 == 7;
      if (key >> 3 == 7) f->start_step = f->step[f->count];
      p += length;
    }
    assert_true(p <= end);
  }
  f->count += has_summary;
}

static uint32_t masked(const void *data, size_t bytes) {
  uint32_t crc = crc32c(data, bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static void read_file(const char *path, found_events *f) {
  char *text;
  size_t length;
  expect_ok(file_read(path, 1 << 20, &text, &length));
  for (size_t at = 0; at < length;) {
    uint64_t bytes;
    uint32_t crc;
    memcpy(&bytes, text + at, 8); /* tests run on little-endian machines */
    memcpy(&crc, text + at + 8, 4);
    assert_int_equal(crc, masked(text + at, 8));
    memcpy(&crc, text + at + 12 + bytes, 4);
    assert_int_equal(crc, masked(text + at + 12, bytes));
    read_event((unsigned char *)text + at + 12, (unsigned char *)text + at + 12 + bytes, f);
    at += 16 + bytes;
  }
  free(text);
}

static found_events read_events(const char *events_folder) {
  char paths[FILES_MAX][1024];
  found_events f = {0};
  int count = event_paths(events_folder, paths);
  for (int i = 0; i < count; i++) read_file(paths[i], &f);
  return f;
}

/* Epochs first … last, in one process. */
static void log_epochs(const char *events_folder, int64_t done, int64_t last) {
  static const char *const names[] = {"loss.context", "lr"};
  event_file *f;
  expect_ok(event_file_open(events_folder, done, &f));
  for (int64_t epoch = done + 1; epoch <= last; epoch++)
    expect_ok(event_file_add(f, epoch, names, (double[]){1.0 / (double)epoch, 0.1}, 2));
  expect_ok(event_file_close(f));
}

static void expect_epochs(const found_events *f, int64_t last) {
  assert_int_equal(f->count, last);
  assert_int_equal(f->versions, f->starts + 1); /* of the files; the first goes on with nothing */
  for (int i = 0; i < f->count; i++) {
    assert_int_equal(f->step[i], i + 1);
    assert_string_equal(f->tag[i], "loss/context");
    assert_true(f->value[i] == (float)(1.0 / (i + 1)));
    assert_true(f->wall_time[i] > 1.7e9 && (i == 0 || f->wall_time[i] >= f->wall_time[i - 1]));
  }
}

static void crc32c_is_castagnoli(void **state) {
  (void)state;
  unsigned char bytes[32] = {0}; /* RFC 3720, B.4 */
  assert_int_equal(crc32c(bytes, 32), 0x8A9136AA);
  memset(bytes, 0xFF, 32);
  assert_int_equal(crc32c(bytes, 32), 0x62A8AB43);
  for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
  assert_int_equal(crc32c(bytes, 32), 0x46DD794E);
  assert_int_equal(crc32c("123456789", 9), 0xE3069283);
}

static void every_epoch_is_an_event(void **state) {
  (void)state;
  log_epochs(inside("events"), 0, 5);
  found_events f = read_events(inside("events"));
  expect_epochs(&f, 5);
  assert_int_equal(f.starts, 0);
}

static void a_resumed_stage_has_no_epoch_twice_and_keeps_its_times(void **state) {
  (void)state;
  log_epochs(inside("events"), 0, 5);
  found_events before = read_events(inside("events"));
  log_epochs(inside("events"), 3, 7); /* 4 and 5 were lost with the process and are done again */
  found_events after = read_events(inside("events"));
  expect_epochs(&after, 7);
  assert_int_equal(after.starts, 1); /* a TensorBoard that watches forgets what is done again */
  assert_int_equal(after.start_step, 4);
  for (int i = 0; i < 3; i++) assert_true(after.wall_time[i] == before.wall_time[i]);
  log_epochs(inside("events"), 0, 2); /* from the beginning */
  after = read_events(inside("events"));
  expect_epochs(&after, 2);
}

/* A file of `bytes` bytes is cut to `kept` and three epochs. */
static void expect_cut(const char *path, const char *text, size_t bytes, size_t kept) {
  char paths[FILES_MAX][1024], *cut;
  size_t length;
  expect_ok(file_write_atomic(path, text, bytes));
  log_epochs(inside("events"), 9, 9);
  found_events found = read_events(inside("events"));
  expect_epochs(&found, 3);
  expect_ok(file_read(path, 1 << 20, &cut, &length));
  assert_int_equal(length, kept);
  free(cut);
  assert_int_equal(event_paths(inside("events"), paths), 2);
  assert_int_equal(unlink(paths[1]), 0);
}

static void a_torn_or_damaged_end_is_dropped(void **state) {
  (void)state;
  char *text, *path;
  size_t whole;
  log_epochs(inside("events"), 0, 4);
  expect_ok(file_read(event_path(inside("events")), 1 << 20, &text, &whole));
  size_t record = 0; /* all events are of one size: the last one's is what the fourth added */
  for (size_t at = 0; at < whole; at += record) {
    uint64_t bytes;
    memcpy(&bytes, text + at, 8);
    record = bytes + 16;
  }
  path = event_path(inside("events"));
  for (size_t cut = 1; cut <= record; cut++) /* torn anywhere in it */
    expect_cut(path, text, whole - cut, whole - record);
  for (size_t at = whole - record; at < whole; at++) { /* a bit flipped anywhere in it */
    text[at] ^= 4;
    expect_cut(path, text, whole, whole - record);
    text[at] ^= 4;
  }
  free(text);
}

/* A record whose frame is right and whose content is not. */
static void hostile_events_do_no_harm(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t count;
  } events[] = {
      {"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10},     /* a summary of 2^63 bytes */
      {"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11}, /* a number that does not end */
      {"\x09\x01\x02", 3},                                  /* a double of two bytes */
      {"\x2a", 1},                                          /* a key alone */
      {"\x13\x14", 2},                                      /* a group, which nobody writes */
      {"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x2a\x00", 13}, /* step −1, empty summary */
  };
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    char file[64];
    uint64_t bytes = events[i].count;
    uint32_t crc = masked(&bytes, 8);
    memcpy(file, &bytes, 8);
    memcpy(file + 8, &crc, 4);
    memcpy(file + 12, events[i].bytes, bytes);
    crc = masked(events[i].bytes, bytes);
    memcpy(file + 12 + bytes, &crc, 4);
    char name[64];
    snprintf(name, sizeof name, "events.%zu", i);
    log_epochs(inside(name), 0, 1);
    expect_ok(file_write_atomic(event_path(inside(name)), file, bytes + 16));
    event_file *f;
    expect_ok(event_file_open(inside(name), 9, &f)); /* it is no summary of an epoch after 9 */
    expect_ok(event_file_close(f));
    char paths[FILES_MAX][1024];
    assert_int_equal(event_paths(inside(name), paths), 2);
    found_events found = {0};
    read_file(paths[1], &found);
    assert_int_equal(found.versions, 1);
  }
}

static void files_of_others_stay(void **state) {
  (void)state;
  expect_ok(folder_create(inside("events")));
  write_text(inside("events/events.out.tfevents.1.another"), "x");
  log_epochs(inside("events"), 0, 1);
  log_epochs(inside("events"), 1, 2);
  assert_true(file_exists(inside("events/events.out.tfevents.1.another")));
  found_events f = read_events(inside("events"));
  expect_epochs(&f, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(the_csv_has_a_column_for_every_key, begin, end),
      cmocka_unit_test_setup_teardown(
          a_half_written_last_line_is_left_out_and_a_broken_one_is_an_error, begin, end),
      cmocka_unit_test(crc32c_is_castagnoli),
      cmocka_unit_test_setup_teardown(every_epoch_is_an_event, begin, end),
      cmocka_unit_test_setup_teardown(a_resumed_stage_has_no_epoch_twice_and_keeps_its_times, begin,
                                      end),
      cmocka_unit_test_setup_teardown(a_torn_or_damaged_end_is_dropped, begin, end),
      cmocka_unit_test_setup_teardown(hostile_events_do_no_harm, begin, end),
      cmocka_unit_test_setup_teardown(files_of_others_stay, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
