/* Pipeline files, through everything `strata plan` does before it opens a data set's files: load,
 * expand every stage, differentiate, plan memory. Models and blocks are the shipped ones. */
#include "fuzz.h"

#include "data/dataset.h"
#include "graph/expand.h"
#include "plan/plan.h"

enum { NODES_MAX = 4000 }; /* larger graphs are built, but not planned */

static status expand(pipeline *p, const stage_spec *stage, bool training) {
  expand_options options = {.batch = stage->batch, .classes = 3, .training = training};
  TRY(sample_infer(&p->data, 1, options.size, &options.channels));
  stage_graph graph;
  TRY(stage_expand(p, stage, &options, &graph));
  status error = OK;
  if (graph.g->node_count <= NODES_MAX) {
    plan memory;
    plan_use use = {graph.keep, graph.keep_count, 2, training};
    error = plan_memory(graph.g, &use, &memory);
    if (!error) {
      error = plan_verify(graph.g, &memory, &use);
      plan_free(&memory);
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
