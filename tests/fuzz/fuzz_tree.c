/* YAML: what was read is written so that it reads back as the same tree. */
#include "fuzz.h"

#include "base/text.h"
#include "language/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arena memory = {0};
  tree *first, *second;
  status error = tree_parse(&memory, (const char *)data, size, "input.yaml", &first);
  /* Nothing with an anchor is a value; nothing alone is an empty file. */
  bool is_empty = !error && tree_is_null(first);
  if (!error && !is_empty && tree_size(first) < 1000) {
    text_buffer text = {0};
    tree_write(first, &text, 0);
    error = tree_parse(&memory, text.data ? text.data : "", text.length, "input.yaml", &second);
    FUZZ_REQUIRE(!error && tree_hash(first) == tree_hash(second));
    text_free(&text);
  }
  fuzz_refused(error);
  arena_free(&memory);
  return 0;
}
