/* The host graphs: prepare (once per case, behind the cache) and sample (one crop). */
#include "data/cases.h"
#include "data/host.h"
#include "language/bind.h"

#include "base/text.h"
#include "ops/arithmetic/vector_math.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

/* ---- running ---- */

static status run_operator(const op_use *use, host_call *call) {
  call->op = use->op;
  call->attrs = use->attrs;
  if (!(use->op->traits & OP_LAZY)) TRY(host_settle(call, false));
  status error = use->op->host(call);
  if (error)
    return error_locate(error_prefix(error, "case %s, operator %s", call->c->name, use->op->name),
                        use->at);
  if (call->c->label.data &&
      memcmp(call->c->label.size, call->c->image.size, sizeof call->c->image.size) != 0)
    return error_new(ERROR_INTERNAL, use->at, "operator %s left image and label on two grids",
                     use->op->name);
  return OK;
}

/* Which case it is, unless the message names it: to predict, a case is called like its file. */
static status of_case(const case_entry *entry, status error) {
  bool is_named =
      strcmp(entry->name, entry->image) == 0 && strstr(error_message(error), entry->image);
  return is_named ? error : error_prefix(error, "case %s", entry->name);
}

/* Two files of a case must lie on one grid: same extents, and every voxel in the same place to
 * within a tenth of a voxel (headers are often written with less precision). `what` is the second
 * file. */
static status check_same_grid(const char *image, const int64_t image_size[3],
                              const double image_affine[4][4], const char *what, const char *path,
                              const int64_t size[3], const double affine[4][4]) {
  if (memcmp(image_size, size, 3 * sizeof *size) != 0)
    return error_new(ERROR_DATA, NOWHERE,
                     "the %s %s has %lld × %lld × %lld voxels, the image %s %lld × %lld × %lld. "
                     "They must be on one grid.",
                     what, path, (long long)size[0], (long long)size[1], (long long)size[2], image,
                     (long long)image_size[0], (long long)image_size[1], (long long)image_size[2]);
  double apart[3];
  affine_difference(image_affine, affine, size, apart);
  for (int a = 0; a < 3; a++)
    if (!(apart[a] < 0.1))
      return error_new(ERROR_DATA, NOWHERE,
                       "the headers of the image %s and the %s %s place them apart (by %.2f "
                       "voxels along %c at a corner). Correct one of the headers.",
                       image, what, path, apart[a], "xyz"[a]);
  return OK;
}

/* Voxels of the value `ignored` are left out. */
FOR_EACH_ISA static uint8_t largest_class(const uint8_t *class, int64_t n, uint8_t ignored) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    uint8_t here = class[i] == ignored ? 0 : class[i];
    largest = here > largest ? here : largest;
  }
  return largest;
}

/* `ignored`: what stands for an unknown class in the map; 0: nothing. */
static status check_classes(const case_entry *entry, const labels *l, int ignored) {
  if (!l->data || entry->class_count == 0) return OK;
  uint8_t largest = largest_class(l->data, l->size[0] * l->size[1] * l->size[2], (uint8_t)ignored);
  if (largest < entry->class_count) return OK;
  char other[160] = "";
  if (entry->ignore_label)
    snprintf(other, sizeof other, " and the ignore label %d", entry->ignore_label);
  status error = error_new(ERROR_DATA, NOWHERE,
                           "the label %s contains class %d, but the data set names only classes 0 "
                           "to %d%s. Name it there, or correct the label",
                           entry->label, largest, entry->class_count - 1, other);
  if (!entry->ignore_label)
    snprintf(other, sizeof other,
             "; if it marks voxels whose class nobody knows, say data: {ignore_label: %d}",
             largest);
  else
    other[0] = 0;
  return error_suffix(error, "%s.", other);
}

/* The map of the file, checked; the ignore label becomes LABEL_UNKNOWN. */
static status take_classes(const case_entry *entry, labels *l) {
  TRY(check_classes(entry, l, entry->ignore_label));
  if (entry->ignore_label) labels_replace(l, (uint8_t)entry->ignore_label, LABEL_UNKNOWN);
  return OK;
}

/* ---- files ---- */

static const char *image_file(const case_entry *entry, int i) {
  return i == 0 ? entry->image : entry->more_images[i - 1];
}

const char *case_file_path(const case_entry *entry, int i) {
  return i <= entry->more_image_count ? image_file(entry, i) : entry->label;
}

int case_file_count(const case_entry *entry) {
  return 1 + entry->more_image_count + (entry->label ? 1 : 0);
}

void case_files_free(case_files *files) {
  for (int i = 0; i < files->image_count && files->images; i++) free(files->images[i].data);
  free(files->images);
  free(files->label.data);
  *files = (case_files){0};
}

status case_files_load(const case_entry *entry, case_files *out) {
  int count = 1 + entry->more_image_count;
  *out = (case_files){.images = calloc((size_t)count, sizeof *out->images), .image_count = count};
  status error = out->images ? OK : error_out_of_memory((size_t)count * sizeof *out->images);
  for (int i = 0; i < count && !error; i++)
    error = nifti_load_bytes(image_file(entry, i), &out->images[i].data, &out->images[i].length);
  if (!error && entry->label)
    error = nifti_load_bytes(entry->label, &out->label.data, &out->label.length);
  if (error) case_files_free(out);
  return error;
}

status case_read_headers(const case_entry *entry, volume *out) {
  volume other;
  TRY(of_case(entry, nifti_read_grid(entry->image, out)));
  for (int i = 1; i < case_file_count(entry); i++) {
    const char *path = case_file_path(entry, i);
    bool is_image = i <= entry->more_image_count;
    status error = is_image ? nifti_read_grid(path, &other) : nifti_read_label_grid(path, &other);
    if (!error)
      error = check_same_grid(entry->image, out->size, out->affine, is_image ? "image" : "label",
                              path, other.size, other.affine);
    TRY(of_case(entry, error));
    if (is_image) out->channels += other.channels;
  }
  return OK;
}

/* Channels `first` … of `whole` from a volume on the same grid. */
static void put_channels(volume *whole, int64_t first, const volume *part) {
  int64_t voxels = part->size[0] * part->size[1] * part->size[2];
  for (int64_t v = 0; v < voxels; v++)
    memcpy(whole->data + v * whole->channels + first, part->data + v * part->channels,
           (size_t)part->channels * sizeof(float));
}

/* Channels in files of their own, put together on the grid of the first. */
static status stack_channels(const case_entry *entry, const case_files *files, volume *out) {
  int count = files->image_count;
  volume *parts = calloc((size_t)count, sizeof *parts);
  if (!parts) return error_out_of_memory((size_t)count * sizeof *parts);
  status error = OK;
  int64_t channels = 0;
  for (int i = 0; i < count && !error; i++) {
    const char *path = image_file(entry, i);
    error = nifti_parse_volume(path, files->images[i].data, files->images[i].length, &parts[i]);
    if (!error && i > 0)
      error = check_same_grid(entry->image, parts[0].size, parts[0].affine, "image", path,
                              parts[i].size, parts[i].affine);
    channels += parts[i].channels;
  }
  if (!error) error = volume_allocate(out, parts[0].size, channels);
  if (!error) memcpy(out->affine, parts[0].affine, sizeof out->affine);
  channels = 0;
  for (int i = 0; i < count && !error; i++) {
    put_channels(out, channels, &parts[i]);
    channels += parts[i].channels;
  }
  for (int i = 0; i < count; i++) volume_free(&parts[i]);
  free(parts);
  return error;
}

status case_parse(const case_entry *entry, const case_files *files, medical_case *out) {
  *out = (medical_case){.name = entry->name};
  status error = files->image_count > 1 ? stack_channels(entry, files, &out->image)
                                        : nifti_parse_volume(entry->image, files->images[0].data,
                                                             files->images[0].length, &out->image);
  if (!error && files->label.data) {
    error = nifti_parse_labels(entry->label, files->label.data, files->label.length, &out->label);
    if (!error)
      error = check_same_grid(entry->image, out->image.size, out->image.affine, "label",
                              entry->label, out->label.size, out->label.affine);
    if (!error) error = take_classes(entry, &out->label);
  }
  if (error) case_free(out);
  return error;
}

/* Lets go of the files as soon as they are parsed. */
static status prepare_files(const data_spec *spec, const case_entry *entry, case_files *files,
                            medical_case *out) {
  status error = of_case(entry, case_parse(entry, files, out));
  case_files_free(files);
  host_call call = {.c = out, .delayed = HOST_NOTHING_DELAYED};
  for (int i = 0; i < spec->prepare_count && !error; i++)
    error = run_operator(&spec->prepare[i], &call);
  if (!error) error = host_settle(&call, false);
  if (error) case_free(out);
  return error;
}

/* ---- cache ---- */

static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;

/* What tells whether the files of a case are the ones that were read: a change of content changes
 * the time of the inode's last change, which no program can set. A file that changed within the last
 * two seconds may change again without a clock noticing; then there is no stamp. */
bool case_stamp(const case_entry *entry, uint64_t stamp[2]) {
  XXH3_state_t *hash = XXH3_createState();
  if (!hash) return false;
  XXH3_128bits_reset(hash);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int files = case_file_count(entry);
  bool good = true;
  for (int i = 0; i < files && good; i++) {
    struct stat info;
    good = stat(case_file_path(entry, i), &info) == 0 && info.st_ctim.tv_sec + 2 < now.tv_sec;
    if (!good) break;
    int64_t facts[] = {info.st_dev,         (int64_t)info.st_ino, info.st_size,
                       info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec,
                       info.st_ctim.tv_nsec};
    XXH3_128bits_update(hash, facts, sizeof facts);
  }
  XXH128_hash_t made = XXH3_128bits_digest(hash);
  stamp[0] = made.low64;
  stamp[1] = made.high64;
  XXH3_freeState(hash);
  return good;
}

/* The key that files with this stamp had. */
static bool known_key(const case_entry *entry, const uint64_t stamp[2], uint64_t prepare,
                      cache_key *key) {
  pthread_mutex_lock(&known_lock);
  const known_files *k = entry->known;
  bool known = memcmp(k->stamp, stamp, sizeof k->stamp) == 0 && k->prepare == prepare;
  *key = k->key;
  pthread_mutex_unlock(&known_lock);
  return known;
}

void case_remember(const case_entry *entry, const uint64_t stamp[2], uint64_t prepare,
                   cache_key key) {
  pthread_mutex_lock(&known_lock);
  *entry->known = (known_files){{stamp[0], stamp[1]}, prepare, key};
  pthread_mutex_unlock(&known_lock);
}

status case_is_cached(const data_spec *spec, const case_entry *entry, const char *cache, bool *is) {
  case_files files;
  TRY(of_case(entry, case_files_load(entry, &files)));
  *is = cache_holds(cache, cache_key_of(prepared_identity(spec, entry->ignore_label), files.images,
                                        files.image_count, &files.label));
  case_files_free(&files);
  return OK;
}

/* The same file may stand in two datasets that name different classes. */
static status take_entry(const case_entry *entry, medical_case *out) {
  out->name = entry->name;
  int ignored = entry->ignore_label ? LABEL_UNKNOWN : 0;
  status error = of_case(entry, check_classes(entry, &out->label, ignored));
  if (error) case_free(out);
  return error;
}

status case_prepare(const data_spec *spec, const case_entry *entry, const char *cache,
                    medical_case *out) {
  *out = (medical_case){.name = entry->name};
  uint64_t prepare = cache ? prepared_identity(spec, entry->ignore_label) : 0, stamp[2];
  cache_key key = {{0}};
  /* Taken before the files are read: if they change meanwhile, it does not fit the next time. */
  bool has_stamp = cache && entry->known && case_stamp(entry, stamp);
  if (has_stamp && known_key(entry, stamp, prepare, &key) && cache_load(cache, key, out))
    return take_entry(entry, out);
  case_files files;
  TRY(of_case(entry, case_files_load(entry, &files)));
  if (cache) {
    key = cache_key_of(prepare, files.images, files.image_count, &files.label);
    if (has_stamp) case_remember(entry, stamp, prepare, key);
    if (cache_load(cache, key, out)) {
      case_files_free(&files);
      return take_entry(entry, out);
    }
  }
  status error = prepare_files(spec, entry, &files, out);
  if (!error && cache) cache_store(cache, key, out);
  return error;
}

/* Runs the sample graph; on error call->c holds nothing. */
static status run_sample(const data_spec *spec, rng_key key, host_call *call) {
  for (int i = 0; i < spec->sample_count; i++) {
    const op *o = spec->sample[i].op;
    call->random = rng_open(key, hash_mix(text_hash(o->name), (uint64_t)i));
    status error = run_operator(&spec->sample[i], call);
    if (error) {
      host_let_go(call);
      return error;
    }
  }
  return OK;
}

status case_sample(const data_spec *spec, const medical_case *in, rng_key key, medical_case *out) {
  *out = *in;
  host_call call = {.c = out, .shared = true, .delayed = HOST_NOTHING_DELAYED};
  TRY(run_sample(spec, key, &call));
  status error = host_own(&call);
  if (error) host_let_go(&call);
  return error;
}

static status check_sample(const data_spec *spec, const medical_case *c, const volume *expected) {
  const volume *v = &c->image;
  if (memcmp(v->size, expected->size, sizeof v->size) == 0 && v->channels == expected->channels)
    return OK;
  return error_new(ERROR_DATA, spec->dataset_at,
                   "case %s: its samples have %lld × %lld × %lld voxels and %lld channels, the "
                   "pipeline expects %lld × %lld × %lld and %lld",
                   c->name, (long long)v->size[0], (long long)v->size[1], (long long)v->size[2],
                   (long long)v->channels, (long long)expected->size[0],
                   (long long)expected->size[1], (long long)expected->size[2],
                   (long long)expected->channels);
}

status case_draw(const data_spec *spec, const medical_case *in, rng_key key, const volume *expected,
                 recipe *out) {
  medical_case c = *in;
  recipe_clear(out);
  host_call call = {.c = &c, .shared = true, .delayed = HOST_NOTHING_DELAYED, .recipe = out};
  TRY(run_sample(spec, key, &call));
  TRY(check_sample(spec, &c, expected));
  return host_note_rest(&call);
}

status case_sample_into(const data_spec *spec, const medical_case *in, rng_key key,
                        const medical_case *room) {
  medical_case c = *in;
  host_call call = {.c = &c, .shared = true, .room = room, .delayed = HOST_NOTHING_DELAYED};
  TRY(run_sample(spec, key, &call));
  status error = check_sample(spec, &c, &room->image);
  if (!error) error = host_settle(&call, true);
  size_t voxels = (size_t)(c.image.size[0] * c.image.size[1] * c.image.size[2]);
  if (!error && c.image.data != room->image.data)
    memcpy(room->image.data, c.image.data, voxels * (size_t)c.image.channels * sizeof(float));
  if (!error && !c.label.data)
    memset(room->label.data, 0, voxels);
  else if (!error && c.label.data != room->label.data)
    memcpy(room->label.data, c.label.data, voxels);
  host_let_go(&call);
  return error;
}

/* ---- compile time ---- */

static status infer_operators(const op_use *uses, int count, host_infer *shape) {
  for (int i = 0; i < count; i++) {
    if (!uses[i].op->host_infer) continue;
    shape->attrs = uses[i].attrs;
    status error = uses[i].op->host_infer(shape);
    if (error)
      return error_locate(error_prefix(error, "operator %s", uses[i].op->name), uses[i].at);
  }
  return OK;
}

status sample_infer(const data_spec *spec, int64_t channels, int64_t size[3]) {
  host_infer shape = {.size = {-1, -1, -1}, .channels = channels};
  TRY(infer_operators(spec->prepare, spec->prepare_count, &shape));
  TRY(infer_operators(spec->sample, spec->sample_count, &shape));
  for (int a = 0; a < 3; a++)
    if (shape.size[a] < 0)
      return error_new(ERROR_PIPELINE,
                       spec->sample_count ? spec->sample[spec->sample_count - 1].at
                                          : spec->dataset_at,
                       "the samples have no fixed extent along %c: add random_crop or centre_crop "
                       "to `sample`",
                       "xyz"[a]);
  memcpy(size, shape.size, sizeof shape.size);
  return OK;
}

status stages_infer_crops(pipeline *p, int64_t channels) {
  problems found = {0};
  for (int i = 0; i < p->stage_count; i++)
    problems_add_new_places(&found, sample_infer(p->stages[i].data, channels, p->stages[i].crop));
  return problems_take(&found);
}

status sample_is_padded(const data_spec *spec, const volume *grid, bool axes[3], bool *shrinks) {
  host_infer shape = {.channels = grid->channels, .of_case = true};
  memcpy(shape.size, grid->size, sizeof shape.size);
  memcpy(shape.affine, grid->affine, sizeof shape.affine);
  TRY(infer_operators(spec->prepare, spec->prepare_count, &shape));
  for (int a = 0; a < 3; a++) axes[a] = false;
  for (int i = 0; i < spec->sample_count; i++) {
    int64_t before[3];
    memcpy(before, shape.size, sizeof before);
    TRY(infer_operators(&spec->sample[i], 1, &shape));
    for (int a = 0; a < 3; a++) axes[a] |= shape.size[a] > before[a];
  }
  *shrinks = shape.shrinks;
  return OK;
}

source_pos sample_size_at(const data_spec *spec, int64_t channels) {
  int64_t whole[3], size[3];
  data_spec part = *spec;
  status error = sample_infer(spec, channels, whole);
  while (!error && part.sample_count > 0) {
    part.sample_count--;
    error = sample_infer(&part, channels, size);
    if (error || memcmp(size, whole, sizeof size) != 0) {
      error_free(error);
      return spec->sample[part.sample_count].at;
    }
  }
  error_free(error);
  return spec->dataset_at;
}

uint64_t prepare_identity(const data_spec *spec) {
  arena memory = {0};
  text_buffer text = {0};
  for (int i = 0; i < spec->prepare_count; i++) {
    const op *o = spec->prepare[i].op;
    text_add(&text, "%s %u\n", o->name, (unsigned)o->version);
    for (const attr *a = o->attrs; a && a->name; a++)
      text_add(&text, "  %s: %s\n", a->name, attr_format(a, spec->prepare[i].attrs, &memory));
  }
  uint64_t identity = bytes_hash(text.data, text.length);
  text_free(&text);
  arena_free(&memory);
  return identity;
}

uint64_t prepared_identity(const data_spec *spec, int ignore_label) {
  uint64_t identity = prepare_identity(spec);
  return ignore_label ? hash_mix(identity, (uint64_t)ignore_label) : identity;
}
