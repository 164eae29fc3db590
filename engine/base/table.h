/* Tables of texts: aligned for a terminal, as Markdown, as CSV. */
#ifndef STRATA_BASE_TABLE_H
#define STRATA_BASE_TABLE_H

#include <stdbool.h>
#include <stdio.h>

/* Columns a terminal gives to UTF-8 text. */
int text_columns(const char *text);
/* Text padded to `width` columns. Bytes that would move the cursor are shown as '?'. */
void print_cell(FILE *out, const char *text, int width, bool right);
/* A field of a CSV file (RFC 4180): in quotes, and quotes doubled, where the text needs it. */
void csv_text(FILE *out, const char *text);

/* A heading for each column, then rows of cells. Zero-initialise; heap-owned. Where memory runs out,
 * cells stay empty. */
typedef struct table {
  char **cells; /* row by row, the headings first; NULL is empty */
  bool *right;  /* of each column: aligned to the right, as numbers are */
  int columns, count, capacity;
} table;

/* Columns are added before the first cell. */
void table_column(table *t, const char *heading, bool right);
/* The next cell of the row, or the first of the next row. */
void table_cell(table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
int table_rows(const table *t);
void table_print(const table *t, FILE *out);
void table_markdown(const table *t, FILE *out);
void table_csv(const table *t, FILE *out);
void table_free(table *t);

#endif
