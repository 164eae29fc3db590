#include "graph/op.h"
#include "registry_list.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "language/bind.h"

enum { REGISTERED = sizeof registered / sizeof registered[0] };

static const op *sorted[REGISTERED];
static pthread_once_t sort_once = PTHREAD_ONCE_INIT;

static int by_family_then_name(const void *a, const void *b) {
  const op *x = *(const op *const *)a, *y = *(const op *const *)b;
  int order = strcmp(x->family, y->family);
  return order ? order : strcmp(x->name, y->name);
}

static void sort_registry(void) {
  memcpy(sorted, registered, sizeof registered);
  qsort(sorted, REGISTERED, sizeof sorted[0], by_family_then_name);
}

int op_count(void) {
  return REGISTERED;
}

const op *op_at(int index) {
  pthread_once(&sort_once, sort_registry);
  return sorted[index];
}

const op *op_find(const char *name) {
  for (int i = 0; i < REGISTERED; i++)
    if (strcmp(registered[i]->name, name) == 0) return registered[i];
  return NULL;
}

static void *attr_of_kind(const op *o, void *attrs, const char *attribute, attr_kind kind) {
  for (const attr *a = o->attrs; a && a->name; a++)
    if (a->kind == kind && strcmp(a->name, attribute) == 0) return (char *)attrs + a->offset;
  return NULL;
}

double *attr_number(const op *o, void *attrs, const char *attribute) {
  return attr_of_kind(o, attrs, attribute, ATTR_FLOAT);
}

unsigned *attr_axes(const op *o, void *attrs, const char *attribute) {
  return attr_of_kind(o, attrs, attribute, ATTR_AXES);
}

int64_t *attr_integer(const op *o, void *attrs, const char *attribute) {
  return attr_of_kind(o, attrs, attribute, ATTR_INT);
}

int_list *attr_integers(const op *o, void *attrs, const char *attribute) {
  return attr_of_kind(o, attrs, attribute, ATTR_INTS);
}

int *attr_choice(const op *o, void *attrs, const char *attribute) {
  return attr_of_kind(o, attrs, attribute, ATTR_CHOICE);
}

bool attr_is_scheduled(const attr *a) {
  return (a->flags & ATTR_SCHEDULABLE) && (a->kind == ATTR_FLOAT || a->kind == ATTR_INT);
}

double attr_scheduled_value(const attr *a, const void *attrs) {
  const void *field = (const char *)attrs + a->offset;
  return a->kind == ATTR_INT ? (double)*(const int64_t *)field : *(const double *)field;
}

int port_count(const port *ports) {
  int n = 0;
  while (ports && ports[n].name) n++;
  return n;
}

void op_defaults(const op *o, void *attrs) {
  memset(attrs, 0, o->attrs_bytes);
  arena memory = {0};
  for (const attr *a = o->attrs; a && a->name; a++)
    /* A default that does not parse is a mistake in the declaration; the registry test finds it.
     * String defaults are borrowed from the declaration. */
    if (a->fallback) {
      if (a->kind == ATTR_STRING)
        *(const char **)((char *)attrs + a->offset) = a->fallback;
      else
        error_free(bind_attr_text(a, a->fallback, &memory, attrs));
    }
  arena_free(&memory);
}
