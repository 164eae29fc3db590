/* `${…}` expressions, with names of every kind in scope. */
#include "fuzz.h"

#include "language/scope.h"

static const char names[] = "{roi: [96, 96, 64], slabs: 4, ratio: 0.4, on: true, word: perceptron, "
                            "net: {out: {channels: 3}, levels: [1, 2]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arena memory = {0};
  scope s = {0};
  tree *known, *out;
  char *text = fuzz_text(data, size);
  status error = tree_parse(&memory, names, sizeof names - 1, "names.yaml", &known);
  FUZZ_REQUIRE(!error);
  for (int i = 0; i < known->count; i++)
    scope_set(&s, &memory, known->keys[i]->text, known->items[i]);
  const tree *expression = tree_scalar(&memory, (source_pos){"input.yaml", 1, 1}, text, false);
  fuzz_refused(scope_eval(&s, &memory, expression, &out));
  bool truth;
  fuzz_refused(scope_truth(&s, &memory, expression, &truth));
  free(text);
  arena_free(&memory);
  return 0;
}
