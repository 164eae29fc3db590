/* The built-in font: glyphs of 5×9 pixels on a 6×11 cell, seven rows above the base line, two below. */
#ifndef STRATA_VIEW_FONT_H
#define STRATA_VIEW_FONT_H

#include <stdint.h>

enum { GLYPH_WIDTH = 5, GLYPH_HEIGHT = 9 };

/* Rows of the glyph of a Unicode character, separated by spaces, '#' = ink; rows that are not there are
 * blank. Never NULL: characters without a glyph have a box. */
const char *font_glyph(uint32_t character);

/* The next character of UTF-8 text; *text moves on. Bytes that are not UTF-8 count as U+FFFD. */
uint32_t utf8_next(const char **text);

#endif
