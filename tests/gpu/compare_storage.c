/* What graph/storage.h stores as bf16 changes no bit: every operator over its declared cases among
 * linear layers in bf16, which leave its inputs, its results and the gradients of both to be stored,
 * with and without. Every port that says it can be read or written so has to be, in some trial; an
 * operator that says too much of itself, or a kernel that cannot, fails.
 *
 *   compare_storage [--device NAME] [OPERATOR…] [--seed N] */
#include "gradient/trial.h"

#include "graph/precision.h"

#include <stdlib.h>
#include <string.h>

static const surroundings ways[] = {{.products = true},
                                    {.products = true, .scales_in = true},
                                    {.products = true, .scales_out = true},
                                    {.products = true, .scales_in = true, .scales_out = true},
                                    {.products = true, .inference = true}};
enum { WAYS = sizeof ways / sizeof *ways, READ_PORTS = 8, OPS_MOST = 512 };

/* By operator and port: a trial had it stored. */
typedef struct seen_ports {
  bool read[OPS_MOST][READ_PORTS], written[OPS_MOST][READ_PORTS];
} seen_ports;

static seen_ports of_all, of_case;

static int index_of(const op *o) {
  int i = 0;
  while (op_at(i) != o) i++;
  return i;
}

static bool note(bool *of_any, bool *of_this) {
  bool is_new = !*of_this;
  *of_any = *of_this = true;
  return is_new;
}

/* Notes what is stored; false: nothing that another way has not shown of this case. */
static bool note_stored(const graph *g) {
  bool any = false;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (strncmp(n->name, "op", 2) != 0) continue; /* of the surroundings */
    int which = index_of(n->op);
    for (int k = 0; k < n->in_count; k++) {
      if (n->in[k] == VALUE_NONE || g->values[n->in[k]].type.dtype != DTYPE_BF16) continue;
      int port = (int)(input_port(n->op, k) - n->op->inputs);
      any |= note(&of_all.read[which][port], &of_case.read[which][port]);
    }
    for (int k = 0; k < n->out_count; k++)
      if (g->values[n->out[k]].type.dtype == DTYPE_BF16)
        any |= note(&of_all.written[which][k], &of_case.written[which][k]);
  }
  return any;
}

typedef struct outcome {
  char *bytes; /* results and gradients, one after the other; heap */
  size_t count;
  bool is_there; /* something is stored that other ways have not shown */
} outcome;

static status take(trial *t, value_id v, outcome *out) {
  if (v == VALUE_NONE || !program_data(&t->program, v)) return OK;
  size_t bytes = tensor_bytes(&t->g->values[v].type);
  out->bytes = realloc(out->bytes, out->count + bytes + 1);
  TRY(program_read(&t->program, v, out->bytes + out->count));
  out->count += bytes;
  return OK;
}

static status run(const op *o, const op_case *c, uint64_t seed, const surroundings *around,
                  device *d, outcome *out, char *shown) {
  trial t;
  status error = trial_build_among(o, c, seed, around, &t);
  memcpy(shown, t.shown, sizeof t.shown);
  if (!error && !t.is_empty) {
    graph_set_precision(t.g, PRECISION_BF16);
    error = trial_open(&t, d);
    out->is_there = !error && d->stores_bf16 && note_stored(t.g);
    if (!error && (out->is_there || !d->stores_bf16)) {
      error = program_run(&t.program);
      for (int i = 0; i < t.result_count && !error; i++) error = take(&t, t.results[i], out);
      for (int i = 0; i < t.param_count && !error; i++)
        error = take(&t, t.g->values[t.params[i]].gradient, out);
      for (int i = 0; i < t.state_count && !error; i++) error = take(&t, t.states[i], out);
    }
    trial_close(&t);
  }
  trial_free(&t);
  return error;
}

/* Trials in which something was stored; −1 when one differs. */
static int compare_operator(const op *o, uint64_t seed, device *d) {
  int trials = 0;
  char shown[TRIAL_TEXT_BYTES];
  for (const op_case *c = o->cases; c->attrs; c++) {
    of_case = (seen_ports){0};
    for (int w = 0; w < WAYS; w++) {
      outcome stored = {0}, plain = {0};
      d->stores_bf16 = true;
      status error = run(o, c, seed, &ways[w], d, &stored, shown);
      d->stores_bf16 = false;
      if (!error && stored.is_there) error = run(o, c, seed, &ways[w], d, &plain, shown);
      bool same = !stored.is_there || (stored.count == plain.count && stored.count > 0 &&
                                       memcmp(stored.bytes, plain.bytes, plain.count) == 0);
      trials += stored.is_there;
      free(stored.bytes);
      free(plain.bytes);
      if (!error && same) continue;
      printf("FAIL %-24s way %d, %s\n", o->name, w, shown);
      if (error) {
        error_print(stdout, error);
        error_free(error);
      } else {
        printf("     what is stored as bf16 changes a result\n");
      }
      return -1;
    }
  }
  if (trials > 0) printf("ok   %-24s %3d trials\n", o->name, trials);
  return trials;
}

/* Ports that say they can and that no trial has shown. */
static int report_missing(void) {
  int missing = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (o->lower || o->traits & OP_CPU_ONLY) continue; /* others take its place */
    for (int k = 0; o->inputs && o->inputs[k].name && k < READ_PORTS; k++)
      if (o->inputs[k].flags & (PORT_ROUNDED | PORT_SIGN | PORT_CARRIED) && !of_all.read[i][k])
        missing += printf("MISS %s: input %s was never stored\n", o->name, o->inputs[k].name) > 0;
    for (int k = 0; o->outputs && o->outputs[k].name && k < READ_PORTS; k++)
      if (o->outputs[k].flags & PORT_STORABLE && !of_all.written[i][k])
        missing += printf("MISS %s: output %s was never stored\n", o->name, o->outputs[k].name) > 0;
  }
  return missing;
}

int main(int argc, char **argv) {
  trial_options options = {.seed = 1, .device = "cuda"};
  trial_options_read(argc, argv, &options);
  device *d = trial_device(options.device, 1);
  int failed = 0, passed = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    /* Losses read what they are given as it is. */
    if (!trial_is_asked(&options, o) || o->traits & (OP_NOT_IN_GRAPHS | OP_LOSS) || !o->cases ||
        !trial_is_differentiable(o))
      continue;
    int trials = compare_operator(o, options.seed, d);
    failed += trials < 0;
    passed += trials > 0;
  }
  int missing = options.name_count > 0 ? 0 : report_missing();
  device_close(d);
  printf("%d operators are the same to the bit, %d are not, %d ports not seen\n", passed, failed,
         missing);
  return failed || missing || passed == 0;
}
