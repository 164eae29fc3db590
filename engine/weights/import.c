#include "weights/import.h"

#include "base/arena.h"
#include "base/zip.h"
#include "weights/names.h"
#include "weights/pytorch.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static status read_beginning(const char *path, unsigned char out[16], size_t *length) {
  if (path_is_packed(path, NULL)) {
    file_map map;
    TRY(weights_refused(path, file_map_open(path, &map)));
    *length = map.bytes < 16 ? map.bytes : 16;
    memcpy(out, map.data, *length);
    file_map_close(&map);
    return OK;
  }
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return error_from_errno("open", path);
  ssize_t got = pread(fd, out, 16, 0);
  close(fd);
  *length = got > 0 ? (size_t)got : 0; /* what is no file is refused by its reader */
  return OK;
}

status weights_open(const char *path, const char *key, weights *out, const reporter *report) {
  *out = (weights){0};
  unsigned char beginning[16];
  size_t length = 0;
  TRY(read_beginning(path, beginning, &length));
  if (zip_is_archive(beginning, length)) return pytorch_read(path, key, out, report);
  if (pytorch_is_legacy(beginning, length)) return weights_refused(path, pytorch_legacy_refused());
  if (key)
    return error_new(ERROR_USAGE, NOWHERE,
                     "%s is no PyTorch file, so there is no \"%s\" to choose in it", path, key);
  return weights_read(path, out);
}

static bool is_weight(const named_tensor *t) {
  return t->tensor.dtype == DTYPE_F32;
}

static status choose_names(const weight_source *source, const weights *w, const char *const *names,
                           arena *memory, const char **become, const reporter *report) {
  if (source->map) {
    const name_rules *rules;
    TRY(name_rules_load(memory, source->map, &rules));
    return name_rules_apply(rules, names, w->count, memory, become);
  }
  /* Counters beside the weights, as torch.optim.swa_utils.AveragedModel has one, are left out. */
  const char **weights_alone = arena_alloc(memory, ((size_t)w->count + 1) * sizeof *weights_alone);
  int count = 0;
  for (int i = 0; i < w->count; i++)
    if (is_weight(&w->list[i])) weights_alone[count++] = names[i];
  size_t wrapper = names_common_wrapper(weights_alone, count);
  for (int i = 0; i < w->count; i++)
    become[i] = is_weight(&w->list[i]) ? names[i] + wrapper : names[i];
  if (wrapper)
    report_line(report, "all names begin with \"%.*s\", which is taken off", (int)wrapper,
                weights_alone[0]);
  return OK;
}

static status rename_all(const weight_source *source, weights *w, arena *memory,
                         const reporter *report) {
  const char **names = arena_alloc(memory, ((size_t)w->count + 1) * sizeof *names);
  const char **become = arena_alloc(memory, ((size_t)w->count + 1) * sizeof *become);
  for (int i = 0; i < w->count; i++) names[i] = w->list[i].name;
  TRY(choose_names(source, w, names, memory, become, report));
  for (int i = 0; i < w->count; i++) {
    char text[96];
    const tensor *t = &w->list[i].tensor;
    shape_format(text, &t->shape);
    if (!become[i]) {
      report_line(report, "  dropped  %-52s %s", names[i], text);
    } else if (!is_weight(&w->list[i])) {
      report_line(report, "  integer  %-52s %s, left out", names[i], text);
      become[i] = NULL;
    } else if (source->map && strcmp(names[i], become[i]) != 0) {
      report_line(report, "  renamed  %-52s %s", names[i], become[i]);
    }
  }
  TRY(weights_rename(w, become));
  if (w->count == 0) return error_new(ERROR_DATA, NOWHERE, "no tensor is left to import");
  return OK;
}

status weights_import(const weight_source *source, weights *out, const reporter *report) {
  arena memory = {0};
  TRY(weights_open(source->path, source->key, out, report));
  status error = rename_all(source, out, &memory, report);
  if (error_position(error).line == 0) error = error_prefix(error, "%s", source->path);
  if (error) weights_close(out);
  arena_free(&memory);
  return error;
}
