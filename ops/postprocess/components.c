#include "components.h"

#include <stdlib.h>
#include <string.h>

void structures_of(const chosen_classes *chosen, uint8_t structure[LABEL_VALUES]) {
  bool every = chosen->classes.count == 0;
  memset(structure, 0, LABEL_VALUES);
  for (int c = 1; c < LABEL_CLASSES && every; c++) structure[c] = chosen->together ? 1 : (uint8_t)c;
  for (int i = 0; i < chosen->classes.count; i++) {
    int64_t c = chosen->classes.at[i];
    structure[c] = chosen->together ? 1 : (uint8_t)c;
  }
}

int64_t component_of(components *c, int64_t r) {
  component_run *list = c->list;
  while (list[r].parent != r) {
    list[r].parent = list[list[r].parent].parent;
    r = list[r].parent;
  }
  return r;
}

static void join(components *c, int64_t a, int64_t b) {
  a = component_of(c, a);
  b = component_of(c, b);
  if (a == b) return;
  int64_t first = a < b ? a : b, second = a < b ? b : a;
  c->list[second].parent = first;
  c->list[first].voxels += c->list[second].voxels;
}

static status push(components *all, component_run r) {
  if (all->count == all->capacity) {
    int64_t capacity = all->capacity ? 2 * all->capacity : 1024;
    component_run *list = realloc(all->list, (size_t)capacity * sizeof *list);
    if (!list) return error_out_of_memory((size_t)capacity * sizeof *list);
    all->list = list;
    all->capacity = capacity;
  }
  r.parent = all->count;
  r.voxels = r.to - r.from;
  all->list[all->count++] = r;
  return OK;
}

/* `reach`: 1 where a corner is enough. */
static void join_if_touching(components *c, int64_t a, int64_t b, int reach) {
  const component_run *one = &c->list[a], *other = &c->list[b];
  if (one->structure == other->structure && one->from < other->to + reach &&
      other->from < one->to + reach)
    join(c, a, b);
}

/* Joins the runs of two rows that touch. Both rows are sorted by z. */
static void join_rows(components *all, int64_t row, int64_t other, int reach) {
  int64_t a = all->first[row], a_end = all->first[row + 1];
  int64_t b = all->first[other], b_end = all->first[other + 1];
  const component_run *list = all->list;
  while (a < a_end && b < b_end) {
    join_if_touching(all, a, b, reach);
    if (list[a].to > list[b].to) {
      b++;
      continue;
    }
    /* Where both end, each touches the next of the other by a corner. */
    if (list[a].to == list[b].to && b + 1 < b_end) join_if_touching(all, a, b + 1, reach);
    a++;
  }
}

/* The neighbours of a row before it: one along x and one along y, and with corners both beside the first. */
static void join_to_rows_before(components *all, const labels *l, int64_t row, connectivity touch) {
  int64_t ny = l->size[1], x = row / ny, y = row % ny;
  int reach = touch == BY_CORNERS;
  if (y > 0) join_rows(all, row, row - 1, reach);
  for (int64_t near = y - reach; x > 0 && near <= y + reach; near++)
    if (near >= 0 && near < ny) join_rows(all, row, (x - 1) * ny + near, reach);
}

static status find_runs(const labels *l, const uint8_t structure[LABEL_VALUES], connectivity touch,
                        components *all) {
  int64_t rows = l->size[0] * l->size[1], nz = l->size[2];
  for (int64_t row = 0; row < rows; row++) {
    const uint8_t *z = l->data + row * nz;
    all->first[row] = all->count;
    for (int64_t from = 0, to; from < nz; from = to) {
      uint8_t s = structure[z[from]];
      for (to = from + 1; to < nz && structure[z[to]] == s;) to++;
      if (s) TRY(push(all, (component_run){.from = from, .to = to, .structure = s}));
    }
    all->first[row + 1] = all->count;
    join_to_rows_before(all, l, row, touch);
  }
  return OK;
}

status components_open(const labels *l, const uint8_t structure[LABEL_VALUES], connectivity touch,
                       components *out) {
  size_t rows = (size_t)(l->size[0] * l->size[1]);
  *out = (components){.first = malloc((rows + 1) * sizeof *out->first)};
  if (!out->first) return error_out_of_memory((rows + 1) * sizeof *out->first);
  status error = find_runs(l, structure, touch, out);
  if (error) components_close(out);
  return error;
}

void components_close(components *c) {
  free(c->first);
  free(c->list);
  *c = (components){0};
}

void components_replace(components *c, labels *l, uint8_t class) {
  int64_t rows = l->size[0] * l->size[1], nz = l->size[2];
  for (int64_t row = 0; row < rows; row++)
    for (int64_t r = c->first[row]; r < c->first[row + 1]; r++)
      if (c->list[component_of(c, r)].voxels == 0)
        memset(l->data + row * nz + c->list[r].from, class,
               (size_t)(c->list[r].to - c->list[r].from));
}
