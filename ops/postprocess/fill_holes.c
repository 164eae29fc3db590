/* fill_holes: background that a class encloses becomes that class. */
#include <stdlib.h>

#include "components.h"

typedef struct fill_holes_attrs {
  chosen_classes chosen;
} fill_holes_attrs;

static const attr fill_holes_attr_list[] = {
    CHOSEN_CLASSES(fill_holes_attrs,
                   "several of the classes may enclose a hole, which becomes the lowest of them"),
    {0},
};

/* What lies around a component of background, and is found at its first run. */
typedef struct rim {
  uint8_t structure, class; /* of the voxels met so far, the lowest class; 0: none */
  bool is_open;             /* it ends at the volume's border, or at something else */
} rim;

typedef struct holes {
  const labels *l;
  const uint8_t *structure;
  components background;
  rim *rims;
} holes;

static void meet(const holes *h, rim *around, uint8_t class) {
  uint8_t structure = h->structure[class];
  if (class == 0) return; /* of the same component */
  if (structure == 0 || (around->structure && around->structure != structure))
    around->is_open = true;
  if (around->class == 0 || class < around->class) around->class = class;
  around->structure = structure;
}

/* The border of the volume needs no look at its voxels, and most of the background lies on it. */
static void open_at_border(holes *h, int64_t row, int64_t r) {
  const int64_t *size = h->l->size, x = row / size[1], y = row % size[1];
  const component_run *run = &h->background.list[r];
  if (x == 0 || y == 0 || run->from == 0 || x + 1 == size[0] || y + 1 == size[1] ||
      run->to == size[2])
    h->rims[component_of(&h->background, r)].is_open = true;
}

static void look_around(holes *h, int64_t row, int64_t r) {
  const int64_t ny = h->l->size[1], nz = h->l->size[2];
  const component_run *run = &h->background.list[r];
  const uint8_t *z = h->l->data + row * nz;
  rim *around = &h->rims[component_of(&h->background, r)];
  if (around->is_open) return;
  meet(h, around, z[run->from - 1]);
  meet(h, around, z[run->to]);
  for (int64_t i = run->from; i < run->to; i++) {
    meet(h, around, z[i - nz]);
    meet(h, around, z[i + nz]);
    meet(h, around, z[i - ny * nz]);
    meet(h, around, z[i + ny * nz]);
  }
}

static void fill(holes *h, labels *l) {
  components *c = &h->background;
  int64_t rows = l->size[0] * l->size[1];
  for (int64_t row = 0; row < rows; row++)
    for (int64_t r = c->first[row]; r < c->first[row + 1]; r++) {
      const rim *around = &h->rims[component_of(c, r)];
      for (int64_t z = c->list[r].from; z < c->list[r].to && !around->is_open; z++)
        l->data[row * l->size[2] + z] = around->class;
    }
}

status fill_holes(const chosen_classes *chosen, labels *l) {
  static const uint8_t background[LABEL_VALUES] = {1};
  uint8_t structure[LABEL_VALUES];
  int64_t rows = l->size[0] * l->size[1];
  holes h = {.l = l, .structure = structure};
  structures_of(chosen, structure);
  TRY(components_open(l, background, BY_FACES, &h.background));
  size_t count = (size_t)h.background.count + 1;
  h.rims = calloc(count, sizeof *h.rims);
  status error = h.rims ? OK : error_out_of_memory(count * sizeof *h.rims);
  for (int pass = 0; pass < 2 && !error; pass++)
    for (int64_t row = 0; row < rows; row++)
      for (int64_t r = h.background.first[row]; r < h.background.first[row + 1]; r++)
        (pass == 0 ? open_at_border : look_around)(&h, row, r);
  if (!error) fill(&h, l);
  free(h.rims);
  components_close(&h.background);
  return error;
}

static status fill_holes_labels(const void *attrs, labels *l) {
  const fill_holes_attrs *a = attrs;
  return fill_holes(&a->chosen, l);
}

const op op_fill_holes = {
    .name = "fill_holes",
    .family = "postprocess",
    .summary = "Background that a class encloses becomes that class.",
    .doc =
        "A hole is background whose voxels are connected by their faces, which does not reach the\n"
        "border of the volume and which touches nothing but one class (or, with `together`, several\n"
        "of the classes), by faces too.",
    .torch = "monai.transforms.FillHoles(applied_labels=classes, connectivity=1)",
    .version = 1,
    .traits = OP_POSTPROCESS,
    .attrs = fill_holes_attr_list,
    .attrs_bytes = sizeof(fill_holes_attrs),
    .labels = fill_holes_labels,
};
