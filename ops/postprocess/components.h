/* Connected components of the classes of a segmentation. */
#ifndef STRATA_POSTPROCESS_COMPONENTS_H
#define STRATA_POSTPROCESS_COMPONENTS_H

#include "data/label.h"
#include "data/volume.h"
#include "graph/op.h"

/* Which classes an operator changes, by attributes that all of them have. */
typedef struct chosen_classes {
  int_list classes; /* none: every class but the background */
  bool together;
} chosen_classes;

#define CHOSEN_CLASSES(attrs, together_doc)                                                        \
  {"classes",                                                                                      \
   ATTR_INTS,                                                                                      \
   offsetof(attrs, chosen.classes),                                                                \
   "[]",                                                                                           \
   1,                                                                                              \
   LABEL_CLASSES - 1,                                                                              \
   NULL,                                                                                           \
   0,                                                                                              \
   "numbers of the classes it looks at; none: every class but the background"},                    \
  {                                                                                                \
    "together", ATTR_BOOL, offsetof(attrs, chosen.together), "false", 0, 0, NULL, 0, together_doc  \
  }

/* The structure that each class belongs to: 0 is none. A class is a structure of its own, or all of them
 * are one. */
void structures_of(const chosen_classes *chosen, uint8_t structure[LABEL_VALUES]);

/* A row of voxels of one structure along z. Runs are far fewer than voxels, and memory goes with them. */
typedef struct component_run {
  int64_t from, to; /* z, without `to` */
  int64_t parent;   /* a run of the same component, not after this one; itself for the first */
  int64_t voxels;   /* of the component, where the run is its first */
  uint8_t structure;
} component_run;

typedef struct components {
  component_run *list; /* in the order of their voxels */
  int64_t count, capacity;
  int64_t *first; /* of each row (x, y), and the end */
} components;

typedef enum connectivity {
  BY_FACES,  /* 6 neighbours */
  BY_CORNERS /* 26: voxels that share a face, an edge or a corner */
} connectivity;

/* Finds the components of every structure; close them when it is OK. */
status components_open(const labels *l, const uint8_t structure[LABEL_VALUES], connectivity touch,
                       components *out);
void components_close(components *c);
/* The first run of the component that run `r` belongs to. */
int64_t component_of(components *c, int64_t r);
/* What the chosen classes enclose becomes theirs; see fill_holes.c. */
status fill_holes(const chosen_classes *chosen, labels *l);
/* Gives the voxels of components whose first run has no voxels any more another class. */
void components_replace(components *c, labels *l, uint8_t class);

#endif
