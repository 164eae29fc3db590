/* The graph of every stage as a block diagram. */
#include "graph/expand.h"
#include "report/diagram.h"
#include "report/sections.h"

static status add_stage(page *p, const stage_spec *stage, bool open) {
  const run_record *r = p->run;
  expand_options options = {
      .batch = 1,
      .channels = json_integer_value(json_object_get(r->description, "channels")),
      .classes = (int64_t)json_array_size(json_object_get(r->description, "classes"))};
  TRY(sample_infer(stage->data, options.channels, options.size));
  stage_graph graph;
  TRY(stage_expand(r->p, stage, &options, &graph));
  double flops = 0;
  for (int i = 0; i < graph.g->node_count; i++)
    flops += node_cost(graph.g, &graph.g->nodes[i]).flops;
  text_add(&p->body, "<details%s><summary>", open ? " open" : "");
  html_format(&p->body, "%s: %.2f M parameters, %.3g GFLOP forward for a crop of %lld×%lld×%lld",
              stage->name, (double)graph_param_elements(graph.g) / 1e6, flops / 1e9,
              (long long)options.size[0], (long long)options.size[1], (long long)options.size[2]);
  text_add(&p->body, "</summary>\n");
  char id[32];
  snprintf(id, sizeof id, "arrow-%d", (int)(stage - r->p->stages));
  diagram_add(&p->body, graph.g, id);
  text_add(&p->body, "</details>\n");
  stage_graph_free(&graph);
  return OK;
}

void section_network(page *p) {
  const pipeline *pipe = p->run->p;
  if (!pipe || pipe->stage_count == 0) return;
  page_section(p, "network", "Network");
  text_add(&p->body,
           "<p class=\"facts\">A block is a group of operators with a common name: the shape "
           "it makes, its parameters, and as a bar its share of the operations of the "
           "forward pass.</p>\n");
  for (int i = 0; i < pipe->stage_count; i++) {
    if (!pipe->stages[i].enabled) continue;
    status error = add_stage(p, &pipe->stages[i], i == pipe->stage_count - 1);
    if (error) html_element(&p->body, "p", "missing", error_message(error));
    error_free(error);
  }
  page_section_end(p);
}
