#include "gradient/trial.h"

#include "base/text.h"
#include "language/bind.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

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

static int parse_inputs(const char *text, input_text *list) {
  int count = 0;
  while (*text && count < TRIAL_TENSORS) {
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
      in->sets = strncmp(text, " sets", 5) == 0;
      if (in->sets) text += 5;
    }
  }
  return count;
}

void trial_options_read(int argc, char **argv, trial_options *o) {
  o->names = argv + 1;
  for (int i = 1; i < argc; i++) {
    bool has_value = i + 1 < argc;
    if (has_value && strcmp(argv[i], "--seed") == 0)
      o->seed = strtoull(argv[++i], NULL, 10);
    else if (has_value && strcmp(argv[i], "--trials") == 0)
      o->trials = atoi(argv[++i]);
    else if (has_value && strcmp(argv[i], "--device") == 0)
      o->device = argv[++i];
    else
      o->names[o->name_count++] = argv[i];
  }
}

bool trial_is_asked(const trial_options *o, const op *which) {
  for (int k = 0; k < o->name_count; k++)
    if (strcmp(o->names[k], which->name) == 0) return true;
  return o->name_count == 0;
}

device *trial_device(const char *name, int threads) {
  device *d;
  status error = device_open(name, threads, &d, NULL);
  if (!error) return d;
  error_print(stderr, error);
  exit(1);
}

/* A composite that draws at random works on the image, which asks for no gradient. */
bool trial_is_differentiable(const op *o) {
  bool composite = o->lower && !(o->traits & OP_RANDOM);
  return (o->grad || composite) && !(o->traits & OP_INTERNAL);
}

/* A layer before or after the operator, and a scaling on the operator's side of it. */
static status build_around(builder *b, const char *name, bool before, bool scales, value_id *v) {
  char at[40];
  const tensor *type = value_type(b, *v);
  enum { WIDEST = 600 }; /* of a layer in a small test */
  int64_t width = type->shape.rank >= 2 ? type->shape.dim[type->shape.rank - 1] : 0;
  bool is_rows = type->dtype == DTYPE_F32 && width > 0 && width <= WIDEST;
  char attrs[256];
  const op *linear = op_find("linear"), *scale = op_find("scale");
  op_defaults(scale, attrs);
  *attr_number(scale, attrs, "factor") = 1.25;
  snprintf(at, sizeof at, "scale_%s", name);
  if (scales && !before) TRY(build_apply(b, at, scale, attrs, v, 1, v));
  if (is_rows) {
    char own[256];
    op_defaults(linear, own);
    *attr_integer(linear, own, "features") = width;
    for (const attr *a = linear->attrs; a->name; a++)
      if (strcmp(a->name, "bias") == 0) *(bool *)(own + a->offset) = false;
    TRY(build_apply(b, name, linear, own, v, 1, v));
  }
  return scales && before ? build_apply(b, at, scale, attrs, v, 1, v) : OK;
}

static status build_trial(const op *o, const void *attrs, const input_text *texts, int text_count,
                          trial *t) {
  const surroundings *around = &t->around;
  bool differentiates = trial_is_differentiable(o) && !around->inference;
  t->g = graph_new(!around->inference);
  builder b = {.g = t->g, .prefix = ""};
  value_id in[TRIAL_TENSORS], out[TRIAL_TENSORS];
  const port *ports[TRIAL_TENSORS];
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
      dtype type = texts[i].sets ? DTYPE_REGIONS : DTYPE_I32;
      in[count] = build_input(&b, name, type, texts[i].shape);
      t->label_range[t->label_count] = texts[i];
      t->labels[t->label_count++] = in[count++];
    } else if (trial_is_differentiable(o)) {
      TRY(build_param(&b, name, (param_spec){.shape = texts[i].shape}, &in[count]));
      snprintf(name, sizeof name, "before%d", i);
      if (around->products) TRY(build_around(&b, name, true, around->scales_in, &in[count]));
      count++;
    } else {
      t->images[t->image_count++] = in[count] = build_input(&b, name, DTYPE_F32, texts[i].shape);
      count++;
    }
  }
  while (count > 0 && in[count - 1] == VALUE_NONE) count--;
  TRY(build_apply(&b, "op", o, attrs, in, count, out));
  for (int i = 0; around->products && o->outputs[i].name; i++) {
    char name[32];
    snprintf(name, sizeof name, "after%d", i);
    if (!(o->outputs[i].flags & PORT_SAVED))
      TRY(build_around(&b, name, false, around->scales_out, &out[i]));
  }
  for (int i = 0; o->outputs[i].name; i++)
    if (!(o->outputs[i].flags & PORT_SAVED)) t->results[t->result_count++] = out[i];
  for (int i = 0; differentiates && o->outputs[i].name; i++) {
    if ((o->outputs[i].flags & PORT_SAVED) || o->outputs[i].dtype != DTYPE_F32) continue;
    if ((o->traits & OP_LOSS) && i > 0)
      break; /* what a loss reports beside itself has no gradient */
    char name[32];
    snprintf(name, sizeof name, "seed%d", i);
    t->outputs[t->output_count] = out[i];
    t->seeds[t->output_count++] = build_input(&b, name, DTYPE_F32, value_type(&b, out[i])->shape);
  }
  if (differentiates) TRY(graph_differentiate_from(t->g, t->outputs, t->seeds, t->output_count));
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

/* Where a device keeps its memory is its own affair: values are drawn here and copied. */
static status fill_tensor(trial *t, value_id v, rng *r, const input_text *label,
                          float (*draw_one)(rng *)) {
  if (!program_data(&t->program, v)) return OK; /* nothing reads it */
  int64_t n = shape_elements(&t->g->values[v].type.shape);
  void *data = malloc((size_t)n * 4 + 1);
  uint32_t span = label ? (uint32_t)(label->high - label->low + 1) : 0;
  for (int64_t k = 0; k < n; k++)
    if (label)
      ((int32_t *)data)[k] = label->low + (int32_t)rng_below(r, span);
    else
      ((float *)data)[k] = draw_one(r);
  status error = program_write(&t->program, v, data);
  free(data);
  return error;
}

static status fill_data(trial *t, rng *r) {
  for (int i = 0; i < t->param_count; i++) TRY(fill_tensor(t, t->params[i], r, NULL, draw_value));
  for (int i = 0; i < t->image_count; i++) TRY(fill_tensor(t, t->images[i], r, NULL, draw_value));
  for (int i = 0; i < t->label_count; i++)
    TRY(fill_tensor(t, t->labels[i], r, &t->label_range[i], NULL));
  for (int i = 0; i < t->output_count; i++) TRY(fill_tensor(t, t->seeds[i], r, NULL, rng_normal));
  rng_key keys[TRIAL_BATCH];
  for (int64_t n = 0; n < TRIAL_BATCH; n++) keys[n] = rng_key_of(rng_u32(r), "check", 0, "case", n);
  return program_set_keys(&t->program, keys);
}

static status compile(trial *t, device *d) {
  TRY(parameters_create(t->g, d, &t->parameters));
  /* Gradients need their flat buffer, which comes with an optimizer; it never steps here because a
   * learning rate of zero with no decay leaves the parameters alone. */
  static char attrs[256];
  const op *sgd = op_find("sgd");
  op_defaults(sgd, attrs);
  optimizer_use optimizer = {.op = sgd, .attrs = attrs};
  return program_create(t->g, d, &t->parameters, t->results, t->result_count, TRIAL_BATCH,
                        &optimizer, &t->program);
}

status trial_open(trial *t, device *d) {
  TRY(compile(t, d));
  rng values = t->values;
  return fill_data(t, &values);
}

void trial_close(trial *t) {
  program_free(&t->program);
  parameters_free(&t->parameters);
}

status trial_build(const op *o, const op_case *c, uint64_t seed, trial *out) {
  return trial_build_among(o, c, seed, NULL, out);
}

status trial_build_among(const op *o, const op_case *c, uint64_t seed, const surroundings *around,
                         trial *out) {
  *out = (trial){.around = around ? *around : (surroundings){0}};
  rng r = rng_open(rng_key_of(seed, "gradient check", 0, o->name, 0), text_hash(c->attrs));
  letters l = {0};
  char attr_text[TRIAL_TEXT_BYTES], input_list[TRIAL_TEXT_BYTES];
  if (strchr(c->inputs, '=')) {
    draw(c->inputs, input_list, sizeof input_list, &l, &r);
    draw(c->attrs, attr_text, sizeof attr_text, &l, &r);
  } else {
    draw(c->attrs, attr_text, sizeof attr_text, &l, &r);
    draw(c->inputs, input_list, sizeof input_list, &l, &r);
  }
  snprintf(out->shown, sizeof out->shown, "%.600s  %.600s", attr_text, input_list);
  out->values = r;
  tree *map = NULL;
  TRY(tree_parse(&out->memory, attr_text, strlen(attr_text), o->name, &map));
  void *attrs = arena_alloc(&out->memory, o->attrs_bytes + 1);
  problems found = {0};
  bind_attrs(o, map, NULL, NOWHERE, &out->memory, attrs, &found);
  TRY(problems_take(&found));
  input_text texts[TRIAL_TENSORS];
  int text_count = parse_inputs(input_list, texts);
  TRY(build_trial(o, attrs, texts, text_count, out));
  out->is_empty = out->result_count > 0 && out->g->values[out->results[0]].producer < 0;
  return OK;
}

void trial_free(trial *t) {
  graph_free(t->g);
  arena_free(&t->memory);
}
