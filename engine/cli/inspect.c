/* check, plan, bench: what a pipeline compiles to. */
#include "base/clock.h"
#include "base/files.h"
#include "base/text.h"
#include "cli/command.h"
#include "data/dataset.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "run/run.h"
#include "train/groups.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A pipeline with its data set's list, before any voxel. */
typedef struct opened {
  pipeline *p;
  dataset *data;
  device *device;
  int64_t size[3], channels;
} opened;

static status open_pipeline(const arguments *a, opened *o) {
  *o = (opened){0};
  TRY(pipeline_load(a->operands[0], a->overrides, a->override_count, &o->p));
  TRY(dataset_open(&o->p->data, o->p->seed, &o->data));
  TRY(sample_infer(&o->p->data, o->data->channels, o->size, &o->channels));
  return device_open(a->device ? a->device : "cpu",
                     (int)(a->threads > 0 ? a->threads : o->p->threads), &o->device, NULL);
}

static void close_pipeline(opened *o) {
  device_close(o->device);
  dataset_free(o->data);
  pipeline_free(o->p);
}

static status choose_stage(const opened *o, const char *name, const stage_spec **out) {
  const char *names[256];
  int count = 0;
  *out = NULL;
  for (int i = 0; i < o->p->stage_count; i++) {
    if (count < 256) names[count++] = o->p->stages[i].name;
    if (name ? strcmp(o->p->stages[i].name, name) == 0 : o->p->stages[i].enabled)
      *out = &o->p->stages[i];
  }
  if (*out) return OK;
  const char *near = name ? nearest_name(name, names, count) : NULL;
  return error_new(ERROR_USAGE, NOWHERE, "%s has no stage \"%s\"%s%s%s", o->p->path,
                   name ? name : "", near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "");
}

static status expand_stage(opened *o, const stage_spec *s, int64_t batch, stage_graph *out) {
  expand_options options = {.batch = batch,
                            .size = {o->size[0], o->size[1], o->size[2]},
                            .channels = o->channels,
                            .classes = o->data->class_count,
                            .training = true};
  return stage_expand(o->p, s, &options, out);
}

static cost graph_cost(const graph *g) {
  cost sum = {0};
  for (int i = 0; i < g->node_count; i++) {
    cost c = node_cost(g, &g->nodes[i]);
    sum.flops += c.flops;
    sum.bytes += c.bytes;
  }
  return sum;
}

/* ---- a training step, ready to run on random voxels --------------------------------------- */

typedef struct compiled {
  stage_graph graph;
  parameter_groups groups;
  parameters parameters;
  program program;
} compiled;

static status fill_inputs(program *p, const stage_graph *g, int classes) {
  rng r = rng_open(rng_key_of(1, "bench", 0, "bench", 0), 0);
  int64_t voxels = shape_elements(&g->g->values[g->image].type.shape);
  float *image = malloc((size_t)voxels * sizeof *image);
  uint8_t *label = calloc((size_t)voxels, sizeof *label);
  status error = image && label ? OK : error_out_of_memory((size_t)voxels * sizeof *image);
  for (int64_t i = 0; !error && i < voxels; i++) {
    image[i] = rng_normal(&r);
    label[i] = (uint8_t)rng_below(&r, (uint32_t)classes);
  }
  if (!error) error = program_write(p, g->image, image);
  if (!error && g->label != VALUE_NONE) error = program_write_classes(p, g->label, label);
  rng_key *keys = calloc((size_t)p->batch, sizeof *keys);
  if (!error && !keys) error = error_out_of_memory((size_t)p->batch * sizeof *keys);
  for (int64_t n = 0; !error && n < p->batch; n++) keys[n] = rng_key_of(1, "bench", 0, "bench", n);
  if (!error) error = program_set_keys(p, keys);
  free(keys);
  free(image);
  free(label);
  return error;
}

static void close_step(compiled *c) {
  program_free(&c->program);
  parameters_free(&c->parameters);
  stage_graph_free(&c->graph);
}

static status compile_step(opened *o, const stage_spec *s, int64_t batch, compiled *c) {
  *c = (compiled){0};
  TRY(expand_stage(o, s, batch, &c->graph));
  status error = parameter_groups_open(s, c->graph.g, &c->groups);
  optimizer_use optimizer = stage_optimizer(s, &c->groups);
  if (!error)
    error = parameters_create_in_groups(c->graph.g, c->groups.of, c->groups.count, o->device,
                                        &c->parameters);
  if (!error) error = parameters_initialize(&c->parameters, o->p->seed);
  if (!error)
    error = program_create(c->graph.g, o->device, &c->parameters, c->graph.keep,
                           c->graph.keep_count, batch, &optimizer, &c->program);
  if (!error) error = fill_inputs(&c->program, &c->graph, o->data->class_count);
  if (error) close_step(c);
  return error;
}

static void print_groups(const parameter_groups *groups) {
  text_buffer lines = {0};
  parameter_groups_describe(groups, &lines);
  if (lines.length) fputs(lines.data, stdout);
  text_free(&lines);
}

/* ---- check ------------------------------------------------------------------------------- */

static int64_t stage_steps(const opened *o, const stage_spec *s, bool label_free) {
  if (s->steps_per_epoch > 0) return s->steps_per_epoch;
  int64_t batches = dataset_steps(o->data, ROLE_TRAIN, &o->p->data, label_free, s->batch);
  return (batches + s->accumulate - 1) / s->accumulate;
}

/* Memory is what the plan says; the time comes from one step on random voxels, run twice unless
 * that is long already, since the first also touches all memory for the first time. */
static status check_stage(opened *o, const stage_spec *s) {
  compiled c;
  TRY(compile_step(o, s, s->batch, &c));
  double begin = clock_now_s();
  status error = program_run(&c.program);
  double seconds = clock_now_s() - begin;
  if (!error && seconds < 5) {
    begin = clock_now_s();
    error = program_run(&c.program);
    seconds = clock_now_s() - begin;
  }
  if (!error) {
    int64_t steps = stage_steps(o, s, c.graph.label == VALUE_NONE && !s->use_labels);
    char arena_text[24], params_text[24], time_text[24];
    int buffers = 2 + s->optimizer.op->state_buffers + (s->accumulate > 1) + (s->ema_decay > 0);
    double params_bytes = (double)graph_param_elements(c.graph.g) * 4 * buffers;
    seconds *= (double)s->accumulate;
    printf("stage %s: %.2f M parameters, %.1f GFLOP a step, %lld steps × %lld epochs\n", s->name,
           (double)graph_param_elements(c.graph.g) / 1e6,
           (double)s->accumulate * graph_cost(c.graph.g).flops / 1e9, (long long)steps,
           (long long)s->epochs);
    print_groups(&c.groups);
    printf("  memory %s for the step + %s for weights, gradients and moments\n",
           format_bytes(arena_text, (double)c.program.plan.arena_bytes),
           format_bytes(params_text, params_bytes));
    printf("  about %s here, at %.0f ms a step (%s), validation and loading not counted\n",
           format_duration(time_text, seconds * (double)steps * (double)s->epochs), 1e3 * seconds,
           o->device->description);
  }
  close_step(&c);
  return error;
}

/* "orient, normalize" */
static void print_operators(const char *title, const op_use *uses, int count) {
  printf("%s:", title);
  for (int i = 0; i < count; i++) printf("%s %s", i ? "," : "", uses[i].op->name);
  puts(count ? "" : " nothing");
}

static status check_opened(opened *o) {
  char cases[160];
  printf("%s, seed %llu\n", o->p->name, (unsigned long long)o->p->seed);
  printf("data %s, %s (no case in two roles); %d classes, %d channel%s\n", o->data->name,
         dataset_describe(o->data, cases), o->data->class_count, o->data->channels,
         o->data->channels == 1 ? "" : "s");
  print_operators("prepare", o->p->data.prepare, o->p->data.prepare_count);
  print_operators("sample", o->p->data.sample, o->p->data.sample_count);
  printf("crop %lld×%lld×%lld voxels\n", (long long)o->size[0], (long long)o->size[1],
         (long long)o->size[2]);
  run compiled = {.p = o->p,
                  .data = o->data,
                  .device = o->device,
                  .size = {o->size[0], o->size[1], o->size[2]},
                  .channels = o->channels};
  TRY(run_compile(&compiled));
  for (int i = 0; i < o->p->stage_count; i++)
    if (o->p->stages[i].enabled) TRY(check_stage(o, &o->p->stages[i]));
  puts("no mistakes found");
  return OK;
}

status command_check(const arguments *a) {
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) error = check_opened(&o);
  close_pipeline(&o);
  return error;
}

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

static void print_plan(const stage_graph *s, const plan *memory, const stage_spec *stage) {
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
    printf("%-46.46s %-28s %-24s %10s %9.3f %9.2f %10s\n", n->name[0] ? n->name : "(input)",
           n->op->name, shape_text, params_text, c.flops / 1e9, c.bytes / MIB, offset);
  }
  cost total = graph_cost(g);
  char arena_text[24], naive_text[24], bound_text[24];
  printf("\n%d nodes, %lld parameters, %.2f GFLOP and %.1f MiB moved a step (batch %lld)\n",
         g->node_count, (long long)graph_param_elements(g), total.flops / 1e9, total.bytes / MIB,
         (long long)stage->batch);
  printf("memory: planned peak %s; every buffer apart would take %s; alive at once at most %s\n",
         format_bytes(arena_text, (double)memory->arena_bytes),
         format_bytes(naive_text, (double)memory->naive_bytes),
         format_bytes(bound_text, (double)memory->lower_bound_bytes));
}

static status plan_opened(opened *o, const arguments *a) {
  const stage_spec *s;
  TRY(choose_stage(o, a->stage, &s));
  stage_graph graph;
  TRY(expand_stage(o, s, s->batch, &graph));
  plan memory;
  status error =
      plan_memory(graph.g, graph.keep, graph.keep_count, pool_threads(o->device->pool), &memory);
  if (!error)
    error =
        plan_verify(graph.g, &memory, graph.keep, graph.keep_count, pool_threads(o->device->pool));
  if (!error && a->dot) graph_dot(graph.g, stdout);
  parameter_groups groups;
  status mistakes = parameter_groups_open(s, graph.g, &groups);
  if (!error && !a->dot && !mistakes) {
    print_plan(&graph, &memory, s);
    print_groups(&groups);
  }
  if (!error) plan_free(&memory);
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

typedef struct profile_row {
  const char *name;
  double seconds, flops, bytes;
} profile_row;

static int slowest_first(const void *x, const void *y) {
  const profile_row *a = x, *b = y;
  return a->seconds > b->seconds ? -1 : a->seconds < b->seconds;
}

/* By node, slowest first, then by operator. */
static void print_profile(const program *p, const double *seconds, int64_t steps) {
  profile_row *rows = calloc((size_t)p->call_count + 1, sizeof *rows);
  profile_row *families = calloc((size_t)p->call_count + 1, sizeof *families);
  if (!rows || !families) {
    free(rows);
    free(families);
    return;
  }
  int family_count = 0;
  double total = 0;
  text_buffer names = {0};
  for (int i = 0; i < p->call_count; i++) {
    const node *n = program_call_node(p, i);
    cost c = n ? node_cost(p->g, n) : (cost){0};
    rows[i] =
        (profile_row){n ? n->name : "optimizer", seconds[i] / (double)steps, c.flops, c.bytes};
    total += rows[i].seconds;
    const char *name = n ? n->op->name : "optimizer";
    int k = 0;
    while (k < family_count && strcmp(families[k].name, name) != 0) k++;
    if (k == family_count) families[family_count++].name = name;
    families[k].seconds += rows[i].seconds;
    families[k].flops += c.flops;
    families[k].bytes += c.bytes;
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
  printf("\n%-71s %9s %6s %9s %8s\n", "node", "ms", "share", "GFLOP/s", "GB/s");
  for (int i = 0; i < p->call_count && i < 40; i++)
    printf("%s %9.3f %5.1f%% %9.1f %8.1f\n", rows[i].name, 1e3 * rows[i].seconds,
           100 * rows[i].seconds / total, rows[i].flops / rows[i].seconds / 1e9,
           rows[i].bytes / rows[i].seconds / 1e9);
  printf("\n%-71s %9s %6s %9s %8s\n", "operator", "ms", "share", "GFLOP/s", "GB/s");
  for (int i = 0; i < family_count; i++)
    printf("%-71s %9.3f %5.1f%% %9.1f %8.1f\n", families[i].name, 1e3 * families[i].seconds,
           100 * families[i].seconds / total, families[i].flops / families[i].seconds / 1e9,
           families[i].bytes / families[i].seconds / 1e9);
  text_free(&names);
  free(rows);
  free(families);
}

static status time_steps(program *p, const stage_graph *g, const stage_spec *s,
                         const arguments *a) {
  enum { WARM_UP = 2 };
  int64_t steps = a->steps > 0 ? a->steps : 10;
  double *times = calloc((size_t)steps, sizeof *times);
  double *profile = calloc((size_t)p->call_count + 1, sizeof *profile);
  status error = times && profile ? OK : error_out_of_memory((size_t)steps * sizeof *times);
  for (int i = 0; i < WARM_UP && !error; i++) error = program_run(p);
  if (a->profile) program_profile(p, profile);
  for (int64_t i = 0; i < steps && !error; i++) {
    double begin = clock_now_s();
    error = program_run(p);
    times[i] = clock_now_s() - begin;
  }
  if (!error) {
    qsort(times, (size_t)steps, sizeof *times, by_value);
    double median = times[steps / 2], flops = graph_cost(g->g).flops;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    char rss[24];
    printf("stage %s, batch %lld: median %.1f ms a step (min %.1f, max %.1f, %lld steps), "
           "%.1f GFLOP, %.1f GFLOP/s, peak memory %s, %s\n",
           s->name, (long long)p->batch, 1e3 * median, 1e3 * times[0], 1e3 * times[steps - 1],
           (long long)steps, flops / 1e9, flops / median / 1e9,
           format_bytes(rss, (double)usage.ru_maxrss * 1024), p->device->description);
    if (a->profile) print_profile(p, profile, steps);
    if (a->json) {
      json_t *root = json_pack("{s:s, s:I, s:f, s:f, s:f, s:I}", "stage", s->name, "steps",
                               (json_int_t)steps, "median_s", median, "min_s", times[0], "flops",
                               flops, "peak_rss_bytes", (json_int_t)usage.ru_maxrss * 1024);
      char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
      error = text ? file_write_atomic(a->json, text, strlen(text)) : error_out_of_memory(256);
      free(text);
      json_decref(root);
    }
  }
  free(times);
  free(profile);
  return error;
}

static status bench_opened(opened *o, const arguments *a) {
  const stage_spec *s;
  TRY(choose_stage(o, a->stage, &s));
  int64_t batch = a->batch > 0 ? a->batch : s->batch;
  compiled c;
  TRY(compile_step(o, s, batch, &c));
  status error = time_steps(&c.program, &c.graph, s, a);
  close_step(&c);
  return error;
}

status command_bench(const arguments *a) {
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) error = bench_opened(&o, a);
  close_pipeline(&o);
  return error;
}
