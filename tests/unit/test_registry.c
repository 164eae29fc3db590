/* What every operator's declaration owes to its users and to the tools made from it. */
#include "step_fixture.h"

static void names_are_unique_and_found(void **state) {
  (void)state;
  assert_true(op_count() > 50);
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    assert_ptr_equal(op_find(o->name), o);
    for (int k = 0; k < i; k++)
      if (strcmp(op_at(k)->name, o->name) == 0) fail_msg("two operators are called %s", o->name);
  }
  assert_null(op_find("conv"));
  assert_null(op_find(""));
}

static void the_registry_is_sorted_by_family_and_name(void **state) {
  (void)state;
  for (int i = 1; i < op_count(); i++) {
    int order = strcmp(op_at(i - 1)->family, op_at(i)->family);
    assert_true(order < 0 || (order == 0 && strcmp(op_at(i - 1)->name, op_at(i)->name) < 0));
  }
}

static bool is_one_line(const char *text) {
  return text && strlen(text) > 5 && text[0] != ' ' && !strchr(text, '\n');
}

static void every_operator_is_documented(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!is_one_line(o->summary)) fail_msg("summary of %s: %s", o->name, o->summary);
    if (!(o->traits & OP_INTERNAL) && (!o->doc || strlen(o->doc) < 20))
      fail_msg("%s has no definition", o->name);
    if (o->version < 1) fail_msg("%s has no version", o->name);
    for (const port *p = o->inputs; p && p->name; p++)
      if (!p->doc || !p->axes) fail_msg("input %s of %s is not documented", p->name, o->name);
    for (const port *p = o->outputs; p && p->name; p++)
      if (!p->doc || !p->axes) fail_msg("output %s of %s is not documented", p->name, o->name);
    for (const attr *a = o->attrs; a && a->name; a++)
      if (!a->doc || strlen(a->doc) < 4)
        fail_msg("attribute %s of %s is not documented", a->name, o->name);
  }
}

static size_t attr_bytes(attr_kind kind) {
  switch (kind) {
  case ATTR_BOOL:
    return sizeof(bool);
  case ATTR_INT:
    return sizeof(int64_t);
  case ATTR_FLOAT:
    return sizeof(double);
  case ATTR_CHOICE:
    return sizeof(int);
  case ATTR_STRING:
    return sizeof(const char *);
  case ATTR_INT3:
    return 3 * sizeof(int64_t);
  case ATTR_FLOAT3:
    return 3 * sizeof(double);
  case ATTR_RANGE:
    return 2 * sizeof(double);
  case ATTR_AXES:
    return sizeof(unsigned);
  case ATTR_INTS:
    return sizeof(int_list);
  case ATTR_FLOATS:
    return sizeof(float_list);
  }
  return 0;
}

static void attributes_lie_in_their_struct_and_apart(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    for (const attr *a = o->attrs; a && a->name; a++) {
      size_t end = a->offset + attr_bytes(a->kind);
      if (end > o->attrs_bytes) fail_msg("%s.%s lies outside", o->name, a->name);
      /* Schedules give real numbers; whole ones change in the engine's own operators alone, and several
       * by their places in sample operators. */
      bool can = a->kind == ATTR_FLOAT || (a->kind == ATTR_INT && o->traits & OP_INTERNAL) ||
                 (o->traits & OP_SAMPLE && (a->kind == ATTR_RANGE || a->kind == ATTR_FLOAT3));
      if ((a->flags & ATTR_SCHEDULABLE) && !can)
        fail_msg("%s.%s cannot be scheduled", o->name, a->name);
      if ((a->kind == ATTR_CHOICE) != (a->choices != NULL))
        fail_msg("%s.%s: choices", o->name, a->name);
      for (const attr *b = o->attrs; b != a; b++) {
        if (strcmp(a->name, b->name) == 0) fail_msg("%s has two attributes %s", o->name, a->name);
        if (a->offset < b->offset + attr_bytes(b->kind) && b->offset < end)
          fail_msg("%s.%s and %s share memory", o->name, a->name, b->name);
      }
      if (o->packing && o->packing->flag >= a->offset && o->packing->flag < end)
        fail_msg("%s.%s and the mark of a packed weight share memory", o->name, a->name);
    }
    if (o->packing && o->packing->flag + sizeof(bool) > o->attrs_bytes)
      fail_msg("the mark of a packed weight of %s lies outside", o->name);
  }
}

/* op_defaults cannot report a default that its own rule refuses, so it is checked here. */
static void defaults_parse_within_their_own_bounds(void **state) {
  (void)state;
  arena memory = {0};
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    void *attrs = calloc(1, o->attrs_bytes + 1);
    for (const attr *a = o->attrs; a && a->name; a++) {
      if (!a->fallback) continue;
      status error = bind_attr_text(a, a->fallback, &memory, attrs);
      if (error) fail_msg("%s.%s: %s", o->name, a->name, error_message(error));
      /* What is shown for the present value reads back as that value. */
      char *shown = attr_format(a, attrs, &memory);
      void *again = calloc(1, o->attrs_bytes + 1);
      error = bind_attr_text(a, shown, &memory, again);
      if (error) fail_msg("%s.%s shows %s: %s", o->name, a->name, shown, error_message(error));
      if (a->kind != ATTR_STRING)
        assert_memory_equal((char *)attrs + a->offset, (char *)again + a->offset,
                            attr_bytes(a->kind));
      free(again);
    }
    free(attrs);
  }
  arena_free(&memory);
}

static void every_operator_can_do_what_its_sort_must(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (o->traits & OP_INITIALIZER) {
      if (!o->params || o->cpu || o->infer) fail_msg("%s is no initializer", o->name);
      continue;
    }
    if (o->traits & OP_POSTPROCESS) {
      if (!o->labels || o->host || o->cpu || o->infer) fail_msg("%s is no postprocess", o->name);
      continue;
    }
    bool is_host = o->traits & (OP_PREPARE | OP_SAMPLE);
    bool runs = o->cpu || o->lower || (o->traits & OP_VIEW);
    if (is_host && (!o->host || o->cpu || o->infer)) fail_msg("%s is no host operator", o->name);
    if (!is_host && !(o->traits & OP_OPTIMIZER) && (!o->infer && !o->lower))
      fail_msg("%s has no shape rule", o->name);
    if (!is_host && !runs) fail_msg("%s cannot run", o->name);
    if ((o->traits & OP_OPTIMIZER) && o->state_buffers < 0) fail_msg("%s: buffers", o->name);
    bool has_params = false;
    for (const port *p = o->inputs; p && p->name; p++) {
      has_params |= (p->flags & PORT_PARAM) != 0;
      if ((p->flags & PORT_VARIADIC) && p[1].name) fail_msg("%s: variadic port", o->name);
    }
    if (has_params && !o->params && !o->lower) fail_msg("%s has no rule for parameters", o->name);
    /* What is drawn at random lies before the network, where no gradient flows. */
    bool differentiable = o->grad || (o->lower && !(o->traits & OP_RANDOM));
    if (differentiable && !(o->traits & OP_INTERNAL) && (!o->cases || !o->cases->attrs))
      fail_msg("%s has a gradient but no case to check it", o->name);
    if ((o->traits & OP_LOSS) && !o->grad && !o->lower) fail_msg("loss %s: gradient", o->name);
  }
}

static void numbers_are_found_by_name(void **state) {
  (void)state;
  const op *scale = op_find("scale");
  void *attrs = attrs_of("scale", "factor", "2.5");
  assert_true(*attr_number(scale, attrs, "factor") == 2.5);
  assert_null(attr_number(scale, attrs, "facto"));
  free(attrs);
  attrs = attrs_of("conv3d", NULL, NULL);
  assert_null(attr_number(op_find("conv3d"), attrs, "kernel")); /* not a real number */
  free(attrs);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_unique_and_found),
      cmocka_unit_test(the_registry_is_sorted_by_family_and_name),
      cmocka_unit_test(every_operator_is_documented),
      cmocka_unit_test(attributes_lie_in_their_struct_and_apart),
      cmocka_unit_test(defaults_parse_within_their_own_bounds),
      cmocka_unit_test(every_operator_can_do_what_its_sort_must),
      cmocka_unit_test(numbers_are_found_by_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
