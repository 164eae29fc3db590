#include "cli/inputs.h"

#include "base/files.h"
#include "base/text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct listing {
  arena *memory;
  const data_spec *data;
  int64_t channels;
  case_entry *cases;
  int count, capacity;
} listing;

static size_t volume_ending(const char *name) {
  return text_ends_with(name, ".nii.gz") ? 7 : text_ends_with(name, ".nii") ? 4 : 0;
}

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* ---- files ------------------------------------------------------------------------------- */

/* The files of an image's channels with commas between them. */
static case_entry read_channels(arena *memory, const char *operand) {
  case_entry input = {.name = operand, .image = operand};
  if (!strchr(operand, ',') || file_exists(operand)) return input;
  const char **more = NULL;
  int capacity = 0;
  size_t length = strcspn(operand, ",");
  input.image = arena_strndup(memory, operand, length);
  for (const char *p = operand + length; *p == ','; p += 1 + length) {
    length = strcspn(p + 1, ",");
    const char *file = arena_strndup(memory, p + 1, length);
    ARENA_PUSH(memory, more, input.more_image_count, capacity, file);
  }
  input.more_images = more;
  return input;
}

/* ---- folders ----------------------------------------------------------------------------- */

static status list_volumes(arena *memory, const char *folder, const char ***names, int *count) {
  *names = NULL;
  *count = 0;
  int capacity = 0;
  DIR *stream = opendir(folder);
  if (!stream) return error_from_errno("open folder", folder);
  errno = 0;
  for (struct dirent *entry; (entry = readdir(stream)); errno = 0) {
    if (entry->d_name[0] == '.' || volume_ending(entry->d_name) == 0) continue;
    const char *name = arena_strdup(memory, entry->d_name);
    ARENA_PUSH(memory, *names, *count, capacity, name);
  }
  status error = errno ? error_from_errno("list folder", folder) : OK;
  closedir(stream);
  if (!error && *count == 0)
    error = error_new(ERROR_DATA, NOWHERE, "there is no .nii or .nii.gz file in %s", folder);
  if (*count > 1) qsort(*names, (size_t)*count, sizeof **names, by_text);
  return error;
}

/* The length of a file's name before nnU-Net's _0000; 0: it has none, and no channel. */
static size_t channel_of(const char *name, int64_t *channel) {
  size_t length = strlen(name) - volume_ending(name);
  if (length < 6 || name[length - 5] != '_') return 0;
  for (size_t i = length - 4; i < length; i++)
    if (!isdigit((unsigned char)name[i])) return 0;
  *channel = strtol(name + length - 4, NULL, 10);
  return length - 5;
}

/* `file`: another channel's of the case, whose name has `length` characters before the number. */
static char *channel_missing(arena *memory, const char *file, size_t length, int64_t channel) {
  const char *name = strrchr(file, '/') + 1;
  size_t before = (size_t)(name - file) + length, ending = strlen(file) - volume_ending(file);
  return arena_printf(memory, "%.*s_%04lld%s is missing", (int)before, file, (long long)channel,
                      file + ending);
}

static void refuse_case(const listing *l, const char *what, problems *found) {
  problems_add(found, error_new(ERROR_DATA, NOWHERE,
                                "%s: the run takes %lld channel%s a case, in nnU-Net's files "
                                "case_0000.nii.gz%s",
                                what, (long long)l->channels, l->channels == 1 ? "" : "s",
                                l->channels == 1 ? "" : ", case_0001.nii.gz …"));
}

/* Sorted by name, the channels of a case follow one another. names[*next] is the first. What is wrong with
 * a case is added to `found`. */
static void take_case(listing *l, const char *folder, const char *const *names, int count,
                      int *next, problems *found) {
  const char *first = names[*next], **more = NULL;
  case_entry input = {.image = arena_printf(l->memory, "%s/%s", folder, first)};
  input.name = input.image;
  int capacity = 0, problems_before = found->count;
  int64_t channel = -1, wanted = 0;
  size_t length = channel_of(first, &channel);
  if (length == 0) {
    (*next)++;
    refuse_case(l, arena_printf(l->memory, "%s has no channel's number", input.image), found);
    return;
  }
  for (; *next < count && channel_of(names[*next], &channel) == length &&
         strncmp(names[*next], first, length) == 0;
       (*next)++) {
    const char *file = arena_printf(l->memory, "%s/%s", folder, names[*next]);
    for (; wanted < channel && wanted < l->channels; wanted++)
      refuse_case(l, channel_missing(l->memory, input.image, length, wanted), found);
    if (channel >= l->channels)
      refuse_case(l, arena_printf(l->memory, "%s is a channel too many", file), found);
    else if (channel < wanted)
      refuse_case(l, arena_printf(l->memory, "%s is a channel that is there twice", file), found);
    else if (wanted++ > 0)
      ARENA_PUSH(l->memory, more, input.more_image_count, capacity, file);
  }
  for (; wanted < l->channels; wanted++)
    refuse_case(l, channel_missing(l->memory, input.image, length, wanted), found);
  input.more_images = more;
  if (found->count == problems_before)
    ARENA_PUSH(l->memory, l->cases, l->count, l->capacity, input);
}

static status add_folder(listing *l, const char *folder) {
  char *description = path_join(folder, "run.json");
  bool is_run = description && file_exists(description);
  free(description);
  if (is_run)
    return error_new(ERROR_USAGE, NOWHERE,
                     "%s is a run; those of an ensemble go with commas between them: "
                     "runs/fold0,runs/fold1",
                     folder);
  const char **names;
  int count;
  problems found = {0};
  TRY(list_volumes(l->memory, folder, &names, &count));
  for (int i = 0; i < count;) {
    if (l->data->layout == DATASET_NNUNET) {
      take_case(l, folder, names, count, &i, &found);
    } else {
      const char *path = arena_printf(l->memory, "%s/%s", folder, names[i++]);
      case_entry input = {.name = path, .image = path};
      ARENA_PUSH(l->memory, l->cases, l->count, l->capacity, input);
    }
  }
  return problems_take(&found);
}

/* ---- results ----------------------------------------------------------------------------- */

static bool is_same_file(const struct stat *a, const char *path) {
  struct stat b;
  return stat(path, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static bool is_an_input(const case_entry *c, const struct stat *file) {
  bool is = is_same_file(file, c->image);
  for (int m = 0; m < c->more_image_count; m++) is |= is_same_file(file, c->more_images[m]);
  return is;
}

/* No input may be replaced. `path` is where result i goes. */
static status check_not_an_input(const predict_inputs *in, int i, const char *path,
                                 const char *what, const char *option) {
  struct stat there;
  if (stat(path, &there) != 0) return OK;
  for (int k = 0; k < in->count; k++)
    if (is_an_input(&in->cases[k], &there))
      return error_new(ERROR_USAGE, NOWHERE,
                       "%s of %s would replace the input %s; choose another %s", what,
                       in->cases[i].name, in->cases[k].name, option);
  return OK;
}

static status check_outputs(const predict_inputs *in) {
  for (int i = 0; i < in->count; i++) {
    for (int k = 0; k < i; k++)
      if (strcmp(in->out[k], in->out[i]) == 0)
        return error_new(ERROR_USAGE, NOWHERE,
                         "%s and %s would both be segmented to %s; segment them into two folders",
                         in->cases[k].name, in->cases[i].name, in->out[i]);
    TRY(check_not_an_input(in, i, in->out[i], "the segmentation", "-o"));
    if (in->probabilities)
      TRY(check_not_an_input(in, i, in->probabilities[i], "the probabilities", "--probabilities"));
  }
  return OK;
}

/* In a folder of their own, under the names of the segmentations: a folder of segmentations is what
 * `evaluate` reads. */
static status place_probabilities(arena *memory, const char *folder, predict_inputs *in) {
  if (volume_ending(folder) > 0)
    return error_new(ERROR_USAGE, NOWHERE,
                     "--probabilities takes a folder, in which files have the names of the "
                     "segmentations, not %s",
                     folder);
  TRY(folder_create(folder));
  char *segmentations = path_folder(in->out[0]);
  struct stat there;
  bool same = stat(folder, &there) == 0 && is_same_file(&there, segmentations);
  free(segmentations);
  if (same)
    return error_new(ERROR_USAGE, NOWHERE,
                     "probabilities and segmentations have the same names: --probabilities takes "
                     "another folder than -o");
  in->probabilities = arena_alloc(memory, (size_t)in->count * sizeof *in->probabilities);
  for (int i = 0; i < in->count; i++) {
    const char *slash = strrchr(in->out[i], '/');
    in->probabilities[i] = arena_printf(memory, "%s/%s", folder, slash ? slash + 1 : in->out[i]);
  }
  return OK;
}

/* Named after the image; case.nii.gz for nnU-Net's case_0000.nii.gz and further channels. */
static char *output_path(const listing *l, const char *out, const case_entry *input) {
  const char *slash = strrchr(input->image, '/'), *file = slash ? slash + 1 : input->image;
  size_t length = strlen(file) - volume_ending(file);
  int64_t channel = -1;
  size_t bare = channel_of(file, &channel);
  bool is_first = input->more_image_count > 0 || l->data->layout == DATASET_NNUNET;
  if (bare > 0 && channel == 0 && is_first) length = bare;
  return arena_printf(l->memory, "%s/%.*s.nii.gz", out, (int)length, file);
}

/* A folder called seg.nrrd would not be what was meant. */
static status check_ending(const char *out) {
  static const char *const others[] = {".nrrd", ".mha", ".mhd", ".hdr", ".img",
                                       ".dcm",  ".png", ".npy", ".gz"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (text_ends_with(out, others[i]) && !is_folder(out))
      return error_new(ERROR_USAGE, NOWHERE,
                       "%s: segmentations are NIfTI files: -o seg.nii.gz, or -o FOLDER", out);
  return OK;
}

status predict_inputs_list(arena *memory, const arguments *a, const data_spec *data,
                           int64_t channels, predict_inputs *out) {
  listing l = {.memory = memory, .data = data, .channels = channels};
  *out = (predict_inputs){0};
  for (int i = 1; i < a->operand_count; i++) {
    if (is_folder(a->operands[i])) {
      TRY(add_folder(&l, a->operands[i]));
      continue;
    }
    case_entry input = read_channels(memory, a->operands[i]);
    ARENA_PUSH(memory, l.cases, l.count, l.capacity, input);
  }
  bool to_file = volume_ending(a->out) > 0;
  if (to_file && l.count > 1)
    return error_new(ERROR_USAGE, NOWHERE, "%d inputs need a folder after -o, not %s", l.count,
                     a->out);
  if (!to_file) TRY(check_ending(a->out));
  if (!to_file) TRY(folder_create(a->out));
  out->folder = to_file ? NULL : a->out;
  out->cases = l.cases;
  out->count = l.count;
  out->out = arena_alloc(memory, (size_t)l.count * sizeof *out->out);
  for (int i = 0; i < l.count; i++)
    out->out[i] = to_file ? arena_strdup(memory, a->out) : output_path(&l, a->out, &l.cases[i]);
  if (a->probabilities) TRY(place_probabilities(memory, a->probabilities, out));
  return check_outputs(out);
}
