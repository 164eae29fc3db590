/* The compiled step: it allocates nothing, and its bits do not depend on the number of threads. */
#include "step_fixture.h"

#include <stdatomic.h>
#include <sys/mman.h>

/* The linker sends every call of the engine and the operators here (-Wl,--wrap in CMakeLists.txt).
 */
static atomic_bool watching;
static atomic_int allocations;

static void count(void) {
  if (atomic_load(&watching)) atomic_fetch_add(&allocations, 1);
}

#define WRAPPED(result, name, parameters, arguments)                                               \
  result __real_##name parameters;                                                                 \
  result __wrap_##name parameters;                                                                 \
  result __wrap_##name parameters {                                                                \
    count();                                                                                       \
    return __real_##name arguments;                                                                \
  }
WRAPPED(void *, malloc, (size_t n), (n))
WRAPPED(void *, calloc, (size_t n, size_t size), (n, size))
WRAPPED(void *, realloc, (void *p, size_t n), (p, n))
WRAPPED(void *, aligned_alloc, (size_t alignment, size_t n), (alignment, n))
WRAPPED(int, posix_memalign, (void **out, size_t alignment, size_t n), (out, alignment, n))
WRAPPED(char *, strdup, (const char *text), (text))
WRAPPED(void *, mmap, (void *at, size_t n, int protection, int flags, int file, off_t offset),
        (at, n, protection, flags, file, offset))
WRAPPED(void, free, (void *p), (p))

static void a_step_allocates_and_frees_nothing(void **state) {
  (void)state;
  pipeline *p = load_tiny_updates();
  for (int stage = 0; stage < 2; stage++)
    for (int threads = 1; threads <= 3; threads++) {
      compiled c;
      compile_tiny(&c, p, stage, threads);
      feed_tiny(&c);
      atomic_store(&allocations, 0);
      atomic_store(&watching, true);
      void *volatile probe = malloc(16); /* the wrappers are in place */
      free(probe);
      int seen = atomic_load(&allocations);
      int64_t parts = c.stage->accumulate;
      status first = program_run(&c.program);
      status second = program_run_part(&c.program, 0, parts);
      status third = parts > 1 ? program_run_part(&c.program, 1, parts) : OK;
      atomic_store(&watching, false);
      must(first);
      must(second);
      must(third);
      assert_int_equal(seen, 2);
      assert_int_equal(atomic_load(&allocations), seen);
      release_tiny(&c);
    }
  pipeline_free(p);
}

static void one_two_three_and_eight_threads_give_the_same_bits(void **state) {
  (void)state;
  static const int counts[] = {1, 2, 3, 8};
  pipeline *p = load_tiny_updates();
  for (int stage = 0; stage < 2; stage++) {
    uint64_t first = 0;
    for (int i = 0; i < 4; i++) {
      compiled c;
      compile_tiny(&c, p, stage, counts[i]);
      step_tiny(&c, 4);
      uint64_t digest = digest_tiny(&c);
      if (i == 0) first = digest;
      assert_true(digest == first);
      release_tiny(&c);
    }
  }
  pipeline_free(p);
}

static void fresh_values_depend_on_seed_and_name_alone(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled a, b;
  compile_tiny(&a, p, 0, 1); /* heads of the order loss as well, and another order of first use */
  compile_tiny(&b, p, 1, 1);
  int shared = 0;
  for (int i = 0; i < a.parameters.count; i++) {
    const parameter *x = &a.parameters.list[i], *y = parameters_find(&b.parameters, x->name);
    if (!y || !shape_equal(&x->shape, &y->shape)) continue;
    assert_memory_equal(a.parameters.data + x->offset, b.parameters.data + y->offset,
                        (size_t)shape_elements(&x->shape) * sizeof(float));
    shared++;
  }
  assert_true(shared > 50);
  must(parameters_initialize(&b.parameters, p->seed + 1));
  const parameter *x = parameters_find(&a.parameters, "vit.blocks.0.attn.qkv.weight");
  const parameter *y = parameters_find(&b.parameters, x->name);
  assert_memory_not_equal(a.parameters.data + x->offset, b.parameters.data + y->offset,
                          (size_t)shape_elements(&x->shape) * sizeof(float));
  release_tiny(&a);
  release_tiny(&b);
  pipeline_free(p);
}

/* Gaps between tensors and the tail hold zeros and stay so: the optimizer sweeps over them. */
static void gaps_between_parameters_stay_zero(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c;
  compile_tiny(&c, p, 0, 2);
  step_tiny(&c, 3);
  bool *used = calloc((size_t)c.parameters.elements, sizeof *used);
  for (int i = 0; i < c.parameters.count; i++) {
    const parameter *x = &c.parameters.list[i];
    assert_int_equal(x->offset % 16, 0);
    for (int64_t k = 0; k < shape_elements(&x->shape); k++) {
      assert_false(used[x->offset + k]);
      used[x->offset + k] = true;
    }
  }
  for (int64_t i = 0; i < c.parameters.elements; i++)
    assert_true(used[i] || c.parameters.data[i] == 0);
  free(used);
  release_tiny(&c);
  pipeline_free(p);
}

static void the_loss_goes_down(void **state) {
  (void)state;
  pipeline *p = load_tiny("model.with.dropout", "0");
  compiled c;
  compile_tiny(&c, p, 1, 2);
  feed_tiny(&c);
  float first, last;
  must(program_run(&c.program));
  must(program_read(&c.program, c.graph.loss, &first));
  for (int i = 0; i < 20; i++) must(program_run(&c.program)); /* the same batch again */
  must(program_read(&c.program, c.graph.loss, &last));
  assert_true(last < 0.95f * first);
  release_tiny(&c);
  pipeline_free(p);
}

static void the_profile_adds_up_every_call(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c;
  compile_tiny(&c, p, 1, 1);
  double *seconds = calloc((size_t)c.program.call_count, sizeof *seconds);
  program_profile(&c.program, seconds);
  step_tiny(&c, 2);
  program_profile(&c.program, NULL);
  double total = 0;
  for (int i = 0; i < c.program.call_count; i++) total += seconds[i];
  assert_true(total > 0);
  assert_null(program_call_node(&c.program, c.program.call_count - 1)); /* the optimizer */
  assert_non_null(program_call_node(&c.program, 0));
  free(seconds);
  release_tiny(&c);
  pipeline_free(p);
}

/* A head on a volume whose scores do not fit what is made at a time. */
typedef struct head_net {
  graph *g;
  device *device;
  parameters parameters;
  program program;
  value_id scores;
  const float *whole; /* what a plain run gave */
  int64_t planes;     /* that have come */
  int calls;
} head_net;

enum { HEAD_SAMPLES = 2, HEAD_X = 9, HEAD_SIDE = 64, HEAD_CLASSES = 40 };
enum { HEAD_PLANE = HEAD_SIDE * HEAD_SIDE * HEAD_CLASSES };

static void head_open(head_net *h, const char *kernel, int threads) {
  *h = (head_net){.g = graph_new(false)};
  builder b = {.g = h->g, .prefix = ""};
  value_id x =
      build_input(&b, "x", DTYPE_F32, SHAPE(HEAD_SAMPLES, HEAD_X, HEAD_SIDE, HEAD_SIDE, 2));
  value_id features = APPLY(&b, "act", "relu", NULL, NULL, x);
  const op *conv = op_find("conv3d");
  void *attrs = attrs_of("conv3d", "kernel", kernel);
  *attr_integer(conv, attrs, "features") = HEAD_CLASSES;
  must(build_apply(&b, "head", conv, attrs, &features, 1, &h->scores));
  free(attrs);
  graph_prune(h->g, &h->scores, 1);
  must(graph_verify(h->g));
  must(device_open("cpu", threads, &h->device, NULL));
  must(parameters_create(h->g, h->device, &h->parameters));
  must(parameters_initialize(&h->parameters, 3));
  must(program_create(h->g, h->device, &h->parameters, &h->scores, 1, HEAD_SAMPLES, NULL,
                      &h->program));
  rng data = rng_open(rng_key_of(7, "data", 0, "test", 0), 0);
  float *image = program_data(&h->program, x);
  for (int i = 0; i < HEAD_SAMPLES * HEAD_X * HEAD_SIDE * HEAD_SIDE * 2; i++)
    image[i] = (float)rng_normal(&data);
}

static void head_close(head_net *h) {
  program_free(&h->program);
  parameters_free(&h->parameters);
  graph_free(h->g);
  device_close(h->device);
}

static status take_planes(void *context, int64_t n, int64_t from, int64_t to, const float *data) {
  head_net *h = context;
  assert_int_equal(n * HEAD_X + from, h->planes);
  assert_true(from < to && to <= HEAD_X);
  assert_memory_equal(data, h->whole + h->planes * HEAD_PLANE,
                      (size_t)((to - from) * HEAD_PLANE) * sizeof *data);
  h->planes += to - from;
  h->calls++;
  return OK;
}

static void a_head_runs_by_planes_with_the_bits_of_a_whole_run(void **state) {
  (void)state;
  static const struct {
    const char *kernel;
    bool in_pieces;
  } heads[] = {{"1", true}, {"[1, 3, 3]", true}, {"[3, 1, 1]", false}};
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
    for (int threads = 1; threads <= 3; threads++) {
      head_net h;
      head_open(&h, heads[i].kernel, threads);
      must(program_run(&h.program));
      size_t bytes = (size_t)HEAD_SAMPLES * HEAD_X * HEAD_PLANE * sizeof(float);
      float *whole = malloc(bytes);
      must(program_read(&h.program, h.scores, whole));
      h.whole = whole;
      must(program_run_by_planes(&h.program, h.scores, NULL, take_planes, &h));
      assert_int_equal(h.planes, HEAD_SAMPLES * HEAD_X);
      assert_true(heads[i].in_pieces ? h.calls > HEAD_SAMPLES : h.calls == HEAD_SAMPLES);
      free(whole);
      head_close(&h);
    }
}

static status refuse_second(void *context, int64_t n, int64_t from, int64_t to, const float *data) {
  (void)n, (void)from, (void)to, (void)data;
  head_net *h = context;
  return ++h->calls == 2 ? error_new(ERROR_INTERRUPTED, NOWHERE, "no more") : OK;
}

static void a_reader_ends_a_run_by_planes(void **state) {
  (void)state;
  head_net h;
  head_open(&h, "1", 2);
  must_fail(program_run_by_planes(&h.program, h.scores, NULL, refuse_second, &h), "no more");
  assert_int_equal(h.calls, 2);
  head_close(&h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_step_allocates_and_frees_nothing),
      cmocka_unit_test(one_two_three_and_eight_threads_give_the_same_bits),
      cmocka_unit_test(fresh_values_depend_on_seed_and_name_alone),
      cmocka_unit_test(gaps_between_parameters_stay_zero),
      cmocka_unit_test(the_loss_goes_down),
      cmocka_unit_test(the_profile_adds_up_every_call),
      cmocka_unit_test(a_head_runs_by_planes_with_the_bits_of_a_whole_run),
      cmocka_unit_test(a_reader_ends_a_run_by_planes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
