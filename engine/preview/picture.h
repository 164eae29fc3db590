/* The edges of a trace as pictures: a contact sheet, or a page. */
#ifndef STRATA_PREVIEW_PICTURE_H
#define STRATA_PREVIEW_PICTURE_H

#include "preview/trace.h"
#include "view/image.h"
#include "view/slice.h"

typedef struct preview_cell {
  preview_graph graph;
  int crop;
  char *heading; /* "masked = mask_patches(size: 16)"; heap */
  char *caption; /* size, spacing, values, classes; heap */
  image picture; /* three planes side by side, a row for each channel; rgba NULL: none */
} preview_cell;

typedef struct preview_album {
  const char *const *class_names; /* borrowed: for the legend of the contours; [0] background */
  int class_count;
  bool has_unknown; /* the data set has an ignore label: it stands in the legend */
  preview_cell *cells;
  int count, capacity;
  int crops;
  grey_window window[4]; /* of the prepared case's channels: for everything after */
  double focus_mm[3];    /* what the pictures of the prepare graph show */
  bool has_focus;
} preview_album;

/* A preview_visit whose context is an album: adds a cell. Cases are shown as the patient lies, through the
 * middle of what is labelled; crops in their voxel axes, through their middle, so that flips and turns are
 * seen. */
status preview_add(void *album, const preview_edge *edge);
void preview_free(preview_album *a);

/* One picture: a sheet for each graph, one below the other, a row an operator and a column a draw. */
status preview_sheet(const preview_album *a, const char *title, image *out);
/* One self-contained page of HTML. */
status preview_page(const preview_album *a, const char *title, text_buffer *out);

#endif
