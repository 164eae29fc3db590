/* Numbers that change from step to step, where kernels on a device read them: the number of the update,
 * and the scheduled attributes of all calls. */
#include "execute/bound.h"

#include <stdlib.h>
#include <string.h>

enum { OF_A_CALL = 4 }; /* scheduled attributes, at most */

typedef struct field {
  const attr *attr;
  const void *attrs;
} field;

/* The device's memory holds the table as it was sent last. Its first entry is the number of the update,
 * an int32_t. */
struct scheduled_numbers {
  double *memory, *now, *sent;
  field *fields; /* of entry 1 on */
  int room, count;
  bool is_sent;
};

static size_t table_bytes(int count) {
  return (size_t)count * sizeof(double);
}

status scheduled_open(program *p, int calls) {
  struct scheduled_numbers *n = p->scheduled = arena_alloc(&p->memory, sizeof *n);
  int room = 1 + OF_A_CALL * calls;
  *n = (struct scheduled_numbers){.room = room, .count = 1};
  n->now = arena_alloc(&p->memory, table_bytes(room));
  n->sent = arena_alloc(&p->memory, table_bytes(room));
  n->fields = arena_alloc(&p->memory, (size_t)room * sizeof *n->fields);
  void *memory = NULL;
  TRY(p->device->allocate(p->device, table_bytes(room), &memory));
  n->memory = memory;
  p->step_number = memory;
  return OK;
}

static status bind(struct scheduled_numbers *n, bound_call *b) {
  int first = n->count;
  for (const attr *a = b->op->attrs; a && a->name; a++) {
    if (!attr_is_scheduled(a)) continue;
    if (n->count - first == OF_A_CALL || n->count == n->room)
      return error_new(ERROR_INTERNAL, NOWHERE, "%s has too many scheduled attributes",
                       b->op->name);
    n->fields[n->count++] = (field){.attr = a, .attrs = b->call.attrs};
  }
  if (n->count > first) b->call.scheduled = n->memory + first;
  return OK;
}

status scheduled_bind(program *p) {
  for (int i = 0; i < p->call_count; i++) TRY(bind(p->scheduled, &p->calls[i]));
  return OK;
}

void scheduled_close(program *p) {
  struct scheduled_numbers *n = p->scheduled;
  if (n && n->memory) p->device->release(p->device, n->memory, table_bytes(n->room));
}

status scheduled_send(program *p) {
  struct scheduled_numbers *n = p->scheduled;
  int32_t number = (int32_t)p->updates;
  memcpy(n->now, &number, sizeof number);
  for (int i = 1; i < n->count; i++)
    n->now[i] = attr_scheduled_value(n->fields[i].attr, n->fields[i].attrs);
  size_t bytes = table_bytes(n->count);
  if (n->is_sent && memcmp(n->now, n->sent, bytes) == 0) return OK;
  memcpy(n->sent, n->now, bytes);
  n->is_sent = true;
  return p->device->upload(p->device, n->memory, n->now, bytes);
}
