/* plan, bench: what a pipeline compiles to. */
#include "base/clock.h"
#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/opened.h"
#include "execute/estimate.h"
#include "graph/storage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const double MIB = 1024.0 * 1024.0;

/* ---- plan -------------------------------------------------------------------------------- */

static int64_t node_params(const graph *g, const node *n) {
  int64_t total = 0;
  for (int k = 0; k < n->in_count && !n->backward; k++)
    if (n->in[k] != VALUE_NONE && g->values[n->in[k]].kind == VALUE_PARAM &&
        !g->values[n->in[k]].state)
      total += shape_elements(&g->values[n->in[k]].type.shape);
  return total;
}

/* What the plan says of memory, and how the stage's budget was met. */
static void print_memory(const step_memory *m, const plan *p, const stage_spec *stage) {
  char arena_text[24], naive_text[24], bound_text[24], outside_text[24], all_text[24];
  text_buffer again = {0};
  printf("memory: planned peak %s; every buffer apart would take %s; alive at once at most %s\n",
         format_bytes(arena_text, (double)p->arena_bytes),
         format_bytes(naive_text, (double)p->naive_bytes),
         format_bytes(bound_text, (double)p->lower_bound_bytes));
  printf("a step holds %s: these %s and %s of %s",
         format_bytes(all_text, (double)(p->arena_bytes + m->outside_bytes)), arena_text,
         format_bytes(outside_text, (double)m->outside_bytes), step_memory_outside(m));
  if (stage->memory_bytes)
    printf("; the budget is %s", format_bytes(all_text, (double)stage->memory_bytes));
  step_memory_describe(m, &again);
  printf("\n%s%s", again.data ? again.data : "", again.data ? "\n" : "");
  text_free(&again);
}

/* Also where the device stores everything as f32, for plans are made where there is no GPU. */
static void print_storage(const stage_graph *s, const device *device) {
  storage_share share;
  char less[24];
  status error = graph_storage(s->g, s->keep, s->keep_count, &share);
  error_free(error);
  if (error || share.values == 0) return;
  printf("storage: %s %d values as bf16, which takes %s less than f32 and changes no bit\n",
         device->stores_bf16 ? "keeps" : "all f32 here; a GPU keeps", share.values,
         format_bytes(less, (double)share.bytes));
}

static void print_plan(const stage_graph *s, const step_memory *fitted, const plan *memory,
                       const stage_spec *stage, const device *device) {
  const graph *g = s->g;
  printf("%-46s %-28s %-24s %10s %9s %9s %10s\n", "node", "operator", "shape", "parameters",
         "GFLOP", "MiB", "at MiB");
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    cost c = node_cost(g, n);
    char shape_text[96] = "", offset[32] = "-";
    if (n->out_count > 0) {
      shape_format(shape_text, &g->values[n->out[0]].type.shape);
      if (memory->values[n->out[0]].offset >= 0)
        snprintf(offset, sizeof offset, "%.2f", (double)memory->values[n->out[0]].offset / MIB);
    }
    int64_t params = node_params(g, n);
    char params_text[32] = "";
    if (params) snprintf(params_text, sizeof params_text, "%lld", (long long)params);
    printf("%-46.46s %-28s %-24s %10s %9.3f %9.2f %10s%s\n", n->name[0] ? n->name : "(input)",
           n->op->name, shape_text, params_text, c.flops / 1e9, c.bytes / MIB, offset,
           n->recomputed ? "  again" : "");
  }
  cost total = graph_cost(g);
  printf("\n%d nodes, %lld parameters, %.2f GFLOP and %.1f MiB moved a step (batch %lld)\n",
         g->node_count, (long long)graph_param_elements(g), total.flops / 1e9, total.bytes / MIB,
         (long long)stage->batch);
  print_memory(fitted, memory, stage);
  char line[PRECISION_TEXT_BYTES];
  if (describe_precision(g, device, line)) printf("precision: %s\n", line);
  print_storage(s, device);
}

static status plan_opened(opened *o, const arguments *a) {
  const stage_spec *s;
  TRY(choose_stage(o, a->stage, &s));
  stage_graph graph;
  TRY(expand_stage(o, s, s->batch, &graph));
  step_memory fitted;
  plan memory = {0};
  status error = stage_fit_memory(s, o->device, &graph, &fitted);
  if (!error) error = plan_memory(graph.g, &fitted.use, &memory);
  if (!error) error = plan_verify(graph.g, &memory, &fitted.use);
  if (!error && a->dot) graph_dot(graph.g, stdout);
  parameter_groups groups;
  status mistakes = parameter_groups_open(s, graph.g, &groups);
  if (!error && !a->dot && !mistakes) {
    print_plan(&graph, &fitted, &memory, s, o->device);
    print_groups(&groups);
  }
  plan_free(&memory);
  stage_graph_free(&graph);
  problems found = {0};
  problems_add(&found, error);
  problems_add(&found, mistakes);
  return problems_take(&found);
}

status command_plan(const arguments *a) {
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) error = plan_opened(&o, a);
  close_pipeline(&o);
  return error;
}

/* ---- bench ------------------------------------------------------------------------------- */

static int by_value(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return a < b ? -1 : a > b;
}

static int by_count(const void *x, const void *y) {
  int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
  return a < b ? -1 : a > b;
}

typedef struct profile_row {
  const char *name;
  double seconds, flops, bytes, floor_s;
} profile_row;

static int slowest_first(const void *x, const void *y) {
  const profile_row *a = x, *b = y;
  return a->seconds > b->seconds ? -1 : a->seconds < b->seconds;
}

/* Seconds that a node's arithmetic or its memory traffic takes at the device's best, whichever is longer:
 * the roofline. */
static double floor_seconds(const node *n, cost c, const device_speed *best) {
  const product_speed *products = n ? product_speed_of(n, best) : &best->products[PRECISION_F32];
  double peak = fmax(products->convolution_flops, products->other_flops);
  return fmax(c.flops / peak, c.bytes / best->bytes);
}

static void print_row(const char *name, const profile_row *r, double total) {
  printf("%-71s %9.3f %5.1f%% %9.1f %8.1f %7.0f%%\n", name, 1e3 * r->seconds,
         100 * r->seconds / total, r->flops / r->seconds / 1e9, r->bytes / r->seconds / 1e9,
         100 * r->floor_s / r->seconds);
}

/* By node, slowest first, then by operator. */
static void print_profile(const program *p, const double *seconds, int64_t steps,
                          const device_speed *best) {
  profile_row *rows = calloc((size_t)p->call_count + 1, sizeof *rows);
  profile_row *families = calloc((size_t)p->call_count + 1, sizeof *families);
  if (!rows || !families) {
    free(rows);
    free(families);
    return;
  }
  int family_count = 0;
  double total = 0, floor_s = 0;
  text_buffer names = {0};
  for (int i = 0; i < p->call_count; i++) {
    const node *n = program_call_node(p, i);
    cost c = n ? node_cost(p->g, n) : (cost){0};
    rows[i] = (profile_row){n ? n->name : "optimizer", seconds[i] / (double)steps, c.flops, c.bytes,
                            floor_seconds(n, c, best)};
    total += rows[i].seconds;
    floor_s += rows[i].floor_s;
    const char *name = n ? n->op->name : "optimizer";
    int k = 0;
    while (k < family_count && strcmp(families[k].name, name) != 0) k++;
    if (k == family_count) families[family_count++].name = name;
    families[k].seconds += rows[i].seconds;
    families[k].flops += c.flops;
    families[k].bytes += c.bytes;
    families[k].floor_s += rows[i].floor_s;
  }
  /* Rows show the operator beside the node, so pair them before sorting. */
  for (int i = 0; i < p->call_count; i++) {
    const node *n = program_call_node(p, i);
    text_add(&names, "%-44.44s %-26s", rows[i].name, n ? n->op->name : "");
    text_append(&names, "\0", 1);
  }
  const char *at = names.data;
  for (int i = 0; i < p->call_count; i++, at += strlen(at) + 1) rows[i].name = at;
  qsort(rows, (size_t)p->call_count, sizeof *rows, slowest_first);
  qsort(families, (size_t)family_count, sizeof *families, slowest_first);
  const product_speed *f32 = &best->products[PRECISION_F32];
  static const char heads[] = "\n%-71s %9s %6s %9s %8s %8s\n";
  printf(heads, "node", "ms", "share", "GFLOP/s", "GB/s", "roofline");
  for (int i = 0; i < p->call_count && i < 40; i++) print_row(rows[i].name, &rows[i], total);
  printf(heads, "operator", "ms", "share", "GFLOP/s", "GB/s", "roofline");
  for (int i = 0; i < family_count; i++) print_row(families[i].name, &families[i], total);
  printf(
      "\nroofline: a convolution reaches %.0f GFLOP/s here, a matrix product %.0f, a sum %.1f GB/s; "
      "with the best of\nthem the nodes would take %.1f ms, %.0f%% of what they take\n",
      f32->convolution_flops / 1e9, f32->other_flops / 1e9, best->bytes / 1e9, 1e3 * floor_s,
      100 * floor_s / total);
  precision_share share = graph_precision(p->g);
  for (int k = PRECISION_F32 + 1; k < PRECISIONS; k++)
    if (share.nodes[k] > 0)
      printf("in %s: a convolution %.0f GFLOP/s, a matrix product %.0f\n", precision_choices[k],
             best->products[k].convolution_flops / 1e9, best->products[k].other_flops / 1e9);
  text_free(&names);
  free(rows);
  free(families);
}

/* A program and its timed steps: `seconds` and `faults` in rising order. */
typedef struct timing {
  program *program;
  const stage_graph *graph;
  const step_memory *memory;
  double *seconds;
  int64_t steps;
  double first;          /* when the first step of all was done, seconds after the start */
  int64_t *faults;       /* page faults of each */
  size_t device_bytes;   /* that the steps took of a device's own memory */
  const double *profile; /* seconds of each call, all steps together; NULL without --profile */
} timing;

/* Of a device's own memory; 0 where it is the host's. */
static size_t free_bytes_of(device *d) {
  return d->free_bytes ? d->free_bytes(d) : 0;
}

static int64_t page_faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

static json_int_t peak_rss_bytes(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (json_int_t)usage.ru_maxrss * 1024;
}

/* Of what the step is for: without what a budget makes run twice. */
static double useful_flops(const timing *t) {
  return graph_cost(t->graph->g).flops - t->memory->again.flops;
}

static void print_timing(const stage_spec *s, const timing *t) {
  const program *p = t->program;
  double median = t->seconds[t->steps / 2], flops = useful_flops(t);
  char rss[24], taken[24], held[24], arena_text[24];
  text_buffer again = {0};
  printf("stage %s, batch %lld: median %.1f ms a step (min %.1f, max %.1f, %lld steps), "
         "%.1f GFLOP, %.1f GFLOP/s, peak memory %s, %s\n",
         s->name, (long long)p->batch, 1e3 * median, 1e3 * t->seconds[0],
         1e3 * t->seconds[t->steps - 1], (long long)t->steps, flops / 1e9, flops / median / 1e9,
         format_bytes(rss, (double)peak_rss_bytes()), p->device->description);
  if (!p->device->is_host)
    printf("the device gave %s of its memory\n", format_bytes(taken, (double)t->device_bytes));
  printf("first step done %.2f s after the start\n", t->first);
  step_memory_describe(t->memory, &again);
  printf("a step holds %s, %s of it planned; %.4g page faults a step%s%s\n",
         format_bytes(held, (double)(p->plan.arena_bytes + t->memory->outside_bytes)),
         format_bytes(arena_text, (double)p->plan.arena_bytes), (double)t->faults[t->steps / 2],
         again.data ? "; " : "", again.data ? again.data : "");
  text_free(&again);
}

/* What a step does, call by call, in its order. */
static json_t *timed_calls(const timing *t) {
  json_t *calls = json_array();
  for (int i = 0; i < t->program->call_count; i++) {
    const node *n = program_call_node(t->program, i);
    cost c = n ? node_cost(t->graph->g, n) : (cost){0};
    json_t *call = json_pack("{s:s, s:s, s:s, s:f, s:f, s:b}", "node", n ? n->name : "", "op",
                             n ? n->op->name : "optimizer", "precision",
                             precision_choices[n ? node_precision(n) : PRECISION_F32], "flops",
                             c.flops, "bytes", c.bytes, "again", n && n->recomputed);
    if (t->profile)
      json_object_set_new(call, "seconds", json_real(t->profile[i] / (double)t->steps));
    json_array_append_new(calls, call);
  }
  return calls;
}

static status write_timing(const char *path, const stage_spec *s, const timing *t) {
  const plan *p = &t->program->plan;
  const recomputation *r = &t->memory->again;
  json_t *root = json_pack(
      "{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:I, s:I, s:I, s:I, s:{s:i, s:f, s:f}, s:o}",
      "stage", s->name, "steps", (json_int_t)t->steps, "median_s", t->seconds[t->steps / 2],
      "min_s", t->seconds[0], "first_step_s", t->first, "flops", useful_flops(t), "update_bytes",
      t->program->update ? stage_update_bytes(s, t->graph->g) : 0.0, "peak_rss_bytes",
      peak_rss_bytes(), "page_faults_per_step", (double)t->faults[t->steps / 2], "arena_bytes",
      (json_int_t)p->arena_bytes, "arena_lower_bound_bytes", (json_int_t)p->lower_bound_bytes,
      "outside_bytes", (json_int_t)t->memory->outside_bytes, "device_bytes",
      (json_int_t)t->device_bytes, "recomputed", "nodes", r->nodes, "flops", r->flops, "bytes",
      r->bytes, "calls", timed_calls(t));
  status error = json_write(path, root, JSON_INDENT(2), "");
  json_decref(root);
  return error;
}

/* Before anything is made for the step. */
typedef struct bench_start {
  double seconds;
  size_t free_bytes;
} bench_start;

static status time_step(program *p, timing *t, int64_t step) {
  int64_t faults = page_faults();
  double begin = clock_now_s();
  TRY(program_run(p));
  t->seconds[step] = clock_now_s() - begin;
  t->faults[step] = page_faults() - faults;
  return OK;
}

static status time_steps(program *p, const stage_graph *g, const step_memory *memory,
                         const stage_spec *s, const arguments *a, const bench_start *start) {
  enum { WARM_UP = 2 };
  timing t = {.program = p, .graph = g, .memory = memory, .steps = a->steps > 0 ? a->steps : 10};
  t.seconds = calloc((size_t)t.steps, sizeof *t.seconds);
  t.faults = calloc((size_t)t.steps, sizeof *t.faults);
  double *profile = calloc((size_t)p->call_count + 1, sizeof *profile);
  status error =
      t.seconds && t.faults && profile ? OK : error_out_of_memory((size_t)t.steps * sizeof(double));
  for (int i = 0; i < WARM_UP && !error; i++) {
    error = time_step(p, &t, 0);
    if (i == 0) t.first = clock_now_s() - start->seconds;
  }
  for (int64_t i = 0; i < t.steps && !error; i++) { /* touches their pages */
    t.seconds[i] = 1;
    t.faults[i] = 1;
  }
  if (a->profile) {
    program_profile(p, profile);
    t.profile = profile;
  }
  for (int64_t i = 0; i < t.steps && !error; i++) error = time_step(p, &t, i);
  if (!error) {
    t.device_bytes = start->free_bytes - free_bytes_of(p->device);
    qsort(t.seconds, (size_t)t.steps, sizeof *t.seconds, by_value);
    qsort(t.faults, (size_t)t.steps, sizeof *t.faults, by_count);
    print_timing(s, &t);
    char line[PRECISION_TEXT_BYTES];
    if (describe_precision(g->g, p->device, line)) printf("precision: %s\n", line);
    device_speed best;
    if (a->profile) error = device_measure(p->device, graph_precisions(g->g), &best);
    if (a->profile && !error) print_profile(p, profile, t.steps, &best);
    if (a->json && !error) error = write_timing(a->json, s, &t);
  }
  free(t.seconds);
  free(t.faults);
  free(profile);
  return error;
}

static status bench_opened(opened *o, const arguments *a, const bench_start *start) {
  const stage_spec *s;
  TRY(choose_stage(o, a->stage, &s));
  if (a->inference) {
    network n;
    TRY(compile_inference(o, s, &n));
    step_memory weights = {.outside_bytes = (size_t)n.own.elements * sizeof(float)};
    status error = time_steps(&n.program, &n.graph, &weights, s, a, start);
    network_close(&n);
    return error;
  }
  int64_t batch = a->batch > 0 ? a->batch : s->batch;
  compiled c;
  TRY(compile_step(o, s, batch, &c));
  status error = time_steps(&c.program, &c.graph, &c.memory, s, a, start);
  close_step(&c);
  return error;
}

status command_bench(const arguments *a) {
  bench_start start = {.seconds = clock_now_s()};
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) start.free_bytes = free_bytes_of(o.device);
  if (!error) error = bench_opened(&o, a, &start);
  close_pipeline(&o);
  return error;
}
