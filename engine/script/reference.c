/* The tables of script/api.h for people: `strata lua`, and the reference in docs/lua.md. */
#include "base/table.h"
#include "base/text.h"
#include "script/api.h"

#include <string.h>

enum { NAMES_COMPARED = 512 };

static bool is_function(const script_entry *e) {
  return e->signature[0] == '(';
}

static void add_kinds(text_buffer *list, unsigned kinds, const char *quote) {
  bool any = false;
  for (int k = 0; k < SCRIPT_KIND_COUNT; k++) {
    if (!(kinds & SCRIPT_BIT(k))) continue;
    text_add(list, "%s%s%s%s", any ? ", " : "", quote, script_kinds[k].name, quote);
    any = true;
  }
}

/* "in every script", "in schedule, on_epoch_end" */
static void add_place(text_buffer *out, unsigned kinds, const char *quote) {
  text_add(out, "in ");
  if (kinds == SCRIPT_ALL)
    text_add(out, "every script");
  else
    add_kinds(out, kinds, quote);
}

/* ---- as text ------------------------------------------------------------------------------- */

static void print_call(const script_group *g, const script_entry *e, FILE *out) {
  enum { COLUMN = 40 };
  text_buffer call = {0};
  text_add(&call, "%s%s%s%s", g->prefix, e->name, is_function(e) ? "" : ": ", e->signature);
  int pad = COLUMN - text_columns(call.data);
  fprintf(out, "  %s%*s  %s\n", call.data, pad > 0 ? pad : 0, "", e->doc);
  text_free(&call);
}

static void explain_group(const script_group *g, FILE *out) {
  text_buffer place = {0};
  add_place(&place, g->kinds, "");
  fprintf(out, "%s (%s)\n  %s\n\n", g->name, place.data, g->doc);
  for (const script_entry *e = g->entries; e->name; e++) print_call(g, e, out);
  text_free(&place);
}

static void explain_entry(const script_group *g, const script_entry *e, FILE *out) {
  text_buffer place = {0};
  add_place(&place, script_entry_kinds(g, e), "");
  fprintf(out, "%s%s%s%s\n  %s\n  %s\n", g->prefix, e->name, is_function(e) ? "" : ": ",
          e->signature, e->doc, place.data);
  text_free(&place);
}

static void explain_kind(int k, FILE *out) {
  const script_kind_info *info = &script_kinds[k];
  fprintf(out, "%s\n  %s\n  %s\n  %s\n", info->name, info->key, info->result, info->doc);
}

/* What a kind has of its own, and the names of what every script has. */
static void explain_kind_fully(int k, FILE *out) {
  explain_kind(k, out);
  fputs("\n", out);
  for (int i = 0; i < script_group_count(); i++) {
    const script_group *g = script_group_at(i);
    if (g->kinds == SCRIPT_ALL) continue;
    for (const script_entry *e = g->entries; e->name; e++)
      if (script_entry_kinds(g, e) & SCRIPT_BIT(k)) print_call(g, e, out);
  }
}

static status unknown_name(const char *name) {
  const char *names[NAMES_COMPARED];
  char room[NAMES_COMPARED][48];
  int count = 0;
  for (int k = 0; k < SCRIPT_KIND_COUNT; k++) names[count++] = script_kinds[k].name;
  for (int i = 0; i < script_group_count(); i++) {
    const script_group *g = script_group_at(i);
    if (count < NAMES_COMPARED) names[count++] = g->name;
    for (const script_entry *e = g->entries; e->name && count < NAMES_COMPARED; e++) {
      snprintf(room[count], sizeof room[count], "%s%s", g->prefix, e->name);
      names[count] = room[count];
      count++;
    }
  }
  const char *near = nearest_name(name, names, count);
  return error_new(ERROR_USAGE, NOWHERE, "scripts have no \"%s\"%s%s%s", name,
                   near ? "; did you mean \"" : " (strata lua lists everything)", near ? near : "",
                   near ? "\"?" : "");
}

status script_explain(const char *name, FILE *out) {
  if (!name) {
    for (int k = 0; k < SCRIPT_KIND_COUNT; k++) explain_kind(k, out);
    for (int i = 0; i < script_group_count(); i++) {
      fputs("\n", out);
      explain_group(script_group_at(i), out);
    }
    return OK;
  }
  for (int k = 0; k < SCRIPT_KIND_COUNT; k++)
    if (strcmp(script_kinds[k].name, name) == 0) {
      explain_kind_fully(k, out);
      return OK;
    }
  for (int i = 0; i < script_group_count(); i++)
    if (strcmp(script_group_at(i)->name, name) == 0) {
      explain_group(script_group_at(i), out);
      return OK;
    }
  const script_group *g;
  const script_entry *e = script_entry_find(name, &g);
  if (!e) return unknown_name(name);
  explain_entry(g, e, out);
  return OK;
}

/* ---- as Markdown --------------------------------------------------------------------------- */

/* A bar would end the cell. */
static void markdown_cell(const char *text, FILE *out) {
  for (; *text; text++) {
    if (*text == '|') fputc('\\', out);
    fputc(*text, out);
  }
}

static void reference_group(const script_group *g, FILE *out) {
  text_buffer place = {0};
  add_place(&place, g->kinds, "`");
  fprintf(out, "\n### %s\n\n%s Available %s.\n\n| | |\n|---|---|\n", g->name, g->doc, place.data);
  for (const script_entry *e = g->entries; e->name; e++) {
    fprintf(out, "| `%s%s", g->prefix, e->name);
    if (is_function(e))
      markdown_cell(e->signature, out);
    else
      fprintf(out, "` (%s)", e->signature);
    fputs(is_function(e) ? "` | " : " | ", out);
    markdown_cell(e->doc, out);
    if (e->kinds && e->kinds != g->kinds) {
      text_buffer only = {0};
      add_kinds(&only, e->kinds, "`");
      fprintf(out, "; only in %s", only.data);
      text_free(&only);
    }
    fputs(" |\n", out);
  }
  text_free(&place);
}

void script_reference(FILE *out) {
  fputs("| script | in the file | it returns | |\n|---|---|---|---|\n", out);
  for (int k = 0; k < SCRIPT_KIND_COUNT; k++) {
    const script_kind_info *info = &script_kinds[k];
    fprintf(out, "| %s | `%s` | `%s` | %s |\n", info->name, info->key, info->result, info->doc);
  }
  for (int i = 0; i < script_group_count(); i++) reference_group(script_group_at(i), out);
}
