/* The metadata of a training state: the input is the JSON that a state file carries. */
#include "fuzz.h"

#include "run/state.h"
#include "run/weights.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *header = json_pack("{s:{s:s%}}", "__metadata__", "state", (const char *)data, size);
  if (!header) return 0; /* not UTF-8: the weight reader's business */
  char *text = json_dumps(header, JSON_COMPACT);
  json_decref(header);
  if (!text) return 0;
  size_t length = strlen(text);
  uint8_t *file = malloc(8 + length);
  if (!file) abort();
  for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)length >> (8 * i));
  memcpy(file + 8, text, length);
  run_state state;
  status error = state_open(fuzz_file(file, 8 + length), &state);
  if (!error) {
    FUZZ_REQUIRE(state.sum_count <= STATE_MAX_VALUES && state.number_count <= STATE_MAX_VALUES);
    state_free(&state);
  }
  fuzz_refused(error);
  free(text);
  free(file);
  return 0;
}
