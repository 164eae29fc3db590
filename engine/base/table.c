#include "base/table.h"

#include "base/memory.h"
#include "base/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- text on a terminal ---------------------------------------------------------------------- */

/* Next code point of UTF-8 text, at least one byte on; U+FFFD for what is not UTF-8. */
static uint32_t next_code_point(const char **text) {
  const unsigned char *p = (const unsigned char *)*text;
  int length = p[0] < 0x80 ? 1 : p[0] >= 0xF0 && p[0] < 0xF8 ? 4 : p[0] >= 0xE0 ? 3 : 2;
  uint32_t point = length == 1 ? p[0] : p[0] & (0xFFu >> (length + 1));
  bool valid = p[0] < 0x80 || (p[0] >= 0xC2 && p[0] < 0xF8);
  int used = 1;
  for (; valid && used < length && (p[used] & 0xC0) == 0x80; used++)
    point = point << 6 | (p[used] & 0x3F);
  *text += used;
  return valid && used == length ? point : 0xFFFD;
}

/* Columns a terminal gives a character: none to combining marks, two to East Asian wide ones. */
static int columns_of(uint32_t c) {
  if ((c >= 0x300 && c <= 0x36F) || c == 0x200B || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F))
    return 0;
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) ||
      (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
      (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
      (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1FAFF) ||
      (c >= 0x20000 && c <= 0x3FFFD))
    return 2;
  return 1;
}

int text_columns(const char *text) {
  int columns = 0;
  while (*text) columns += columns_of(next_code_point(&text));
  return columns;
}

static bool is_control(uint32_t c) {
  return c < 32 || (c >= 0x7F && c < 0xA0);
}

void print_cell(FILE *out, const char *text, int width, bool right) {
  int padding = width - text_columns(text);
  if (right && padding > 0) fprintf(out, "%*s", padding, "");
  while (*text) {
    const char *start = text;
    uint32_t c = next_code_point(&text);
    if (is_control(c))
      fputc('?', out);
    else if (c == 0xFFFD)
      fputs("\xEF\xBF\xBD", out);
    else
      fwrite(start, 1, (size_t)(text - start), out);
  }
  if (!right && padding > 0) fprintf(out, "%*s", padding, "");
}

void csv_text(FILE *out, const char *text) {
  if (!strpbrk(text, ",\"\r\n")) {
    fputs(text, out);
    return;
  }
  fputc('"', out);
  for (; *text; text++) {
    if (*text == '"') fputc('"', out);
    fputc(*text, out);
  }
  fputc('"', out);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void push(table *t, char *text) {
  if (t->count == t->capacity) {
    t->capacity = t->capacity > 0 ? 2 * t->capacity : 64;
    t->cells = memory_resize(t->cells, (size_t)t->capacity * sizeof *t->cells);
  }
  t->cells[t->count++] = text;
}

void table_column(table *t, const char *heading, bool right) {
  t->right = memory_resize(t->right, (size_t)(t->columns + 1) * sizeof *t->right);
  t->right[t->columns++] = right;
  push(t, memory_strdup(heading));
}

void table_cell(table *t, const char *format, ...) {
  text_buffer text = {0};
  va_list args;
  va_start(args, format);
  text_addv(&text, format, args);
  va_end(args);
  push(t, text.data);
}

int table_rows(const table *t) {
  return t->columns > 0 ? t->count / t->columns - 1 : 0;
}

static const char *cell_at(const table *t, int row, int column) {
  int i = row * t->columns + column;
  return i < t->count && t->cells[i] ? t->cells[i] : "";
}

static int column_width(const table *t, int column) {
  int width = 0;
  for (int row = 0; row <= table_rows(t); row++) {
    int columns = text_columns(cell_at(t, row, column));
    if (columns > width) width = columns;
  }
  return width;
}

void table_print(const table *t, FILE *out) {
  for (int row = 0; row <= table_rows(t); row++)
    for (int c = 0; c < t->columns; c++) {
      bool is_last = c + 1 == t->columns;
      int width = is_last && !t->right[c] ? 0 : column_width(t, c);
      print_cell(out, cell_at(t, row, c), width, t->right[c]);
      fputs(is_last ? "\n" : "  ", out);
    }
}

/* A pipe would end the cell and a new line the row. */
static void markdown_text(FILE *out, const char *text) {
  for (; *text; text++) {
    if (*text == '|' || *text == '\\') fputc('\\', out);
    fputc(*text == '\n' || *text == '\r' ? ' ' : *text, out);
  }
}

void table_markdown(const table *t, FILE *out) {
  for (int row = 0; row <= table_rows(t); row++) {
    for (int c = 0; c < t->columns; c++) {
      fputs("| ", out);
      markdown_text(out, cell_at(t, row, c));
      fputc(' ', out);
    }
    fputs("|\n", out);
    for (int c = 0; row == 0 && c < t->columns; c++)
      fprintf(out, "%s%s", t->right[c] ? "|---:" : "|---", c + 1 == t->columns ? "|\n" : "");
  }
}

void table_csv(const table *t, FILE *out) {
  for (int row = 0; row <= table_rows(t); row++)
    for (int c = 0; c < t->columns; c++) {
      csv_text(out, cell_at(t, row, c));
      fputc(c + 1 == t->columns ? '\n' : ',', out);
    }
}

void table_free(table *t) {
  for (int i = 0; i < t->count; i++) free(t->cells[i]);
  free(t->cells);
  free(t->right);
  *t = (table){0};
}
