/* ops, lua, schema: what there is, for people and for editors. */
#include "base/text.h"
#include "cli/command.h"
#include "graph/op.h"
#include "language/bind.h"
#include "language/elsewhere.h"
#include "script/api.h"

#include <string.h>

static void print_ports(const char *title, const port *ports, bool outputs) {
  bool any = false;
  for (const port *p = ports; p && p->name; p++) {
    if (outputs && (p->flags & PORT_SAVED)) continue;
    if (!any) printf("\n%s\n", title);
    any = true;
    printf("  %-20s %-3s %-18s%s%s%s %s\n", p->name, p->dtype == DTYPE_F32 ? "f32" : "i32", p->axes,
           p->flags & PORT_STATE   ? " running."
           : p->flags & PORT_PARAM ? " learned."
                                   : "",
           p->flags & PORT_OPTIONAL ? " optional." : "",
           p->flags & PORT_VARIADIC ? " one or more." : "", p->doc ? p->doc : "");
  }
}

static void print_attrs(const op *o) {
  if (!o->attrs || !o->attrs->name) return;
  puts("\nattributes");
  for (const attr *a = o->attrs; a->name; a++) {
    text_buffer line = {0};
    attr_describe(a, &line);
    printf("  %-20s %s\n  %-20s   %s\n", a->name, line.data, "", a->doc ? a->doc : "");
    const char *word;
    for (int i = 0; (word = elsewhere_word(o, a, i)); i++)
      printf(i ? ", %s" : "  %-20s   also written %s", i ? word : "", word);
    if (elsewhere_word(o, a, 0)) puts("");
    text_free(&line);
  }
}

static status explain(const char *name) {
  const op *o = op_find(name);
  const char *remark = o ? NULL : elsewhere_operator_remark(name);
  if (!o) o = elsewhere_operator(name, OP_PREPARE | OP_SAMPLE | OP_POSTPROCESS | OP_OPTIMIZER);
  if (!o) o = elsewhere_operator(name, 0);
  if (!o && remark)
    return error_new(ERROR_USAGE, NOWHERE, "there is no operator \"%s\": %s", name, remark);
  if (!o) {
    const char *names[1024];
    int count = 0;
    for (int i = 0; i < op_count() && count < 1024; i++) names[count++] = op_at(i)->name;
    const char *near = nearest_name(name, names, count);
    return error_new(ERROR_USAGE, NOWHERE, "there is no operator \"%s\"%s%s%s", name,
                     near ? "; did you mean \"" : " (strata ops lists them)", near ? near : "",
                     near ? "\"?" : "");
  }
  printf("%s (%s): %s\n", o->name, o->family, o->summary);
  if (remark) printf("\n%s is this one here: %s.\n", name, remark);
  if (o->doc) printf("\n%s\n", o->doc);
  print_ports("inputs", o->inputs, false);
  print_ports("outputs", o->outputs, true);
  print_attrs(o);
  if (o->torch) printf("\nin PyTorch\n  %s\n", o->torch);
  return OK;
}

status command_ops(const arguments *a) {
  if (a->operand_count == 1) return explain(a->operands[0]);
  const char *family = "";
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (o->traits & OP_INTERNAL) continue;
    if (strcmp(family, o->family) != 0) printf("%s%s\n", i ? "\n" : "", o->family);
    family = o->family;
    printf("  %-24s %s\n", o->name, o->summary);
  }
  puts("\nstrata ops NAME explains one.");
  return OK;
}

status command_lua(const arguments *a) {
  if (!a->markdown) return script_explain(a->operand_count ? a->operands[0] : NULL, stdout);
  script_reference(stdout);
  return OK;
}

status command_schema(const arguments *a) {
  (void)a;
  schema_write(stdout);
  return OK;
}
