/* Pipeline files, through everything `strata plan` does before it opens a data set's files: load,
 * expand every stage, differentiate, plan memory. Models and blocks are the shipped ones. */
#include "fuzz.h"

#include "data/dataset.h"
#include "graph/expand.h"
#include "plan/budget.h"

/* Larger graphs are built, but not planned, or planned, but not within a budget. */
enum { NODES_MAX = 4000, BUDGET_NODES_MAX = 600 };

static status verified_plan(const graph *g, const plan_use *use, size_t *bytes) {
  plan memory;
  TRY(plan_memory(g, use, &memory));
  status error = plan_verify(g, &memory, use);
  *bytes = memory.arena_bytes;
  plan_free(&memory);
  return error;
}

static status expand(pipeline *p, const stage_spec *stage, bool training) {
  expand_options options = {
      .batch = stage->batch, .channels = 1, .classes = 3, .training = training};
  TRY(sample_infer(stage->data, options.channels, options.size));
  stage_graph graph;
  TRY(stage_expand(p, stage, &options, &graph));
  status error = OK;
  if (graph.g->node_count <= NODES_MAX) {
    plan_use use = {graph.keep, graph.keep_count, 2, true, training};
    size_t bytes, fewer;
    recomputation again;
    error = verified_plan(graph.g, &use, &bytes);
    if (!error && graph.g->node_count <= BUDGET_NODES_MAX) {
      error = plan_within(graph.g, &use, bytes / 4 * 3, &again);
      if (!error) error = verified_plan(graph.g, &use, &fewer);
      /* What was promised is what is planned. */
      if (!error && (again.nodes > 0 ? fewer != again.arena_bytes : fewer != bytes)) abort();
    }
  }
  stage_graph_free(&graph);
  return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pipeline *p;
  status error = pipeline_load_for_prediction(fuzz_file(data, size), NULL, 0, &p);
  if (!error) {
    for (int i = 0; i < p->stage_count; i++) fuzz_refused(expand(p, &p->stages[i], true));
    pipeline_free(p);
  }
  fuzz_refused(error);
  return 0;
}
