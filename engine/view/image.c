#include "view/image.h"

#include "view/font.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

status image_create(image *out, int width, int height, colour fill) {
  *out = (image){0};
  if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
      (int64_t)width * height > IMAGE_MAX_PIXELS)
    return error_new(
        ERROR_USAGE, NOWHERE,
        "a picture of %d×%d pixels is outside 1×1 to %d×%d; show fewer or smaller parts", width,
        height, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
  size_t pixels = (size_t)width * (size_t)height;
  uint8_t *rgba = malloc(4 * pixels);
  if (!rgba) return error_out_of_memory(4 * pixels);
  for (size_t p = 0; p < pixels; p++) memcpy(rgba + 4 * p, &fill, 4);
  *out = (image){width, height, rgba};
  return OK;
}

void image_free(image *i) {
  free(i->rgba);
  *i = (image){0};
}

/* ---- drawing -------------------------------------------------------------------------------- */

/* c over the pixel (Porter and Duff, 1984). */
static void blend(uint8_t *pixel, colour c) {
  if (c.a == 255 || pixel[3] == 0) {
    memcpy(pixel, &c, 4);
    return;
  }
  const uint8_t over[3] = {c.r, c.g, c.b};
  int below = pixel[3] * (255 - c.a); /* both shares times 255 */
  int alpha = c.a * 255 + below;
  if (alpha == 0) return;
  for (int k = 0; k < 3; k++)
    pixel[k] = (uint8_t)((over[k] * c.a * 255 + pixel[k] * below + alpha / 2) / alpha);
  pixel[3] = (uint8_t)((alpha + 127) / 255);
}

void image_put(image *i, int x, int y, colour c) {
  if (x < 0 || y < 0 || x >= i->width || y >= i->height) return;
  blend(i->rgba + 4 * ((size_t)y * (size_t)i->width + (size_t)x), c);
}

void image_rectangle(image *i, int x, int y, int width, int height, colour c) {
  for (int v = y < 0 ? 0 : y; v < y + height && v < i->height; v++)
    for (int u = x < 0 ? 0 : x; u < x + width && u < i->width; u++) image_put(i, u, v, c);
}

void image_blit(image *onto, const image *what, int x, int y) {
  int from = x < 0 ? -x : 0, to = what->width < onto->width - x ? what->width : onto->width - x;
  for (int v = y < 0 ? -y : 0; v < what->height && y + v < onto->height; v++) {
    const uint8_t *pixel = what->rgba + 4 * ((size_t)v * (size_t)what->width + (size_t)from);
    uint8_t *below = onto->rgba + 4 * ((size_t)(y + v) * (size_t)onto->width + (size_t)(x + from));
    for (int u = from; u < to; u++, pixel += 4, below += 4) {
      colour c;
      memcpy(&c, pixel, 4);
      blend(below, c);
    }
  }
}

/* ---- text ----------------------------------------------------------------------------------- */

static void draw_glyph(image *i, int x, int y, int size, colour c, const char *rows) {
  int column = 0;
  for (; *rows; rows++) {
    if (*rows == ' ') {
      y += size;
      column = 0;
    } else {
      if (*rows == '#') image_rectangle(i, x + column * size, y, size, size, c);
      column++;
    }
  }
}

void image_text(image *i, int x, int y, int size, colour c, const char *text) {
  for (int left = x; *text;) {
    uint32_t character = utf8_next(&text);
    if (character == '\n') {
      x = left;
      y += FONT_HEIGHT * size;
      continue;
    }
    draw_glyph(i, x, y + size, size, c, font_glyph(character));
    x += FONT_WIDTH * size;
  }
}

void image_text_size(const char *text, int size, int *width, int *height) {
  int longest = 0, line = 0, lines = *text ? 1 : 0;
  while (*text) {
    if (utf8_next(&text) == '\n') {
      line = 0;
      lines++;
    } else if (++line > longest) {
      longest = line;
    }
  }
  *width = longest * FONT_WIDTH * size;
  *height = lines * FONT_HEIGHT * size;
}

/* ---- contact sheets ------------------------------------------------------------------------- */

/* The caption in lines of at most `columns` characters, broken at spaces where there are any. */
static void wrap(const char *caption, int columns, text_buffer *out) {
  int used = 0;
  text_append(out, "", 0);
  for (const char *word = caption; *word;) {
    const char *end = word;
    int length = 0;
    while (*end && *end != ' ' && *end != '\n') {
      utf8_next(&end);
      length++;
    }
    if (used > 0 && used + 1 + length > columns) {
      text_append(out, "\n", 1);
      used = 0;
    }
    if (used > 0) text_append(out, " ", 1);
    used += (used > 0) + length;
    while (word < end && length > columns && columns > 0) { /* a word that is too long */
      const char *part = word;
      for (int k = 0; k < columns; k++) utf8_next(&part);
      text_append(out, word, (size_t)(part - word));
      text_append(out, "\n", 1);
      length -= columns;
      used = length;
      word = part;
    }
    text_append(out, word, (size_t)(end - word));
    if (*end == '\n') {
      text_append(out, "\n", 1);
      used = 0;
    }
    word = *end ? end + 1 : end;
  }
}

/* Where the columns and rows of a sheet begin, and its captions in lines. */
typedef struct sheet_layout {
  int columns, rows;
  int *width, *caption_height, *picture_height; /* of columns; of rows */
  text_buffer *captions;                        /* of cells */
  int total_width, total_height, title_height;
} sheet_layout;

static void layout_free(sheet_layout *l, int count) {
  for (int k = 0; l->captions && k < count; k++) text_free(&l->captions[k]);
  free(l->captions);
  free(l->width);
  free(l->caption_height);
  free(l->picture_height);
}

enum {
  CAPTION_MIN_COLUMNS = 12
}; /* characters a column has room for at least when it has captions */

static int larger(int a, int b) {
  return a > b ? a : b;
}

static status layout_open(const sheet_cell *cells, int count, const sheet_style *style,
                          sheet_layout *l) {
  *l = (sheet_layout){.columns = style->columns < count ? style->columns : count};
  l->rows = (count + l->columns - 1) / l->columns;
  l->width = calloc((size_t)l->columns, sizeof(int));
  l->caption_height = calloc((size_t)l->rows, sizeof(int));
  l->picture_height = calloc((size_t)l->rows, sizeof(int));
  l->captions = calloc((size_t)count, sizeof *l->captions);
  if (!l->width || !l->caption_height || !l->picture_height || !l->captions)
    return error_out_of_memory((size_t)count * sizeof *l->captions);
  int letter = FONT_WIDTH * style->text_size;
  for (int k = 0; k < count; k++) {
    int *width = &l->width[k % l->columns], *height = &l->picture_height[k / l->columns];
    if (cells[k].picture) *width = larger(*width, cells[k].picture->width);
    if (cells[k].picture) *height = larger(*height, cells[k].picture->height);
    if (cells[k].caption) *width = larger(*width, CAPTION_MIN_COLUMNS * letter);
  }
  for (int k = 0; k < count; k++) {
    if (!cells[k].caption) continue;
    wrap(cells[k].caption, l->width[k % l->columns] / letter, &l->captions[k]);
    int width, height, *row = &l->caption_height[k / l->columns];
    image_text_size(l->captions[k].data, style->text_size, &width, &height);
    *row = larger(*row, height + 2 * style->text_size);
  }
  int64_t across = style->gap, down = style->gap;
  for (int c = 0; c < l->columns; c++) across += l->width[c] + style->gap;
  for (int r = 0; r < l->rows; r++)
    down += l->caption_height[r] + l->picture_height[r] + style->gap;
  if (style->title) {
    int width, height;
    image_text_size(style->title, style->text_size + 1, &width, &height);
    l->title_height = height + style->gap;
    across = across > width + 2 * style->gap ? across : width + 2 * style->gap;
    down += l->title_height;
  }
  /* image_create refuses what is too large. */
  l->total_width = across > IMAGE_MAX_SIDE ? IMAGE_MAX_SIDE + 1 : (int)across;
  l->total_height = down > IMAGE_MAX_SIDE ? IMAGE_MAX_SIDE + 1 : (int)down;
  return OK;
}

static void sheet_draw(const sheet_cell *cells, int count, const sheet_style *style,
                       const sheet_layout *l, image *out) {
  if (style->title)
    image_text(out, style->gap, style->gap, style->text_size + 1, style->ink, style->title);
  int y = style->gap + l->title_height;
  for (int r = 0; r < l->rows; r++) {
    int x = style->gap;
    for (int c = 0; c < l->columns && r * l->columns + c < count; c++) {
      int k = r * l->columns + c;
      if (l->captions[k].data)
        image_text(out, x, y, style->text_size, style->ink, l->captions[k].data);
      if (cells[k].picture) image_blit(out, cells[k].picture, x, y + l->caption_height[r]);
      x += l->width[c] + style->gap;
    }
    y += l->caption_height[r] + l->picture_height[r] + style->gap;
  }
}

status image_sheet(const sheet_cell *cells, int count, const sheet_style *style, image *out) {
  if (count < 1 || style->columns < 1 || style->text_size < 1 || style->gap < 0)
    return error_new(ERROR_INTERNAL, NOWHERE, "a contact sheet without cells or columns");
  sheet_layout l;
  status error = layout_open(cells, count, style, &l);
  if (!error) error = image_create(out, l.total_width, l.total_height, style->ground);
  if (!error) sheet_draw(cells, count, style, &l, out);
  layout_free(&l, count);
  return error;
}

/* ---- colours of classes --------------------------------------------------------------------- */

/* The first seven are those of Okabe and Ito (2008). Each of the others is, of a grid of saturated
 * colours light enough to be seen on black, the one farthest from all before it: in CIE L*a*b*, the
 * least of the distances with normal vision and as protanopes and deuteranopes see them (Machado et
 * al., 2009). No two are nearer than 14.8. */
colour class_colour(int32_t class) {
  static const uint8_t palette[PALETTE_SIZE][3] = {
      {230, 159, 0},   {86, 180, 233},  {0, 158, 115},   {240, 228, 66},  {204, 121, 167},
      {213, 94, 0},    {0, 114, 178},   {119, 68, 255},  {136, 255, 170}, {136, 255, 255},
      {221, 0, 68},    {102, 136, 255}, {238, 170, 102}, {255, 255, 136}, {51, 221, 170},
      {102, 204, 221}, {255, 85, 119},  {136, 255, 221}, {204, 0, 170},   {255, 51, 68}};
  if (class <= 0) return COLOUR_CLEAR;
  const uint8_t *c = palette[(class - 1) % PALETTE_SIZE];
  return (colour){c[0], c[1], c[2], 255};
}

colour unknown_colour(int x, int y) {
  enum { EVERY = 7, ALPHA = 150 };
  int line = (x + y) % EVERY;
  uint8_t grey = line == 0 ? 235 : 40;
  return line < 2 ? (colour){grey, grey, grey, ALPHA} : COLOUR_CLEAR;
}

void image_unknown(image *onto, int x, int y, int side) {
  image_rectangle(onto, x, y, side, side, (colour){150, 150, 150, 255});
  for (int k = 0; k < side * side; k++)
    image_put(onto, x + k % side, y + k / side, unknown_colour(k % side, k / side));
}
