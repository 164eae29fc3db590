/* safetensors: weight files, and the training state that lies in one. */
#include "fuzz.h"

#include "run/state.h"
#include "run/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_file(data, size);
  weights w;
  status error = weights_read(path, &w);
  if (!error) {
    volatile double sum = 0; /* touches every value */
    for (int i = 0; i < w.count; i++) {
      const tensor *t = &w.list[i].tensor;
      FUZZ_REQUIRE(weights_find(&w, w.list[i].name) == &w.list[i]);
      sum = sum + (t->dtype == DTYPE_F32 ? tensor_norm(t) : 0);
    }
    weights_close(&w);
  }
  fuzz_refused(error);
  run_state state;
  error = state_open(path, &state);
  if (!error) state_free(&state);
  fuzz_refused(error);
  return 0;
}
