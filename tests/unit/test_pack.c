/* Packs: what comes out of one is what went in, and a hostile one is refused before anything in it
 * is used. */
#include "base/files.h"
#include "base/text.h"
#include "base/zip.h"
#include "language/pipeline.h"
#include "run/pack.h"

#include <libdeflate.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "strata-pack-XXXXXX", path[64], target[64];

static const char good_pack[] = "strata: 1\npipeline: a.yaml\n";

/* An entry as it is, and lies about it. */
typedef struct entry {
  const char *name, *data;
  size_t name_bytes, bytes; /* 0: those of the texts */
  uint64_t claim;           /* unpacked bytes; 0: the truth */
  uint32_t wrong;           /* added to the checksum */
  unsigned flags, mode, method;
  int at; /* offset of the header that the directory gives, + 1; 0: the truth */
  bool deflate;
} entry;

static void number(text_buffer *t, uint64_t n, int bytes) {
  for (int i = 0; i < bytes; i++) {
    char byte = (char)(n >> 8 * i);
    text_append(t, &byte, 1);
  }
}

static size_t pack_data(const entry *e, size_t bytes, char **packed) {
  if (!e->deflate) {
    *packed = malloc(bytes + 1);
    memcpy(*packed, e->data, bytes);
    return bytes;
  }
  struct libdeflate_compressor *c = libdeflate_alloc_compressor(9);
  size_t room = libdeflate_deflate_compress_bound(c, bytes);
  *packed = malloc(room);
  size_t used = libdeflate_deflate_compress(c, e->data, bytes, *packed, room);
  libdeflate_free_compressor(c);
  return used;
}

/* Local header and data go to `out`, the record to `directory`. */
static void add(text_buffer *out, text_buffer *directory, const entry *e) {
  size_t name = e->name_bytes ? e->name_bytes : strlen(e->name), at = out->length;
  size_t bytes = e->bytes ? e->bytes : strlen(e->data);
  char *packed;
  size_t used = pack_data(e, bytes, &packed);
  for (int i = 0; i < 2; i++) {
    text_buffer *t = i == 0 ? out : directory;
    number(t, i == 0 ? 0x04034b50 : 0x02014b50, 4);
    if (i == 1) number(t, 3 << 8 | 20, 2);
    number(t, 20, 2);
    number(t, e->flags, 2);
    number(t, e->method ? e->method : e->deflate ? 8 : 0, 2);
    number(t, 0, 4);
    number(t, libdeflate_crc32(0, e->data, bytes) + e->wrong, 4);
    number(t, used, 4);
    number(t, e->claim ? e->claim : bytes, 4);
    number(t, name, 2);
    number(t, 0, 2);
    if (i == 1) {
      number(t, 0, 6); /* no comment, this disk, binary */
      number(t, (uint64_t)e->mode << 16, 4);
      number(t, e->at ? (uint64_t)e->at - 1 : at, 4);
    }
    text_append(t, e->name, name);
  }
  text_append(out, packed, used);
  free(packed);
}

static void finish(text_buffer *out, text_buffer *directory, int count) {
  size_t at = out->length;
  text_append(out, directory->data, directory->length);
  number(out, 0x06054b50, 4);
  number(out, 0, 4);
  number(out, (uint64_t)count, 2);
  number(out, (uint64_t)count, 2);
  number(out, directory->length, 4);
  number(out, at, 4);
  number(out, 0, 2);
  text_free(directory);
}

static text_buffer archive(const entry *entries, int count) {
  text_buffer out = {0}, directory = {0};
  for (int i = 0; i < count; i++) add(&out, &directory, &entries[i]);
  finish(&out, &directory, count);
  return out;
}

static void write_bytes(const char *bytes, size_t length) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, length, f), length);
  fclose(f);
}

/* Refused by whoever reads a pack, and nothing is written. */
static void assert_refused(const char *bytes, size_t length, const char *expected) {
  write_bytes(bytes, length);
  pipeline *p;
  status error = pipeline_load_for_prediction(path, NULL, 0, &p);
  assert_non_null(error);
  assert_null(p);
  if (!strstr(error_message(error), expected))
    fail_msg("%s instead of %s", error_message(error), expected);
  error_free(error);
}

static void assert_never_unpacked(const char *bytes, size_t length, const char *expected) {
  assert_refused(bytes, length, expected);
  status error = pack_unpack(path, target, &(reporter){0});
  assert_non_null(error);
  if (!strstr(error_message(error), expected)) fail_msg("%s", error_message(error));
  error_free(error);
  assert_false(file_exists("strata-evil"));
}

static void hostile_archives_are_refused_whole(void **unused) {
  (void)unused;
  static char zeros[5 << 20];
  static const struct {
    entry evil;
    const char *expected;
  } cases[] = {
      {{.name = "../strata-evil", .data = "x"}, "unusable name"},
      {{.name = "project/../../strata-evil", .data = "x"}, "unusable name"},
      {{.name = "project/..", .data = "x"}, "unusable name"},
      {{.name = "/tmp/strata-evil", .data = "x"}, "unusable name"},
      {{.name = "..\\strata-evil", .data = "x"}, "unusable name"},
      {{.name = "C:strata-evil", .data = "x"}, "unusable name"},
      {{.name = "a\0.yaml", .name_bytes = 7, .data = "x"}, "unusable name"},
      {{.name = "a\033[2J", .data = "x"}, "unusable name"},
      {{.name = "link", .data = "/etc/passwd", .mode = 0120777}, "link is a link or a device"},
      {{.name = "pipe", .data = "x", .mode = 0010644}, "pipe is a link or a device"},
      {{.name = "pack.yaml", .data = "x"}, "two entries are named pack.yaml"},
      {{.name = "secret.yaml", .data = "x", .flags = 1}, "secret.yaml is encrypted"},
      {{.name = "odd.yaml", .data = "x", .method = 14}, "packed by method 14"},
      {{.name = "bad.yaml", .data = "x", .wrong = 1}, "checksum of entry bad.yaml is wrong"},
      {{.name = "over.yaml", .data = "x", .at = 1}, "does not agree with the zip directory"},
      {{.name = "claim.yaml", .data = "x", .claim = 2}, "its two sizes differ"},
      {{.name = "claim.yaml", .data = "xxxxxxxx", .claim = 1 << 30, .deflate = true},
       "more than its"},
      {{.name = "more.yaml", .data = zeros, .bytes = 5000, .claim = 100, .deflate = true},
       "does not unpack to the 100 bytes it claims"},
      {{.name = "less.yaml", .data = zeros, .bytes = 5000, .claim = 6000, .deflate = true},
       "does not unpack to the 6000 bytes it claims"},
      {{.name = "bomb.yaml", .data = zeros, .bytes = sizeof zeros, .deflate = true, .claim = 0},
       "it would unpack to"},
      {{.name = "nul.yaml", .data = "a\0b", .bytes = 3}, "nul.yaml is not a text file"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    entry entries[] = {{.name = "pack.yaml", .data = good_pack},
                       {.name = "a.yaml", .data = "strata: 1\n"},
                       cases[i].evil};
    text_buffer z = archive(entries, 3);
    /* Unpacking looks at bytes, not at what they mean. */
    if (strstr(cases[i].expected, "text file"))
      assert_refused(z.data, z.length, cases[i].expected);
    else
      assert_never_unpacked(z.data, z.length, cases[i].expected);
    text_free(&z);
    folder_remove(target);
  }
}

static void an_entry_inside_of_another_is_refused(void **unused) {
  (void)unused;
  const entry inner = {.name = "inner.yaml", .data = "strata: 1\n"};
  text_buffer z = {0}, records = {0}, hidden = {0}, not_used = {0};
  add(&hidden, &not_used, &inner);
  const entry outer = {.name = "outer.yaml", .data = hidden.data, .bytes = hidden.length};
  add(&z, &records, &outer);
  entry lie = inner;
  lie.at = (int)(z.length - hidden.length) + 1;
  add(&not_used, &records, &lie);
  finish(&z, &records, 2);
  assert_never_unpacked(z.data, z.length, "entries outer.yaml and inner.yaml overlap");
  text_free(&z);
  text_free(&hidden);
  text_free(&not_used);
}

static void too_much_is_refused(void **unused) {
  (void)unused;
  enum { FILES = 2001 };
  static char names[FILES][16], large[(4 << 20) + 2];
  static entry entries[FILES];
  for (int i = 0; i < FILES; i++) {
    snprintf(names[i], sizeof names[i], "%d.yaml", i);
    entries[i] = (entry){.name = names[i], .data = "x"};
  }
  text_buffer z = archive(entries, FILES);
  assert_refused(z.data, z.length, "it holds 2001 files; at most 2000 are read");
  text_free(&z);

  memset(large, ' ', sizeof large - 1);
  entries[0].data = large;
  z = archive(entries, 1);
  assert_refused(z.data, z.length, "its text files are too large: at 0.yaml");
  text_free(&z);
  for (int i = 0; i < 20; i++) entries[i] = (entry){.name = names[i], .data = large + 2};
  z = archive(entries, 20);
  assert_refused(z.data, z.length, "or 64 MiB together");
  text_free(&z);

  /* The directory says there are more than it has room for. */
  z = archive(entries + 20, 2);
  memcpy(z.data + z.length - 14, "\xff\xff\xff\xff", 4);
  assert_never_unpacked(z.data, z.length, "too small for 65535 entries");
  text_free(&z);
}

/* The pack of a pipeline that works. */
static text_buffer good(void) {
  const pack_options o = {.from = SOURCE_DIR "/tests/pipelines/tiny.yaml", .out = path};
  unlink(path);
  status error = pack_write(&o);
  if (error) fail_msg("%s", error_message(error));
  text_buffer z = {0};
  char *bytes;
  size_t length;
  error = file_read(path, 1 << 20, &bytes, &length);
  assert_null(error);
  text_append(&z, bytes, length);
  free(bytes);
  return z;
}

static void a_pack_says_what_its_files_say(void **unused) {
  (void)unused;
  pipeline *p, *q;
  text_buffer first = good(), second = good();
  assert_int_equal(first.length, second.length);
  assert_memory_equal(first.data, second.data, first.length);
  status error = pipeline_load_for_prediction(SOURCE_DIR "/tests/pipelines/tiny.yaml", NULL, 0, &p);
  assert_null(error);
  error = pipeline_load_for_prediction(path, NULL, 0, &q);
  assert_null(error);
  assert_int_equal(p->identity, q->identity);
  assert_string_equal(p->name, q->name);
  assert_int_equal(p->sources.count, q->sources.count);
  for (int i = 0; i < p->sources.count; i++) {
    assert_string_equal(p->sources.files[i].text, q->sources.files[i].text);
    assert_non_null(strstr(q->sources.files[i].path, path)); /* nothing came from elsewhere */
  }
  pipeline_free(p);
  pipeline_free(q);
  error = pack_unpack(path, target, &(reporter){0});
  assert_null(error);
  char file[256];
  snprintf(file, sizeof file, "%s/project/tiny.yaml", target);
  assert_true(file_exists(file));
  error = pack_unpack(path, target, &(reporter){0});
  assert_non_null(strstr(error_message(error), "is there already"));
  error_free(error);
  folder_remove(target);
  const pack_options again = {.from = path, .out = target};
  error = pack_write(&again);
  assert_non_null(strstr(error_message(error), "is a pack already"));
  error_free(error);
  assert_false(file_exists(target));
  text_free(&first);
  text_free(&second);
}

static void a_pack_cut_short_or_damaged_is_never_another_pipeline(void **unused) {
  (void)unused;
  text_buffer z = good();
  pipeline *p;
  for (size_t length = 4; length < z.length; length += 1 + length % 211) {
    write_bytes(z.data, length);
    status error = pipeline_load_for_prediction(path, NULL, 0, &p);
    assert_non_null(error);
    assert_non_null(strstr(error_message(error), "is not a usable pack"));
    error_free(error);
  }
  status error = pipeline_load_for_prediction(SOURCE_DIR "/tests/pipelines/tiny.yaml", NULL, 0, &p);
  assert_null(error);
  uint64_t identity = p->identity;
  pipeline_free(p);
  for (size_t at = 0; at < z.length; at += 1 + at % 97) {
    z.data[at] ^= 4;
    write_bytes(z.data, z.length);
    error = pipeline_load_for_prediction(path, NULL, 0, &p);
    z.data[at] ^= 4;
    if (error) {
      error_free(error);
      continue;
    }
    assert_int_equal(p->identity, identity); /* padding, dates */
    pipeline_free(p);
  }
  text_free(&z);
}

static void a_pack_without_its_parts_is_refused(void **unused) {
  (void)unused;
  static const struct {
    const char *manifest, *pipeline, *expected;
  } cases[] = {
      {NULL, "strata: 1\n", "it holds no pack.yaml"},
      {"strata: 1\n", "strata: 1\n", "pack.yaml needs \"pipeline\""},
      {"strata: 1\npipeline: b.yaml\n", "strata: 1\n", "holds no pipeline of that name"},
      {"strata: 1\npipeline: [a]\n", "strata: 1\n", "expected text"},
      {"strata: 1\npipelines: a.yaml\n", "strata: 1\n", "did you mean \"pipeline\"?"},
      {good_pack, "strata: 1\nuse: b.yaml\n", "holds no file b.yaml"},
      {good_pack, "strata: 1\nuse: ../../b.yaml\n", "holds no file ../../b.yaml"},
      /* These are on the disk, and not in the pack. */
      {good_pack, "strata: 1\nuse: " SOURCE_DIR "/tests/pipelines/tiny.yaml\n", "holds no file"},
      {good_pack, "strata: 1\nuse: quickstart.yaml\n", "holds no file quickstart.yaml"},
      {good_pack, "strata: 1\nuse: a.yaml\n", "includes itself"},
      {good_pack, "strata: 1\nlock: 3\n", "lock must be a mapping"},
      {good_pack, "strata: 1\nlock: {}\n", "lock needs \"files\""},
      {good_pack, "strata: 1\nlock: {files: [3]}\n", "expected {name: …, hash: …, text: …}"},
      {good_pack, "strata: 1\nlock: {files: [{name: a/../b, text: c}]}\n", "to no purpose"},
      {good_pack, "strata: 1\nlock: {files: [{name: b, text: c}, {name: b, text: d}]}\n",
       "two have this name"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const entry entries[] = {{.name = "a.yaml", .data = cases[i].pipeline},
                             {.name = "pack.yaml", .data = cases[i].manifest}};
    text_buffer z = archive(entries, cases[i].manifest ? 2 : 1);
    assert_refused(z.data, z.length, cases[i].expected);
    text_free(&z);
  }
}

static void entries_lie_at_multiples_of_64_bytes_and_bad_names_are_not_written(void **unused) {
  (void)unused;
  FILE *f = fopen(path, "wb");
  zip_output out = {.stream = f};
  static const char *const bad[] = {"../x", "/x", "a\\b", "a/../b", "a:b", "", "a\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    status error = zip_add_stored(&out, bad[i], "x", 1);
    assert_non_null(error);
    error_free(error);
  }
  assert_null(zip_add_stored(&out, "empty", "", 0));
  assert_null(zip_add_stored(&out, "one/long name", "abc", 3));
  assert_null(zip_add_stored(&out, "two", "defg", 4));
  zip_finish(&out);
  fclose(f);
  zip_output_free(&out);
  zip_archive z;
  assert_null(zip_open(path, &z));
  assert_int_equal(z.count, 3);
  for (int i = 0; i < z.count; i++) assert_int_equal(z.entries[i].data_at % 64, 0);
  const void *data;
  assert_null(zip_data(&z, zip_find(&z, "two"), &data));
  assert_memory_equal(data, "defg", 4);
  zip_close(&z);

  /* An entry as a file. */
  char inside[80], *text;
  size_t length;
  snprintf(inside, sizeof inside, "%s: one/long name", path);
  assert_null(file_read(inside, 100, &text, &length));
  assert_string_equal(text, "abc");
  free(text);
  status error = file_read(inside, 2, &text, &length);
  assert_non_null(strstr(error_message(error), "larger than"));
  error_free(error);
  snprintf(inside, sizeof inside, "%s: three", path);
  error = file_read(inside, 100, &text, &length);
  assert_non_null(strstr(error_message(error), "the archive holds no three"));
  error_free(error);
}

static int make_folder(void **unused) {
  (void)unused;
  if (!mkdtemp(folder)) return 1;
  snprintf(path, sizeof path, "%s/x.strata", folder);
  snprintf(target, sizeof target, "%s/target", folder);
  return 0;
}

static int remove_folder(void **unused) {
  (void)unused;
  folder_remove(target);
  unlink(path);
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(hostile_archives_are_refused_whole),
      cmocka_unit_test(an_entry_inside_of_another_is_refused),
      cmocka_unit_test(too_much_is_refused),
      cmocka_unit_test(a_pack_says_what_its_files_say),
      cmocka_unit_test(a_pack_cut_short_or_damaged_is_never_another_pipeline),
      cmocka_unit_test(a_pack_without_its_parts_is_refused),
      cmocka_unit_test(entries_lie_at_multiples_of_64_bytes_and_bad_names_are_not_written),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
