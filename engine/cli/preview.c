/* preview: what the transforms do to a case, as a picture. */
#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/opened.h"
#include "preview/picture.h"

#include <stdlib.h>
#include <string.h>

enum { CROPS_DEFAULT = 3, CROPS_MAX = 32 };

/* The case called `name`; NULL: the first that trains. */
static status choose_case(const opened *o, const char *name, const case_entry **out) {
  const dataset *d = o->data;
  *out = NULL;
  for (int i = 0; i < d->case_count && !*out; i++)
    if (name ? strcmp(d->cases[i].name, name) == 0 : d->cases[i].role == ROLE_TRAIN)
      *out = &d->cases[i];
  if (*out) return OK;
  const char **names = memory_take((size_t)d->case_count * sizeof *names);
  for (int i = 0; i < d->case_count; i++) names[i] = d->cases[i].name;
  const char *near = name ? nearest_name(name, names, d->case_count) : NULL;
  free(names);
  return error_new(ERROR_USAGE, NOWHERE, "%s has no case \"%s\"%s%s%s", d->name, name ? name : "",
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static status write_album(const preview_album *album, const char *title, const char *path) {
  if (text_ends_with(path, ".html")) {
    text_buffer page = {0};
    status error = preview_page(album, title, &page);
    if (!error) error = file_write_atomic(path, page.data, page.length);
    text_free(&page);
    return error;
  }
  image sheet;
  TRY(preview_sheet(album, title, &sheet));
  status error = png_write(&sheet, path);
  image_free(&sheet);
  return error;
}

static void say_what_is_shown(const case_entry *entry, const char *stage, const char *path) {
  static const char *const roles[] = {"train", "validation", "test", "no role"};
  printf("%s: case %s (%s), stage %s\n", path, entry->name, roles[entry->role], stage);
  if (entry->role != ROLE_TRAIN)
    printf("note: the case does not train, so training never makes these crops\n");
  if (entry->is_label_withheld) printf("note: data.label_fraction withholds the case's label\n");
}

static status preview_opened(opened *o, const arguments *a) {
  const stage_spec *s;
  const case_entry *entry;
  int64_t epoch = a->epoch >= 0 ? a->epoch : 1, crops = a->crops >= 0 ? a->crops : CROPS_DEFAULT;
  char title[512], standard[300];
  TRY(choose_stage(o, a->stage, &s));
  TRY(choose_case(o, a->case_name, &entry));
  if (crops < 1 || crops > CROPS_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "--crops takes a number from 1 to %d, not %lld",
                     CROPS_MAX, (long long)crops);
  if (epoch < 1 || epoch > s->epochs)
    return error_new(ERROR_USAGE, NOWHERE, "stage %s has the epochs 1 to %lld, not %lld", s->name,
                     (long long)s->epochs, (long long)epoch);
  snprintf(standard, sizeof standard, "preview-%.200s.png", entry->name);
  const char *path = a->out ? a->out : standard;
  if (!text_ends_with(path, ".png") && !text_ends_with(path, ".html"))
    return error_new(ERROR_USAGE, NOWHERE, "%s: the result is a .png or an .html file", path);
  preview_album album = {.class_names = (const char *const *)o->data->class_names,
                         .class_count = o->data->class_count,
                         .has_unknown = o->data->ignore_label != 0};
  preview_options options = {.p = o->p,
                             .data = o->data,
                             .device = o->device,
                             .entry = entry,
                             .stage = s,
                             .epoch = epoch - 1,
                             .crops = (int)crops,
                             .visit = preview_add,
                             .context = &album};
  snprintf(title, sizeof title, "%s: case %s, stage %s, epoch %lld, seed %llu", o->p->name,
           entry->name, s->name, (long long)epoch, (unsigned long long)o->p->seed);
  status error = preview_trace(&options);
  if (!error) error = write_album(&album, title, path);
  preview_free(&album);
  if (!error) say_what_is_shown(entry, s->name, path);
  return error;
}

status command_preview(const arguments *a) {
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) error = preview_opened(&o, a);
  close_pipeline(&o);
  return error;
}
