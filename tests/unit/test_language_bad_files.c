/* Every file in tests/pipelines/bad must give exactly the errors it announces, in lines
 *     # expect [FILE:]LINE:COLUMN: part of the message
 * at its top, or in NAME.expected where the file itself can hold no comment. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "language/pipeline.h"

enum { MOST = 64 };

typedef struct lines {
  char *at[MOST];
  int count;
} lines;

static void add_line(lines *all, const char *text) {
  assert_true(all->count < MOST);
  all->at[all->count++] = strdup(text);
}

static void free_lines(lines *all) {
  for (int i = 0; i < all->count; i++) free(all->at[i]);
  all->count = 0;
}

static void read_expected(const char *path, const char *file, lines *out) {
  static const char mark[] = "# expect ";
  FILE *in = fopen(path, "rb");
  char line[1024], full[1200];
  if (!in) return;
  while (fgets(line, sizeof line, in)) {
    if (!text_starts_with(line, mark)) continue;
    line[strcspn(line, "\n")] = 0;
    const char *text = line + strlen(mark);
    bool names_file = text[0] < '0' || text[0] > '9';
    snprintf(full, sizeof full, "%s%s%s", names_file ? "" : file, names_file ? "" : ":", text);
    add_line(out, full);
  }
  fclose(in);
}

/* "file:line:column: message" of every problem, as the user sees them. */
static void print_problems(status error, lines *out) {
  char *text = NULL, *rest;
  size_t length;
  FILE *memory = open_memstream(&text, &length);
  error_print(memory, error);
  fclose(memory);
  rest = text;
  for (char *line; (line = strsep(&rest, "\n"));) {
    static const char mark[] = ": error: ";
    char *found = line[0] == ' ' ? NULL : strstr(line, mark), joined[1200];
    if (!found) continue;
    *found = 0;
    snprintf(joined, sizeof joined, "%s: %s", line, found + strlen(mark));
    add_line(out, joined);
  }
  free(text);
}

static bool matches(const char *expected, const char *came) {
  /* The place must agree up to its colon; of the message a part will do. */
  const char *message = strstr(expected, ": ");
  if (!message) return text_starts_with(came, expected);
  return strncmp(expected, came, (size_t)(message - expected + 1)) == 0 &&
         strstr(came + (message - expected), message + 2) != NULL;
}

static int check_file(const char *file) {
  lines expected = {0}, came = {0};
  char sibling[300];
  pipeline *p;
  read_expected(file, file, &expected);
  snprintf(sibling, sizeof sibling, "%.*s.expected", (int)strlen(file) - 5, file);
  read_expected(sibling, file, &expected);
  status error = pipeline_load(file, NULL, 0, &p);
  print_problems(error, &came);
  error_free(error);
  pipeline_free(p);
  int wrong = expected.count == 0 || came.count != expected.count;
  for (int i = 0; i < expected.count && i < came.count; i++)
    wrong += !matches(expected.at[i], came.at[i]);
  if (wrong) {
    print_error("%s\n", file);
    for (int i = 0; i < expected.count; i++) print_error("  expected %s\n", expected.at[i]);
    for (int i = 0; i < came.count; i++) print_error("  came     %s\n", came.at[i]);
  }
  free_lines(&expected);
  free_lines(&came);
  return wrong;
}

static void every_bad_file_is_reported_as_it_says(void **state) {
  (void)state;
  assert_int_equal(chdir(TEST_DATA "/pipelines/bad"), 0);
  DIR *folder = opendir(".");
  assert_non_null(folder);
  int files = 0, wrong = 0;
  for (struct dirent *entry; (entry = readdir(folder));)
    if (text_ends_with(entry->d_name, ".yaml")) {
      files++;
      wrong += check_file(entry->d_name) != 0;
    }
  closedir(folder);
  assert_true(files > 40);
  assert_int_equal(wrong, 0);
}

static void a_file_of_ten_megabytes_is_refused_before_it_is_parsed(void **state) {
  (void)state;
  char path[] = "strata-large-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, 10 << 20), 0);
  close(fd);
  pipeline *p;
  status error = pipeline_load(path, NULL, 0, &p);
  unlink(path);
  assert_non_null(error);
  assert_null(p);
  assert_non_null(strstr(error_message(error), "larger than the 4096 KiB"));
  error_free(error);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_file_of_ten_megabytes_is_refused_before_it_is_parsed),
      cmocka_unit_test(every_bad_file_is_reported_as_it_says),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
