/* forward: a network once, on a tensor file. */
#include "cli/command.h"
#include "infer/network.h"
#include "infer/standalone.h"
#include "run/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct tensor_list {
  named_tensor *list;
  int count;
} tensor_list;

static void free_tensors(tensor_list *t) {
  for (int i = 0; i < t->count; i++) free(t->list[i].tensor.data);
  free(t->list);
  *t = (tensor_list){0};
}

static status need(const char *value, const char *option) {
  if (value) return OK;
  return error_new(ERROR_USAGE, NOWHERE, "strata forward needs --%s FILE (strata forward --help)",
                   option);
}

/* The tensor x of the input file. */
static status find_input(const weights *w, const char *path, const named_tensor **out) {
  *out = weights_find(w, "x");
  if (!*out)
    return error_new(ERROR_DATA, NOWHERE, "%s has no tensor called x, the network's input", path);
  const tensor *t = &(*out)->tensor;
  char have[96];
  if (t->dtype != DTYPE_F32 || t->shape.rank != 5)
    return error_new(ERROR_DATA, NOWHERE,
                     "%s: x must hold real numbers of shape N×C×X×Y×Z, but is %s %s", path,
                     dtype_name(t->dtype), shape_format(have, &t->shape));
  for (int i = 0; i < 5; i++)
    if (t->shape.dim[i] < 1)
      return error_new(ERROR_DATA, NOWHERE, "%s: x is empty (%s)", path,
                       shape_format(have, &t->shape));
  return OK;
}

static status feed(standalone *s, const named_tensor *x) {
  const tensor *image = &s->graph.g->values[s->graph.image].type;
  float *ours = malloc(tensor_bytes(image));
  if (!ours) return error_out_of_memory(tensor_bytes(image));
  tensor_from_torch(&image->shape, x->tensor.data, ours);
  status error = program_write(&s->program, s->graph.image, ours);
  free(ours);
  return error;
}

static status read_output(standalone *s, const graph_name *name, named_tensor *out) {
  const tensor *t = &s->graph.g->values[name->values[0]].type;
  void *ours = malloc(tensor_bytes(t)), *theirs = malloc(tensor_bytes(t));
  status error = ours && theirs ? program_read(&s->program, name->values[0], ours)
                                : error_out_of_memory(tensor_bytes(t));
  if (!error && t->dtype == DTYPE_F32) tensor_to_torch(&t->shape, ours, theirs);
  if (!error && t->dtype != DTYPE_F32) memcpy(theirs, ours, tensor_bytes(t));
  free(ours);
  if (error) {
    free(theirs);
    return error;
  }
  shape torch = t->dtype == DTYPE_F32 ? shape_in_torch(&t->shape) : t->shape;
  *out = (named_tensor){name->name, {.dtype = t->dtype, .shape = torch, .data = theirs}};
  return OK;
}

static status write_outputs(standalone *s, const char *path) {
  tensor_list found = {.list = calloc((size_t)s->graph.names.count + 1, sizeof *found.list)};
  status error = found.list ? OK : error_out_of_memory(sizeof *found.list);
  for (int i = 0; i < s->graph.names.count && !error; i++) {
    error = read_output(s, &s->graph.names.list[i], &found.list[found.count]);
    if (error) break;
    const named_tensor *t = &found.list[found.count++];
    char shape_text[96];
    printf("%-24s %-24s norm %.6g\n", t->name, shape_format(shape_text, &t->tensor.shape),
           tensor_norm(&t->tensor));
  }
  if (!error) error = weights_write(path, found.list, found.count, NULL);
  free_tensors(&found);
  return error;
}

static status write_gradients(standalone *s, const char *path) {
  const parameters *p = &s->parameters;
  tensor_list found = {.list = calloc((size_t)p->count + 1, sizeof *found.list)};
  status error = found.list ? OK : error_out_of_memory(sizeof *found.list);
  for (int i = 0; i < p->count && !error; i++) {
    const float *gradient = standalone_gradient(s, &p->list[i]);
    if (!gradient) continue;
    tensor t = {.dtype = DTYPE_F32, .shape = p->list[i].shape};
    t.data = malloc(tensor_bytes(&t));
    if (!t.data) error = error_out_of_memory(tensor_bytes(&t));
    if (error) break;
    found.list[found.count++] = (named_tensor){p->list[i].name, t};
    error = p->device->download(p->device, t.data, gradient, tensor_bytes(&t));
  }
  if (!error) error = weights_write(path, found.list, found.count, NULL);
  if (!error) printf("%d gradients: %s\n", found.count, path);
  free_tensors(&found);
  return error;
}

static status run_forward(const arguments *a, const named_tensor *x, device *d) {
  const int64_t *dim = x->tensor.shape.dim;
  standalone_options o = {.path = a->operands[0],
                          .overrides = a->overrides,
                          .override_count = a->override_count,
                          .input = {.batch = dim[0],
                                    .channels = dim[1],
                                    .size = {dim[2], dim[3], dim[4]},
                                    .training = a->train},
                          .loss = a->gradients ? MODEL_LOSS_SQUARE : MODEL_LOSS_NONE};
  standalone s;
  TRY(standalone_open(&o, d, &s));
  status error = parameters_load(&s.parameters, a->weights);
  if (!error) error = feed(&s, x);
  if (!error) error = standalone_run(&s, a->seed >= 0 ? (uint64_t)a->seed : 1);
  if (!error) error = write_outputs(&s, a->output);
  if (!error && a->gradients) error = write_gradients(&s, a->gradients);
  standalone_close(&s);
  return error;
}

status command_forward(const arguments *a) {
  TRY(need(a->weights, "weights"));
  TRY(need(a->input, "input"));
  TRY(need(a->output, "output"));
  weights input;
  TRY(weights_read(a->input, &input));
  const named_tensor *x;
  device *d = NULL;
  status error = find_input(&input, a->input, &x);
  if (!error)
    error =
        device_open(a->device ? a->device : "auto", a->threads > 0 ? (int)a->threads : 0, &d, NULL);
  if (!error) error = run_forward(a, x, d);
  device_close(d);
  weights_close(&input);
  return error;
}
