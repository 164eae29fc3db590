/* A small picture: 8-bit RGBA, drawn on by the report and the preview, written as PNG.
 *
 * Pixel (x, y) is four bytes at rgba[4·(y·width + x)], x to the right, y down. */
#ifndef STRATA_VIEW_IMAGE_H
#define STRATA_VIEW_IMAGE_H

#include "base/status.h"
#include "base/text.h"

#include <stdint.h>

typedef struct colour {
  uint8_t r, g, b, a; /* a: 0 transparent … 255 opaque */
} colour;

#define COLOUR_BLACK ((colour){0, 0, 0, 255})
#define COLOUR_WHITE ((colour){255, 255, 255, 255})
#define COLOUR_CLEAR ((colour){0, 0, 0, 0})

typedef struct image {
  int width, height;
  uint8_t *rgba; /* owned; NULL = no image */
} image;

enum { IMAGE_MAX_SIDE = 32768, IMAGE_MAX_PIXELS = 1 << 28 };

/* Filled with one colour. Sizes outside 1 … IMAGE_MAX_SIDE, or more pixels than IMAGE_MAX_PIXELS, are
 * an error. */
status image_create(image *out, int width, int height, colour fill);
void image_free(image *i);

/* ---- drawing: what lies outside is left out ------------------------------------------------- */

/* Puts c over the pixel: alpha is blended. */
void image_put(image *i, int x, int y, colour c);
void image_rectangle(image *i, int x, int y, int width, int height, colour c);
/* `what` over `onto`, its upper left corner at (x, y). */
void image_blit(image *onto, const image *what, int x, int y);

/* Text in the built-in font: cells of 6×11 pixels times `size` (1, 2, …). What is neither ASCII nor
 * one of a few signs (·, ×, °, ³, …) is drawn as a box. (x, y) is the upper left corner. '\n' begins
 * a line. */
enum { FONT_WIDTH = 6, FONT_HEIGHT = 11 };
void image_text(image *i, int x, int y, int size, colour c, const char *text);
/* Size in pixels that text takes. */
void image_text_size(const char *text, int size, int *width, int *height);

/* ---- contact sheets ------------------------------------------------------------------------- */

/* A cell of a contact sheet: a picture with a caption above it. Both may be missing. */
typedef struct sheet_cell {
  const image *picture;
  const char *caption; /* broken into lines as wide as the column */
} sheet_cell;

typedef struct sheet_style {
  int columns;
  int gap;       /* pixels between cells and around the sheet */
  int text_size; /* of captions */
  colour ground, ink;
  const char *title; /* above the cells; may be NULL */
} sheet_style;

/* Cells in rows of `columns`; a column is as wide as its widest picture, and at least twelve letters
 * when it has captions; a row is as high as its highest cell. */
status image_sheet(const sheet_cell *cells, int count, const sheet_style *style, image *out);

/* ---- colours of classes --------------------------------------------------------------------- */

/* Colours to tell classes apart on grey, with normal colour vision, protanopia and deuteranopia:
 * class 1 gets the first, and after PALETTE_SIZE classes they begin again. Class 0 is transparent. */
enum { PALETTE_SIZE = 20 };
colour class_colour(int32_t class);
/* Where the class is unknown: thin hatching, half transparent, dark beside light so that it shows on
 * any grey; at a pixel of the picture, and as a square of a legend. */
colour unknown_colour(int x, int y);
void image_unknown(image *onto, int x, int y, int side);

/* ---- PNG ------------------------------------------------------------------------------------ */

/* The smallest of the lossless forms: 1, 2, 4 or 8 bits of palette or grey, RGB, RGBA. Same image, same
 * bytes. *bytes is the caller's to free. */
status png_encode(const image *i, unsigned char **bytes, size_t *length);
/* Atomically. */
status png_write(const image *i, const char *path);
/* Adds "data:image/png;base64,…". */
status png_add_data_uri(const image *i, text_buffer *out);

#endif
