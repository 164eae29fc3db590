/* A graph as text: one node a line for golden tests and bug reports, and Graphviz for people. */
#include "base/text.h"
#include "graph/graph.h"
#include "language/bind.h"

#include <string.h>

static void print_value(const graph *g, value_id v, FILE *out) {
  if (v == VALUE_NONE) {
    fputs("-", out);
    return;
  }
  char text[96];
  const value *value = &g->values[v];
  if (value->kind == VALUE_PARAM)
    fprintf(out, "@%s", value->name);
  else if (value->kind == VALUE_INPUT)
    fprintf(out, "$%s", value->name);
  else
    fprintf(out, "%%%d", v);
  fprintf(out, ":%s[%s]", dtype_name(value->type.dtype), shape_format(text, &value->type.shape));
}

/* Attributes that differ from their defaults: " {slope: 0.01, kernel: [3, 3, 3]}". */
static void print_attrs(const node *n, FILE *out) {
  arena memory = {0};
  char *defaults = arena_alloc(&memory, n->op->attrs_bytes + 1);
  op_defaults(n->op, defaults);
  int shown = 0;
  for (const attr *a = n->op->attrs; a && a->name; a++) {
    char *value = attr_format(a, n->attrs, &memory);
    if (a->fallback && strcmp(value, attr_format(a, defaults, &memory)) == 0) continue;
    fprintf(out, "%s%s: %s", shown++ ? ", " : " {", a->name, value);
  }
  if (shown) fputs("}", out);
  arena_free(&memory);
}

void graph_dump(const graph *g, FILE *out) {
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->out_count; k++) {
      if (k) fputs(", ", out);
      print_value(g, n->out[k], out);
    }
    fprintf(out, " = %s(", n->op->name);
    for (int k = 0; k < n->in_count; k++) {
      if (k) fputs(", ", out);
      print_value(g, n->in[k], out);
    }
    fputs(")", out);
    print_attrs(n, out);
    fprintf(out, "  # %s%s\n", n->name, n->backward ? " backward" : "");
  }
}

static void print_escaped(const char *name, FILE *out) {
  for (; *name; name++) {
    if (*name == '"' || *name == '\\') fputc('\\', out);
    fputc(*name, out);
  }
}

void graph_dot(const graph *g, FILE *out) {
  fputs("digraph step {\n  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", "
        "fontname=\"Helvetica\", fontsize=10];\n  edge [fontname=\"Helvetica\", fontsize=8];\n",
        out);
  for (int i = 0; i < g->value_count; i++) {
    const value *v = &g->values[i];
    if (v->kind != VALUE_INPUT) continue;
    fprintf(out, "  v%d [label=\"", i);
    print_escaped(v->name, out);
    fputs("\", shape=ellipse, fillcolor=\"#fff3c4\"];\n", out);
  }
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    int64_t params = 0;
    for (int k = 0; k < n->in_count; k++)
      if (n->in[k] != VALUE_NONE && g->values[n->in[k]].kind == VALUE_PARAM)
        params += shape_elements(&g->values[n->in[k]].type.shape);
    fprintf(out, "  n%d [label=\"", i);
    print_escaped(n->name, out);
    fprintf(out, "\\n%s", n->op->name);
    if (params) fprintf(out, "\\n%lld parameters", (long long)params);
    fprintf(out, "\", fillcolor=\"%s\"];\n",
            n->op->traits & OP_LOSS ? "#ffd6d6"
            : n->backward           ? "#e4e4e4"
                                    : "#d6e8ff");
    for (int k = 0; k < n->in_count; k++) {
      value_id v = n->in[k];
      if (v == VALUE_NONE || g->values[v].kind == VALUE_PARAM) continue;
      char text[96];
      shape_format(text, &g->values[v].type.shape);
      if (g->values[v].kind == VALUE_INPUT)
        fprintf(out, "  v%d -> n%d [label=\"%s\"];\n", v, i, text);
      else
        fprintf(out, "  n%d -> n%d [label=\"%s\"];\n", g->values[v].producer, i, text);
    }
  }
  fputs("}\n", out);
}

cost node_cost(const graph *g, const node *n) {
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  double bytes = 0;
  node_types(g, n, in, out);
  for (int k = 0; k < n->in_count; k++)
    if (n->in[k] != VALUE_NONE) bytes += (double)tensor_bytes(&in[k]);
  for (int k = 0; k < n->out_count; k++) bytes += (double)tensor_bytes(&out[k]);
  cost c = {0};
  if (n->op->cost) c = n->op->cost(n->attrs, in, n->in_count, out);
  if (n->op->traits & OP_VIEW) return (cost){0};
  if (c.bytes == 0) c.bytes = bytes;
  return c;
}
