/* Every fixture of tests/golden/operators: results and gradients against PyTorch and MONAI, on one
 * thread and on three, which must agree to the last bit. */
#include "operators.h"

#include <dirent.h>
#include <stdio.h>

enum { LINES_MAX = 64 };

typedef struct fixture {
  char text[4096];
  const char *lines[LINES_MAX];
  char *data; /* at the first tensor */
  char *file;
  int count;
} fixture;

static void read_fixture(const char *path, fixture *f) {
  FILE *in = fopen(path, "rb");
  if (!in) fail_msg("cannot open %s", path);
  fseek(in, 0, SEEK_END);
  long size = ftell(in);
  rewind(in);
  f->file = malloc((size_t)size + 1);
  assert_int_equal(fread(f->file, 1, (size_t)size, in), size);
  fclose(in);
  f->file[size] = 0;
  char *head_end = strstr(f->file, "\ndata\n");
  assert_non_null(head_end);
  size_t length = (size_t)(head_end - f->file);
  assert_true(length < sizeof f->text);
  memcpy(f->text, f->file, length);
  f->text[length] = 0;
  f->data = head_end + 6;
  f->count = 0;
  for (char *line = strtok(f->text, "\n"); line; line = strtok(NULL, "\n"))
    f->lines[f->count++] = line;
}

static shape read_shape(const char *text) {
  shape s = {0};
  char *end;
  for (long d = strtol(text, &end, 10); end != text; text = end, d = strtol(text, &end, 10))
    s.dim[s.rank++] = d;
  return s;
}

static void *take(fixture *f, char **cursor, const shape *s) {
  (void)f;
  size_t bytes = (size_t)shape_elements(s) * 4;
  void *copy = malloc(bytes);
  memcpy(copy, *cursor, bytes);
  *cursor += bytes;
  return copy;
}

static void compare(const char *name, const char *what, const float *have, const float *want,
                    int64_t n, double tolerance) {
  double largest = 1e-3;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)want[i]));
  for (int64_t i = 0; i < n; i++) {
    double error = fabs((double)have[i] - (double)want[i]) / largest;
    if (!(error <= tolerance))
      fail_msg("%s, %s, element %lld: expected %.9g, came %.9g", name, what, (long long)i,
               (double)want[i], (double)have[i]);
  }
}

static void run_optimizer(const char *name, fixture *f, const op *o, const void *attrs) {
  char *cursor = f->data;
  shape s = {0};
  float *state[4] = {0}, *parameters = NULL;
  int32_t step = 0;
  for (int i = 0; i < f->count; i++) {
    const char *line = f->lines[i];
    if (text_starts_with(line, "in f32")) {
      s = read_shape(line + 6);
      parameters = take(f, &cursor, &s);
      for (int k = 0; k < o->state_buffers; k++)
        state[k] = calloc((size_t)shape_elements(&s), sizeof(float));
    } else if (text_starts_with(line, "step")) {
      float *gradients = take(f, &cursor, &s);
      step++;
      tensor in[7] = {
          {DTYPE_F32, s, parameters}, {DTYPE_F32, s, gradients}, {DTYPE_I32, SHAPE(1), &step}};
      for (int k = 0; k < o->state_buffers; k++) in[3 + k] = (tensor){DTYPE_F32, s, state[k]};
      must(o->cpu(&(call){.attrs = attrs, .in = in, .in_count = 3 + o->state_buffers}));
      free(gradients);
    } else if (text_starts_with(line, "out 0")) {
      float *want = take(f, &cursor, &s);
      compare(name, "parameters", parameters, want, shape_elements(&s), 2e-6);
      free(want);
    }
  }
  for (int k = 0; k < 4; k++) free(state[k]);
  free(parameters);
}

/* An input of a composite is a parameter, so that the whole of it can be differentiated. */
static value_id composite_input(bench *t, int index, shape s, const void *data) {
  char name[16];
  value_id v;
  snprintf(name, sizeof name, "in%d", index);
  must(build_param(&t->b, name, (param_spec){.shape = s}, &v));
  memcpy(bench_make(t, v), data, tensor_bytes(value_type(&t->b, v)));
  return v;
}

static void composite_grad(bench *t, value_id out, value_id dy, const value_id *in, int in_count,
                           value_id *dx) {
  must(graph_differentiate_from(t->g, &out, &dy, 1));
  must(bench_run(t));
  for (int i = 0; i < in_count; i++)
    dx[i] = in[i] == VALUE_NONE ? VALUE_NONE : t->g->values[in[i]].gradient;
}

/* Hash of everything compared. */
static uint64_t run_step_operator(const char *name, fixture *f, const op *o, const void *attrs,
                                  int threads) {
  bench t;
  bench_open(&t, threads);
  char *cursor = f->data;
  value_id in[32], out[16], dx[32];
  int in_count = 0;
  uint64_t digest = 0;
  bool built = false;
  for (int i = 0; i < f->count; i++) {
    const char *line = f->lines[i];
    int port = 0, used = 0;
    if (strcmp(line, "in absent") == 0) {
      in[in_count++] = VALUE_NONE;
    } else if (text_starts_with(line, "in ")) {
      dtype type = text_starts_with(line, "in i32")    ? DTYPE_I32
                   : text_starts_with(line, "in sets") ? DTYPE_REGIONS
                                                       : DTYPE_F32;
      shape s = read_shape(line + strlen(type == DTYPE_REGIONS ? "in sets" : "in f32"));
      void *data = take(f, &cursor, &s);
      in[in_count] = o->lower && type == DTYPE_F32 ? composite_input(&t, in_count, s, data)
                                                   : bench_input(&t, "in", type, s, data);
      in_count++;
      free(data);
    } else if (sscanf(line, "out %d%n", &port, &used) == 1) {
      if (!built) {
        must(build_node(&t.b, o->name, attrs, in, in_count, out));
        must(bench_run(&t));
      }
      built = true;
      shape s = read_shape(line + used);
      assert_true(shape_equal(&s, &value_type(&t.b, out[port])->shape));
      float *want = take(f, &cursor, &s);
      const tensor *type = value_type(&t.b, out[port]);
      if (type->dtype == DTYPE_I32)
        assert_memory_equal(t.data[out[port]], want, tensor_bytes(type));
      else
        compare(name, line, t.data[out[port]], want, shape_elements(&s), 3e-6);
      digest = hash_mix(digest,
                        bytes_hash(t.data[out[port]], tensor_bytes(value_type(&t.b, out[port]))));
      free(want);
    } else if (sscanf(line, "state %d%n", &port, &used) == 1) {
      shape s = read_shape(line + used);
      float *want = take(f, &cursor, &s);
      compare(name, line, t.data[in[port]], want, shape_elements(&s), 3e-6);
      digest = hash_mix(digest, bytes_hash(t.data[in[port]], (size_t)shape_elements(&s) * 4));
      free(want);
    } else if (text_starts_with(line, "dy")) {
      shape s = read_shape(line + 2);
      float *data = take(f, &cursor, &s);
      bool wanted[32] = {false};
      for (int k = i; k < f->count; k++)
        if (sscanf(f->lines[k], "grad %d", &port) == 1) wanted[port] = true;
      value_id dy = bench_input(&t, "dy", DTYPE_F32, s, data);
      if (o->lower)
        composite_grad(&t, out[0], dy, in, in_count, dx);
      else
        bench_grad_of(&t, dy, wanted, dx);
      free(data);
    } else if (sscanf(line, "grad %d%n", &port, &used) == 1) {
      shape s = read_shape(line + used);
      float *want = take(f, &cursor, &s);
      assert_true(dx[port] != VALUE_NONE);
      compare(name, line, t.data[dx[port]], want, shape_elements(&s), 1e-5);
      digest =
          hash_mix(digest, bytes_hash(t.data[dx[port]], tensor_bytes(value_type(&t.b, dx[port]))));
      free(want);
    }
  }
  bench_close(&t);
  return digest;
}

static int fixtures_run;

static void run_fixture(const char *name) {
  char path[1024];
  snprintf(path, sizeof path, TEST_DATA "/golden/operators/%s", name);
  fixture f;
  read_fixture(path, &f);
  const op *o = op_find(f.lines[0] + 3);
  if (!o) fail_msg("%s: no operator is called %s", name, f.lines[0] + 3);
  arena memory = {0};
  void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
  op_defaults(o, attrs);
  for (int i = 1; i < f.count; i++) {
    char key[64];
    int used = 0;
    if (sscanf(f.lines[i], "attr %63s %n", key, &used) == 1)
      set_attr(o, attrs, key, f.lines[i] + used, &memory);
  }
  if (o->traits & OP_OPTIMIZER) {
    run_optimizer(name, &f, o, attrs);
  } else {
    uint64_t one = run_step_operator(name, &f, o, attrs, 1);
    if (one != run_step_operator(name, &f, o, attrs, 3))
      fail_msg("%s: one thread and three threads give different bits", name);
  }
  fixtures_run++;
  arena_free(&memory);
  free(f.file);
}

static void operators_agree_with_pytorch(void **state) {
  (void)state;
  DIR *folder = opendir(TEST_DATA "/golden/operators");
  assert_non_null(folder);
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
    if (text_ends_with(entry->d_name, ".fixture")) run_fixture(entry->d_name);
  closedir(folder);
  assert_true(fixtures_run >= 40);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(operators_agree_with_pytorch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
