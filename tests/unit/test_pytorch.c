/* PyTorch's weight files: what torch.save wrote comes out as the same tensors, and files that are
 * damaged or made to do harm are refused with a message that says why. The files are those of
 * tests/golden/make_pt.py. */
#include "base/files.h"
#include "base/zip.h"
#include "tests/unit/zip_fixture.h"
#include "weights/import.h"
#include "weights/pickle.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURE_FILE "w.pt"
#include "tests/unit/file_fixture.h"

#define PT TEST_DATA "/golden/pt/"

static void assert_ok(status error) {
  if (error) print_error("%s\n", error_message(error));
  assert_null(error);
}

/* Plain writes: an atomic one per case would wait for the disk each time. */
static void write_file(const void *data, size_t bytes) {
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(data, 1, bytes, out), bytes);
  assert_int_equal(fclose(out), 0);
}

/* Lines the reader reported. */
static text_buffer lines;

static void keep_line(void *context, const char *text) {
  (void)context;
  text_add(&lines, "%s\n", text);
}

static const reporter report = {.line = keep_line};

static void assert_reported(const char *expected) {
  bool found = lines.data && strstr(lines.data, expected);
  if (!found) print_error("expected: %s\ngot: %s\n", expected, lines.data ? lines.data : "nothing");
  assert_true(found);
}

static void assert_same(const char *file, const char *key, const char *expected) {
  weights got, want;
  assert_ok(weights_open(file, key, &got, NULL));
  assert_ok(weights_read(expected, &want));
  assert_int_equal(got.count, want.count);
  for (int i = 0; i < want.count; i++) {
    const named_tensor *a = &want.list[i], *b = &got.list[i];
    assert_string_equal(b->name, a->name);
    assert_int_equal(b->tensor.dtype, a->tensor.dtype);
    if (!shape_equal(&a->tensor.shape, &b->tensor.shape)) fail_msg("shape of %s", a->name);
    size_t bytes = tensor_bytes(&a->tensor);
    if (bytes && memcmp(a->tensor.data, b->tensor.data, bytes) != 0) fail_msg("%s", a->name);
  }
  weights_close(&got);
  weights_close(&want);
}

static void what_pytorch_saved_is_what_safetensors_saved(void **unused) {
  (void)unused;
  assert_same(PT "types.pt", NULL, TEST_DATA "/golden/weights_types.safetensors");
  assert_same(PT "ordered.pt", NULL, PT "net.safetensors");
  assert_same(PT "views.pt", NULL, PT "views.safetensors");
}

static void deflated_and_zip64_archives_are_read(void **unused) {
  (void)unused;
  assert_same(PT "deflated.pt", NULL, PT "net.safetensors");
  assert_same(PT "zip64.pt", NULL, PT "net.safetensors");
}

static void the_state_dict_of_a_checkpoint_is_found(void **unused) {
  (void)unused;
  weights w;
  assert_ok(weights_open(PT "checkpoint.pt", NULL, &w, &report));
  assert_int_equal(w.count, 7);
  assert_non_null(weights_find(&w, "module.0.weight"));
  weights_close(&w);
  assert_reported("state dict: state_dict\n");
  assert_reported("not read epoch                                                3\n");
  assert_reported(
      "not read seed                                                 a large integer\n");
  assert_reported(
      "not read name                                                 a text of 5 bytes\n");
  assert_reported("not read history                                              a list of 3\n");
  assert_reported("not read size                                                 a tuple of 2\n");
  assert_reported("not read optimizer                                            a dict of 2\n");
  text_free(&lines);
}

static void a_key_chooses_another_dict(void **unused) {
  (void)unused;
  assert_same(PT "checkpoint.pt", "ema.shadow", PT "net.safetensors");
  static const struct {
    const char *key, *expected;
  } wrong[] = {
      {"ema.shadwo", "it has no \"shadwo\"; there it holds shadow (a dict of 7), decay (0.99)"},
      {"modle", "it has no \"modle\"; there it holds epoch (3), lr (0.001)"},
      {"optimizer", "\"optimizer\" is no dict of tensors; it holds state (a dict of 4)"},
      {"epoch", "\"epoch\" is no dict of tensors"},
      {"", "it has no \"\""},
      {".", "it has no \".\""}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    weights w;
    status error = weights_open(PT "checkpoint.pt", wrong[i].key, &w, NULL);
    assert_non_null(error);
    if (!strstr(error_message(error), wrong[i].expected)) fail_msg("%s", error_message(error));
    error_free(error);
  }
  weights w;
  status error = weights_open(PT "net.safetensors", "state_dict", &w, NULL);
  assert_int_equal(error_code_of(error), ERROR_USAGE);
  error_free(error);
}

/* Wrapper prefixes go, integers are left out, and both are said. */
static void an_import_holds_learned_numbers_under_the_network_s_names(void **unused) {
  (void)unused;
  weights w;
  const weight_source source = {.path = PT "checkpoint.pt"};
  assert_ok(weights_import(&source, &w, &report));
  assert_int_equal(w.count, 6);
  static const char *const names[] = {"0.bias",         "0.weight",      "1.bias",
                                      "1.running_mean", "1.running_var", "1.weight"};
  for (int i = 0; i < 6; i++) assert_string_equal(w.list[i].name, names[i]);
  weights_close(&w);
  assert_reported("all names begin with \"module.\", which is taken off\n");
  assert_reported(
      "integer  module.1.num_batches_tracked                         scalar, left out\n");
  text_free(&lines);
}

/* Scores, settings and counters are passed over and named; the weights beside them are what they
 * are. */
static void objects_beside_the_weights_are_passed_over(void **unused) {
  (void)unused;
  weights w, plain;
  const weight_source source = {.path = PT "objects.pt"};
  assert_ok(weights_import(&source, &w, &report));
  assert_ok(weights_read(PT "net.safetensors", &plain));
  assert_int_equal(w.count, 6);
  for (int i = 0; i < 6; i++) {
    const named_tensor *t = weights_find(&plain, w.list[i].name);
    assert_non_null(t);
    assert_memory_equal(w.list[i].tensor.data, t->tensor.data, tensor_bytes(&t->tensor));
  }
  weights_close(&w);
  weights_close(&plain);
  assert_reported("state dict: net\n");
  assert_reported("not read best                                                 an object of "
                  "numpy._core.multiarray.scalar\n");
  assert_reported("not read args                                                 an object of "
                  "argparse.Namespace\n");
  assert_reported("all names begin with \"module.\", which is taken off\n");
  assert_reported(
      "integer  n_averaged                                           scalar, left out\n");
  text_free(&lines);
}

static const struct {
  const char *file, *expected;
} refused[] = {
    {"command", "it asks Python for posix.system. Only tensors, dicts"},
    {"class", "it asks Python for types.SimpleNamespace. Only"},
    {"complex", "it asks Python for torch.ComplexFloatStorage. Only"},
    {"legacy", "a pickle without an archive, as PyTorch wrote before 1.6"},
    {"protocol4", "protocol 4; save it without pickle_protocol="},
    {"tensor", "it holds a tensor 2 instead of a dict of tensors"},
    {"several", "several dicts in it could be the state dict: it holds a (a dict of 1), b (a dict"},
    {"too_large", "tensor 'w' (F64) has values that do not fit f32"},
    {"escape", "a tensor's name is empty, longer than 1000 bytes or holds control characters"},
    {"truncated", "without an end; was it cut short?"},
    {"checksum", "the checksum of entry a/data/0 is wrong"},
    {"pickle_checksum", "the checksum of entry a/data.pkl is wrong"},
    {"header_name", "the header of entry a/data/0 does not agree"},
    {"stored_size", "entry a/data/0 reaches outside the archive"},
    {"bomb", "entry a/data/0 claims 4294967280 bytes, more than its 5 can hold"},
    {"grows", "it would unpack to 8388608 bytes, more than 16 times its size"},
    {"inflates_short", "has 17 bytes, but its 4 numbers of type F32 do not take that"},
    {"overlap", "entries a/data.pkl and a/byteorder overlap"},
    {"same_place", "the header of entry a/byteorder does not agree"},
    {"duplicate", "two entries are named a/data/0"},
    {"parent", "unusable name"},
    {"absolute", "unusable name"},
    {"two_pickles", "it holds two pickles, a/data.pkl and b/data.pkl"},
    {"script", "TorchScript program; save its weights with torch.save(model.state_dict()"},
    {"no_pickle", "none that torch.save wrote: data.pkl is missing"},
    {"big_endian", "not little-endian"},
    {"missing", "the data of tensor 'w', entry data/0, is missing"},
    {"huge_tensor", "reaches outside its storage 0, which has 4 elements"},
    {"huge_product", "reaches outside its storage 0"},
    {"huge_empty", "reaches outside its storage 0"},
    {"huge_storage", "has 16 bytes, but its 2305843009213693952 numbers"},
    {"small_storage", "has 16 bytes, but its 3 numbers of type F32 do not take that"},
    {"outside", "reaches outside its storage 0"},
    {"stride", "reaches outside its storage 0"},
    {"negative", "a tensor has a negative size"},
    {"expanded",
     "a tensor of 400 elements repeats those of its storage 0, which has 4; save it with"},
    {"dimensions", "a tensor has 9 dimensions; at most 8"},
    {"sharing", "they would take more than 16 times the file's size"},
    {"same_name", "two tensors are named 'w'"},
    {"memo", "a memo out of proportion"},
    {"memo_unset", "damaged at byte 4"},
    {"nesting", "nested more than 200 deep"},
    {"deep_list", "it holds a list of 1 instead of a dict of tensors"},
    {"own_item", "no dict of tensors is at its top: it holds self (a dict of 1)"},
    {"build", "damaged at byte 140"},
    {"call_storage", "it calls torch.FloatStorage"},
    {"call_text", "damaged at byte 18"},
    {"new_dict", "damaged at byte 29"},
    {"new_text", "damaged at byte 18"},
    {"object", "it holds an object of argparse.Namespace instead of a dict of tensors"},
    {"instruction", "instruction 0x93 at byte 20"},
    {"extension", "instruction 0x82 at byte 2"},
    {"name_escape", "names something unreadable"},
    {"empty_stack", "damaged at byte 3"},
    {"pop_nothing", "damaged at byte 3"},
    {"below_mark", "damaged at byte 5"},
    {"odd_items", "damaged at byte 7"},
    {"no_stop", "cut short"},
    {"after_stop", "damaged at byte 137"},
    {"long_text", "cut short"},
    {"nul", "a tensor's name has a NUL inside"},
};

static void hostile_files_are_refused_and_nothing_in_them_runs(void **unused) {
  (void)unused;
  int files = 0;
  DIR *all = opendir(PT "refused");
  assert_non_null(all);
  for (const struct dirent *entry; (entry = readdir(all));) files += entry->d_name[0] != '.';
  closedir(all);
  assert_int_equal(files, sizeof refused / sizeof *refused);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    char file[512];
    snprintf(file, sizeof file, PT "refused/%s.pt", refused[i].file);
    weights w;
    status error = weights_open(file, NULL, &w, NULL);
    bool as_expected = error && error_code_of(error) == ERROR_DATA &&
                       strstr(error_message(error), refused[i].expected) &&
                       strstr(error_message(error), file);
    if (!as_expected)
      print_error("%s\nexpected: %s\ngot: %s\n", file, refused[i].expected,
                  error ? error_message(error) : "no error");
    assert_true(as_expected);
    assert_true(w.count == 0 && !w.impl && !w.list);
    error_free(error);
  }
  assert_false(file_exists("harmed"));
}

/* Every cut and every changed byte of a good file: an error or a file, never a crash. */
static void damaged_files_do_no_harm(void **unused) {
  (void)unused;
  char *good;
  size_t length;
  assert_ok(file_read(PT "deflated.pt", 1 << 20, &good, &length));
  for (size_t i = 0; i < 2 * length; i++) {
    if (i >= length) good[i - length] ^= (char)(1 << i % 8);
    write_file(good, i < length ? i : length);
    if (i >= length) good[i - length] ^= (char)(1 << i % 8);
    weights w;
    status error = weights_open(path, NULL, &w, NULL);
    if (i < length) assert_non_null(error);
    if (!error) weights_close(&w);
    error_free(error);
  }
  free(good);
}

/* The same for the pickle alone, with checksums that are right. */
static void damaged_pickles_do_no_harm(void **unused) {
  (void)unused;
  zip_archive z;
  const void *good;
  assert_ok(zip_open(PT "views.pt", &z));
  zip_entry *entry = zip_find(&z, "views/data.pkl");
  assert_non_null(entry);
  assert_ok(zip_data(&z, entry, &good));
  size_t length = (size_t)entry->bytes;
  char *copy = malloc(length);
  int accepted = 0;
  assert_non_null(copy);
  for (size_t i = 0; i < 2 * length; i++) {
    memcpy(copy, good, length);
    if (i >= length) copy[i - length] ^= (char)(1 << i % 8);
    zip_writer writer = {0};
    zip_add(&writer, "a/data.pkl", copy, i < length ? i : length);
    for (int k = 0; k < z.count; k++) {
      const void *data;
      const char *name = strchr(z.entries[k].name, '/');
      if (strcmp(name, "/data.pkl") == 0) continue;
      assert_ok(zip_data(&z, &z.entries[k], &data));
      char renamed[100];
      snprintf(renamed, sizeof renamed, "a%s", name);
      zip_add(&writer, renamed, data, (size_t)z.entries[k].bytes);
    }
    zip_end(&writer);
    write_file(writer.out.data, writer.out.length);
    text_free(&writer.out);
    weights w;
    status error = weights_open(path, NULL, &w, NULL);
    if (i < length) assert_non_null(error);
    if (!error) weights_close(&w);
    accepted += !error;
    error_free(error);
  }
  assert_true(accepted > 0); /* a changed letter of a name is no mistake */
  free(copy);
  zip_close(&z);
}

/* `path` becomes an archive of this pickle and of a storage of four floats. */
static void write_pickle(const text_buffer *pickle) {
  static const float numbers[] = {1, 2, 3, 4};
  zip_writer writer = {0};
  zip_add(&writer, "a/data.pkl", pickle->data, pickle->length);
  zip_add(&writer, "a/data/0", numbers, sizeof numbers);
  zip_end(&writer);
  write_file(writer.out.data, writer.out.length);
  text_free(&writer.out);
}

static void add_text(text_buffer *pickle, const char *text) {
  size_t length = strlen(text);
  text_append(pickle, "X", 1);
  zip_number(pickle, length, 4);
  text_append(pickle, text, length);
}

static void add_integer(text_buffer *pickle, int64_t n) {
  text_append(pickle, "\x8a\x08", 2);
  zip_number(pickle, (uint64_t)n, 8);
}

/* A dimension of one element may have any stride: nothing is ever found by it. */
static void the_stride_of_a_single_element_is_not_used(void **unused) {
  (void)unused;
  text_buffer pickle = {0};
  text_append(&pickle, "\x80\x02}", 3);
  add_text(&pickle, "w");
  text_add(&pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
  add_text(&pickle, "storage");
  text_add(&pickle, "ctorch\nFloatStorage\n");
  add_text(&pickle, "0");
  add_text(&pickle, "cpu");
  add_integer(&pickle, 4);
  text_add(&pickle, "tQ");
  add_integer(&pickle, 1); /* offset */
  add_integer(&pickle, 1); /* size */
  add_integer(&pickle, 2);
  text_append(&pickle, "\x86", 1);
  add_integer(&pickle, INT64_MAX); /* stride */
  add_integer(&pickle, 2);
  text_append(&pickle, "\x86\x89}tRs.", 7);
  write_pickle(&pickle);
  text_free(&pickle);
  weights w;
  assert_ok(weights_open(path, NULL, &w, NULL));
  assert_int_equal(w.count, 1);
  const float *values = w.list[0].tensor.data;
  assert_true(values[0] == 2 && values[1] == 4);
  weights_close(&w);
}

/* A pickle may name one dict again and again, at two bytes each: looking through it every time would
 * take hours. */
static void one_dict_under_many_names_is_looked_at_once(void **unused) {
  (void)unused;
  enum { ITEMS = 400000 };
  text_buffer pickle = {0};
  text_append(&pickle, "\x80\x02}(", 4);
  add_text(&pickle, "a");
  text_append(&pickle, "q\0}q\1(", 6);
  for (int i = 0; i < ITEMS; i++) text_append(&pickle, "h\0h\0", 4);
  text_append(&pickle, "u", 1);
  for (int i = 0; i < ITEMS; i++) text_append(&pickle, "h\0h\1", 4);
  text_append(&pickle, "u.", 2);
  write_pickle(&pickle);
  text_free(&pickle);
  weights w;
  status error = weights_open(path, NULL, &w, NULL);
  assert_non_null(error);
  assert_non_null(strstr(error_message(error), "no dict of tensors is at its top"));
  error_free(error);
}

static void what_is_no_archive_is_told_apart(void **unused) {
  (void)unused;
  static const struct {
    const char *bytes;
    size_t length;
    const char *expected;
  } cases[] = {{"", 0, "only 0 bytes"},
               {"PK\3\4", 4, "only 4 bytes"},
               {"PK\3\4........................", 28, "without an end"},
               {"\x80\2\x8a\x0al\xfc\x9c\x46\xf9 j", 11, "before 1.6"},
               {"\x80\2\0\0\0\0\0\0{}", 10, "header should have 640 bytes"},
               {"\x89HDF\r\n\x1a\n........", 16, "no safetensors file"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_file(cases[i].bytes, cases[i].length);
    weights w;
    status error = weights_open(path, NULL, &w, NULL);
    assert_non_null(error);
    if (!strstr(error_message(error), cases[i].expected)) fail_msg("%s", error_message(error));
    error_free(error);
  }
  weights w;
  status error = weights_open(folder, NULL, &w, NULL);
  assert_non_null(strstr(error_message(error), "it is a folder"));
  error_free(error);
  unlink(path);
  assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: opening it must not wait */
  error = weights_open(path, NULL, &w, NULL);
  assert_non_null(strstr(error_message(error), "not a regular file"));
  error_free(error);
  error = weights_open("no/such.pt", NULL, &w, NULL);
  assert_int_equal(error_code_of(error), ERROR_IO);
  error_free(error);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_pytorch_saved_is_what_safetensors_saved),
      cmocka_unit_test(deflated_and_zip64_archives_are_read),
      cmocka_unit_test(the_state_dict_of_a_checkpoint_is_found),
      cmocka_unit_test(a_key_chooses_another_dict),
      cmocka_unit_test(objects_beside_the_weights_are_passed_over),
      cmocka_unit_test(an_import_holds_learned_numbers_under_the_network_s_names),
      cmocka_unit_test(hostile_files_are_refused_and_nothing_in_them_runs),
      cmocka_unit_test(damaged_files_do_no_harm),
      cmocka_unit_test(damaged_pickles_do_no_harm),
      cmocka_unit_test(the_stride_of_a_single_element_is_not_used),
      cmocka_unit_test(one_dict_under_many_names_is_looked_at_once),
      cmocka_unit_test(what_is_no_archive_is_told_apart),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
