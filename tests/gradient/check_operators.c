/* The automatic gradient check: every operator with a gradient, over its declared cases.
 *
 * For each trial, shapes and attributes are drawn at random within the case, f32 inputs become
 * parameters, and the derivative of Σ w·output along random directions and single coordinates, by
 * fourth-order central differences accumulated in double, is compared with the compiled gradient.
 * The same program then runs on one and on three threads, and every bit must agree.
 *
 *   check_operators [OPERATOR] [--seed N] [--trials N]
 */
#include "base/text.h"
#include "execute/program.h"
#include "language/bind.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 24, TEXT_BYTES = 2048, DIRECTIONS = 3, COORDINATES = 6, BATCH = 16 };

/* ---- random case texts ------------------------------------------------------------------- */

typedef struct letters {
  bool known[26];
  int64_t value[26];
} letters;

/* Length of the alternative that starts at p: up to a separator outside brackets. */
static size_t term_length(const char *p) {
  size_t n = 0;
  int depth = 0;
  for (; p[n]; n++) {
    if (p[n] == '[' || p[n] == '{') depth++;
    if (p[n] == ']' || p[n] == '}') {
      if (depth == 0) break;
      depth--;
    }
    if (depth == 0 && strchr(",;|:", p[n])) break;
  }
  while (n > 0 && p[n - 1] == ' ') n--;
  return n;
}

static bool starts_letter(const char *p, char before) {
  return islower((unsigned char)p[0]) && !isalnum((unsigned char)p[1]) && p[1] != '_' &&
         !isalnum((unsigned char)before) && before != '_' && p[1] != ':';
}

/* Replaces `a..b`, `a|b` and letters in a case text. */
static void draw(const char *in, char *out, size_t room, letters *l, rng *r) {
  size_t used = 0;
  char before = ' ';
  while (*in && used + 32 < room) {
    int define = -1;
    if (starts_letter(in, before) && in[1] == '=') {
      define = in[0] - 'a';
      in += 2;
    } else if (starts_letter(in, before) && l->known[in[0] - 'a']) {
      used += (size_t)snprintf(out + used, room - used, "%lld", (long long)l->value[in[0] - 'a']);
      before = *in++;
      continue;
    }
    bool boundary = strchr(" [,:{;", before) != NULL || define >= 0;
    /* "in 0..3" is a range of values, not a number to draw. */
    bool is_range = used >= 3 && strncmp(out + used - 3, "in ", 3) == 0;
    char *end = (char *)in;
    long low = isdigit((unsigned char)*in) || *in == '-' ? strtol(in, &end, 10) : 0;
    if (boundary && !is_range && end != in && strncmp(end, "..", 2) == 0) {
      long high = strtol(end + 2, &end, 10);
      int64_t value = low + (int64_t)rng_below(r, (uint32_t)(high - low + 1));
      if (define >= 0) l->known[define] = true, l->value[define] = value;
      used += (size_t)snprintf(out + used, room - used, "%lld", (long long)value);
      in = end;
      before = '0';
      continue;
    }
    if (boundary && !is_range && *in != ' ' && *in != '{' && *in != ']' && *in != '}') {
      const char *options[16];
      size_t lengths[16];
      int count = 0;
      const char *p = in;
      for (;;) {
        size_t n = term_length(p);
        if (count < 16) options[count] = p, lengths[count++] = n;
        p += n;
        while (*p == ' ') p++;
        if (*p != '|') break;
        p++;
        while (*p == ' ') p++;
      }
      if (count > 1) {
        int pick = (int)rng_below(r, (uint32_t)count);
        char one[256];
        snprintf(one, sizeof one, "%.*s", (int)lengths[pick], options[pick]);
        draw(one, out + used, room - used, l, r);
        if (define >= 0) l->known[define] = true, l->value[define] = atol(out + used);
        used += strlen(out + used);
        in = p;
        before = '0';
        continue;
      }
      if (define >= 0) l->known[define] = true, l->value[define] = low;
    }
    before = *in;
    out[used++] = *in++;
  }
  out[used] = 0;
}

/* ---- one trial --------------------------------------------------------------------------- */

typedef struct input_text {
  bool absent;
  shape shape;
  int32_t low, high; /* i32 */
} input_text;

static int parse_inputs(const char *text, input_text *list) {
  int count = 0;
  while (*text && count < MAX_TENSORS) {
    while (*text == ' ' || *text == ';') text++;
    if (!*text) break;
    input_text *in = &list[count++];
    *in = (input_text){.high = 1};
    if (*text == '-') {
      in->absent = true;
      text++;
      continue;
    }
    if (*text == '[') text++;
    while (*text && *text != ']') {
      char *end;
      long n = strtol(text, &end, 10);
      if (end == text) {
        text++;
        continue;
      }
      in->shape.dim[in->shape.rank++] = n;
      text = end;
    }
    if (*text == ']') text++;
    int low, high, used = 0;
    if (sscanf(text, " in %d .. %d%n", &low, &high, &used) == 2 ||
        sscanf(text, " in %d..%d%n", &low, &high, &used) == 2) {
      in->low = low;
      in->high = high;
      text += used;
    }
  }
  return count;
}

typedef struct trial {
  graph *g;
  value_id params[MAX_TENSORS]; /* everything differentiated */
  int param_count;
  value_id states[MAX_TENSORS]; /* running statistics: no gradient, but the same bits are wanted */
  int state_count;
  value_id labels[MAX_TENSORS];
  input_text label_range[MAX_TENSORS];
  int label_count;
  value_id outputs[MAX_TENSORS], seeds[MAX_TENSORS];
  int output_count;
  program program;
  parameters parameters;
} trial;

static status build_trial(const op *o, const void *attrs, const input_text *texts, int text_count,
                          trial *t) {
  t->g = graph_new(true);
  builder b = {.g = t->g, .prefix = ""};
  value_id in[MAX_TENSORS], out[MAX_TENSORS];
  const port *ports[MAX_TENSORS];
  int plain = 0;
  for (const port *p = o->inputs; p && p->name; p++)
    if (!(p->flags & PORT_PARAM)) ports[plain++] = p;
  int count = 0;
  for (int i = 0; i < text_count; i++) {
    const port *p = ports[i < plain ? i : plain - 1];
    char name[32];
    snprintf(name, sizeof name, "input%d", i);
    if (texts[i].absent) {
      in[count++] = VALUE_NONE;
    } else if (p->dtype == DTYPE_I32) {
      in[count] = build_input(&b, name, DTYPE_I32, texts[i].shape);
      t->label_range[t->label_count] = texts[i];
      t->labels[t->label_count++] = in[count++];
    } else {
      TRY(build_param(&b, name, (param_spec){.shape = texts[i].shape}, &in[count++]));
    }
  }
  while (count > 0 && in[count - 1] == VALUE_NONE) count--;
  TRY(build_apply(&b, "op", o, attrs, in, count, out));
  for (int i = 0; o->outputs[i].name; i++) {
    if ((o->outputs[i].flags & PORT_SAVED) || o->outputs[i].dtype != DTYPE_F32) continue;
    if ((o->traits & OP_LOSS) && i > 0)
      break; /* what a loss reports beside itself has no gradient */
    char name[32];
    snprintf(name, sizeof name, "seed%d", i);
    t->outputs[t->output_count] = out[i];
    t->seeds[t->output_count++] = build_input(&b, name, DTYPE_F32, value_type(&b, out[i])->shape);
  }
  TRY(graph_differentiate_from(t->g, t->outputs, t->seeds, t->output_count));
  for (int v = 0; v < t->g->value_count; v++)
    if (t->g->values[v].kind == VALUE_PARAM && t->g->values[v].state)
      t->states[t->state_count++] = v;
    else if (t->g->values[v].kind == VALUE_PARAM)
      t->params[t->param_count++] = v;
  return graph_verify(t->g);
}

/* Away from zero, where ReLUs have their corner. */
static float draw_value(rng *r) {
  float v = rng_normal(r);
  return v < 0 ? v - 0.15f : v + 0.15f;
}

static void fill_data(trial *t, rng *r) {
  for (int i = 0; i < t->param_count; i++) {
    float *data = program_data(&t->program, t->params[i]);
    int64_t n = shape_elements(&t->g->values[t->params[i]].type.shape);
    for (int64_t k = 0; k < n; k++) data[k] = draw_value(r);
  }
  for (int i = 0; i < t->label_count; i++) {
    int32_t *data = program_data(&t->program, t->labels[i]);
    int64_t n = shape_elements(&t->g->values[t->labels[i]].type.shape);
    uint32_t span = (uint32_t)(t->label_range[i].high - t->label_range[i].low + 1);
    for (int64_t k = 0; data && k < n; k++)
      data[k] = t->label_range[i].low + (int32_t)rng_below(r, span);
  }
  for (int i = 0; i < t->output_count; i++) {
    float *data = program_data(&t->program, t->seeds[i]);
    int64_t n = shape_elements(&t->g->values[t->seeds[i]].type.shape);
    for (int64_t k = 0; data && k < n; k++) data[k] = rng_normal(r);
  }
  rng_key keys[BATCH];
  for (int64_t n = 0; n < BATCH; n++) keys[n] = rng_key_of(rng_u32(r), "check", 0, "case", n);
  error_free(program_set_keys(&t->program, keys));
}

/* `rounding`: what f32 results leave uncertain in the sum, element errors taken as independent. */
static status objective(trial *t, double *out, double *rounding) {
  TRY(program_run(&t->program));
  double sum = 0, squares = 0;
  for (int i = 0; i < t->output_count; i++) {
    const float *y = program_data(&t->program, t->outputs[i]);
    const float *w = program_data(&t->program, t->seeds[i]);
    int64_t n = shape_elements(&t->g->values[t->outputs[i]].type.shape);
    for (int64_t k = 0; w && k < n; k++) {
      double term = (double)y[k] * (double)w[k];
      sum += term;
      squares += term * term;
    }
  }
  *out = sum;
  *rounding = 3e-7 * sqrt(squares);
  return OK;
}

static status along(trial *t, float *x, const float *start, const float *u, int64_t n, double h,
                    double *out, double *rounding) {
  for (int64_t k = 0; k < n; k++) x[k] = start[k] + (float)(h * (double)u[k]);
  return objective(t, out, rounding);
}

/* Largest error over directions for one parameter, relative to the gradient's size: as it is, and
 * beyond what rounding explains. */
static status check_parameter(trial *t, value_id v, rng *r, double *worst, double *excess) {
  int64_t n = shape_elements(&t->g->values[v].type.shape);
  float *x = program_data(&t->program, v);
  float *start = malloc((size_t)n * sizeof *start), *u = malloc((size_t)n * sizeof *u);
  float *gradient = calloc((size_t)n, sizeof *gradient);
  double unused, rounding;
  status error = objective(t, &unused, &rounding);
  if (!error && t->g->values[v].gradient != VALUE_NONE)
    memcpy(gradient, program_data(&t->program, t->g->values[v].gradient), (size_t)n * sizeof *u);
  memcpy(start, x, (size_t)n * sizeof *start);
  double norm = 0;
  for (int64_t k = 0; k < n; k++) norm += (double)gradient[k] * (double)gradient[k];
  norm = sqrt(norm);
  int compared = 0;
  for (int d = 0; !error && d < DIRECTIONS + COORDINATES; d++) {
    memset(u, 0, (size_t)n * sizeof *u);
    if (d < DIRECTIONS)
      for (int64_t k = 0; k < n; k++) u[k] = (float)rng_range(r, -1, 1);
    else
      u[rng_below(r, (uint32_t)n)] = 1;
    double analytic = 0, length = 0;
    for (int64_t k = 0; k < n; k++) {
      analytic += (double)gradient[k] * (double)u[k];
      length += (double)u[k] * (double)u[k];
    }
    const double h = 0.01;
    double f[4];
    error = along(t, x, start, u, n, h, &f[0], &rounding);
    if (!error) error = along(t, x, start, u, n, -h, &f[1], &rounding);
    if (!error) error = along(t, x, start, u, n, 2 * h, &f[2], &rounding);
    if (!error) error = along(t, x, start, u, n, -2 * h, &f[3], &rounding);
    double numeric = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
    double scale = fmax(fabs(numeric), norm * sqrt(length) / sqrt((double)n));
    /* A direction that crosses a corner (of |x|, of a ReLU) has no derivative to compare with: the
     * narrow and the wide difference disagree there. */
    double narrow = (f[0] - f[1]) / (2 * h), wide = (f[2] - f[3]) / (4 * h);
    if (fabs(narrow - wide) > 0.005 * scale) continue;
    compared++;
    /* Rounding of f32 results limits what a difference can resolve. */
    double noise = 2 * rounding / h;
    double difference = fabs(numeric - analytic);
    double relative = difference == 0 ? 0 : scale > 0 ? difference / scale : 1;
    if (difference > noise) *excess = fmax(*excess, (difference - noise) / scale);
    if (!isfinite(numeric) || !isfinite(analytic)) relative = *excess = INFINITY;
    if (relative > *worst) *worst = relative;
  }
  if (!error && compared == 0) *excess = INFINITY;
  memcpy(x, start, (size_t)n * sizeof *start);
  free(start);
  free(u);
  free(gradient);
  return error;
}

static uint64_t digest(trial *t) {
  uint64_t h = 0;
  for (int i = 0; i < t->output_count; i++)
    h = hash_mix(h, bytes_hash(program_data(&t->program, t->outputs[i]),
                               tensor_bytes(&t->g->values[t->outputs[i]].type)));
  for (int i = 0; i < t->param_count; i++) {
    value_id gradient = t->g->values[t->params[i]].gradient;
    if (gradient != VALUE_NONE)
      h = hash_mix(h, bytes_hash(program_data(&t->program, gradient),
                                 tensor_bytes(&t->g->values[gradient].type)));
  }
  for (int i = 0; i < t->state_count; i++)
    h = hash_mix(h, bytes_hash(program_data(&t->program, t->states[i]),
                               tensor_bytes(&t->g->values[t->states[i]].type)));
  return h;
}

static status open_trial(trial *t, device *d) {
  TRY(parameters_create(t->g, d, &t->parameters));
  /* Gradients need their flat buffer, which comes with an optimizer; it never steps here because a
   * learning rate of zero with no decay leaves the parameters alone. */
  static char attrs[256];
  const op *sgd = op_find("sgd");
  op_defaults(sgd, attrs);
  optimizer_use optimizer = {.op = sgd, .attrs = attrs};
  return program_create(t->g, d, &t->parameters, t->outputs, t->output_count, BATCH, &optimizer,
                        &t->program);
}

static void close_trial(trial *t) {
  program_free(&t->program);
  parameters_free(&t->parameters);
}

static status run_trial(const op *o, const op_case *c, uint64_t seed, device *const devices[2],
                        double *worst, double *excess, bool *same, char *shown) {
  rng r = rng_open(rng_key_of(seed, "gradient check", 0, o->name, 0), text_hash(c->attrs));
  letters l = {0};
  char attr_text[TEXT_BYTES], input_list[TEXT_BYTES];
  if (strchr(c->inputs, '=')) {
    draw(c->inputs, input_list, sizeof input_list, &l, &r);
    draw(c->attrs, attr_text, sizeof attr_text, &l, &r);
  } else {
    draw(c->attrs, attr_text, sizeof attr_text, &l, &r);
    draw(c->inputs, input_list, sizeof input_list, &l, &r);
  }
  snprintf(shown, TEXT_BYTES, "%.600s  %.600s", attr_text, input_list);
  arena memory = {0};
  tree *map = NULL;
  status error = tree_parse(&memory, attr_text, strlen(attr_text), o->name, &map);
  void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
  problems found = {0};
  if (!error) bind_attrs(o, map, NULL, NOWHERE, &memory, attrs, &found);
  if (!error) error = problems_take(&found);
  input_text texts[MAX_TENSORS];
  int text_count = parse_inputs(input_list, texts);
  trial t = {0};
  if (!error) error = build_trial(o, attrs, texts, text_count, &t);
  uint64_t digests[2] = {0};
  /* An operator that is switched off (dropout at rate 0) leaves no node to check. */
  bool is_empty = !error && t.g->values[t.outputs[0]].producer < 0;
  for (int d = 1; d >= 0 && !error && !is_empty; d--) {
    error = open_trial(&t, devices[d]);
    rng data = r;
    if (!error) fill_data(&t, &data);
    double unused, rounding;
    if (!error) error = objective(&t, &unused, &rounding);
    if (!error) digests[d] = digest(&t);
    if (!error && d == 0)
      for (int i = 0; i < t.param_count && !error; i++)
        error = check_parameter(&t, t.params[i], &r, worst, excess);
    close_trial(&t);
  }
  *same = digests[0] == digests[1];
  graph_free(t.g);
  arena_free(&memory);
  return error;
}

int main(int argc, char **argv) {
  const char *only = NULL;
  uint64_t seed = 1;
  int trials = 3;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
      seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--trials") == 0 && i + 1 < argc)
      trials = atoi(argv[++i]);
    else
      only = argv[i];
  }
  device *devices[2];
  for (int d = 0; d < 2; d++) {
    status error = device_open("cpu", d == 0 ? 1 : 3, &devices[d], NULL);
    if (error) {
      error_print(stderr, error);
      return 1;
    }
  }
  int failed = 0, passed = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    /* A composite that draws at random works on the image, which asks for no gradient. */
    bool composite = o->lower && !(o->traits & OP_RANDOM);
    bool differentiable = (o->grad || composite) && !(o->traits & OP_INTERNAL);
    if ((only && strcmp(only, o->name) != 0) || !differentiable) continue;
    if (!o->cases || !o->cases->attrs) {
      printf("FAIL %-24s has a gradient but declares no cases\n", o->name);
      failed++;
      continue;
    }
    double op_worst = 0;
    int count = 0;
    bool op_failed = false;
    for (const op_case *c = o->cases; c->attrs; c++) {
      for (int k = 0; k < trials; k++, count++) {
        double worst = 0, excess = 0, tolerance = c->tolerance > 0 ? c->tolerance : 2e-3;
        bool same = false;
        char shown[TEXT_BYTES];
        status error = run_trial(o, c, seed + (uint64_t)k, devices, &worst, &excess, &same, shown);
        if (worst > op_worst) op_worst = worst;
        if (!error && excess <= tolerance && same) continue;
        op_failed = true;
        printf("FAIL %-24s %s\n     ", o->name, shown);
        if (error) {
          fflush(stdout);
          error_print(stdout, error);
          error_free(error);
        } else if (!same) {
          printf("one thread and three threads give different bits\n");
        } else {
          printf("relative error %.3g, %.3g beyond rounding; tolerance %.3g\n", worst, excess,
                 tolerance);
        }
        printf("     again: check_operators %s --seed %llu --trials 1\n", o->name,
               (unsigned long long)(seed + (uint64_t)k));
      }
    }
    failed += op_failed;
    passed += !op_failed;
    if (!op_failed)
      printf("ok   %-24s %3d trials, worst relative error %.2g\n", o->name, count, op_worst);
  }
  device_close(devices[0]);
  device_close(devices[1]);
  printf("%d operators passed, %d failed\n", passed, failed);
  return failed || passed == 0;
}
