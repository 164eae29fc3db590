#include "data/cache.h"

#include "base/files.h"
#include "base/text.h"
#include "data/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* A file is this header, the image (f32) and, when there is one, the label (uint8: label maps hold
 * 0…255). The header ends with a hash of itself and one of the rest, so that a torn or damaged
 * entry is never taken for a case. Raise the magic's number when the layout or the reading of
 * source files changes. */
typedef struct cache_header {
  char magic[8];
  uint64_t key[2];
  int64_t size[3], channels;
  double image_affine[4][4], label_affine[4][4];
  int64_t has_label;
  uint64_t payload_hash, header_hash;
} cache_header;

static const char cache_magic[8] = {'s', 't', 'r', 'c', 'a', 's', 'e', '1'};

static pthread_mutex_t problem_lock = PTHREAD_MUTEX_INITIALIZER;
static status first_problem;
static bool was_taken;

/* The first only: what keeps one case out of the cache mostly keeps out all of them. */
static void keep_problem(status error) {
  pthread_mutex_lock(&problem_lock);
  if (!first_problem && !was_taken)
    first_problem = error_prefix(error, "the prepare cache is not kept");
  else
    error_free(error);
  pthread_mutex_unlock(&problem_lock);
}

status cache_problem_take(void) {
  pthread_mutex_lock(&problem_lock);
  status error = first_problem;
  was_taken |= error != OK;
  first_problem = OK;
  pthread_mutex_unlock(&problem_lock);
  return error;
}

static void mix_content(cache_key *key, const content_hash *file) {
  uint64_t all[6] = {key->part[0], key->part[1], file->is_there,
                     file->length, file->low,    file->high};
  XXH128_hash_t mixed = XXH3_128bits(all, sizeof all);
  *key = (cache_key){{mixed.low64, mixed.high64}};
}

cache_key cache_key_from(uint64_t prepare, const content_hash *files, int count) {
  cache_key key = {{prepare, 0}};
  for (int i = 0; i < count; i++) mix_content(&key, &files[i]);
  return key;
}

cache_key cache_key_of(uint64_t prepare, const file_bytes *images, int count,
                       const file_bytes *label) {
  cache_key key = {{prepare, 0}};
  for (int i = 0; i <= count; i++) {
    const file_bytes *file = i < count ? &images[i] : label;
    XXH128_hash_t content = {0, 0};
    if (file->data) content = XXH3_128bits(file->data, file->length);
    content_hash hash = {file->data != NULL, file->length, content.low64, content.high64};
    mix_content(&key, &hash);
  }
  return key;
}

static char *entry_path(const char *folder, cache_key key) {
  char name[48];
  snprintf(name, sizeof name, "%016llx%016llx.case", (unsigned long long)key.part[1],
           (unsigned long long)key.part[0]);
  return path_join(folder, name);
}

bool cache_holds(const char *folder, cache_key key) {
  char *path = entry_path(folder, key);
  bool holds = file_exists(path);
  free(path);
  return holds;
}

static uint64_t header_hash(const cache_header *h) {
  return XXH3_64bits(h, offsetof(cache_header, header_hash));
}

static bool read_exactly(int fd, void *out, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t n = read(fd, (char *)out + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += (size_t)n;
  }
  return true;
}

/* Hashed piece by piece, while a piece is in the processor's cache. The hash is bytes_hash of the whole. */
static bool read_hashed(int fd, void *out, size_t bytes, uint64_t *hash) {
  enum { PIECE = 256 << 10 };
  XXH3_state_t *state = XXH3_createState();
  bool good = state && XXH3_64bits_reset(state) == XXH_OK;
  for (size_t done = 0, n; good && done < bytes; done += n) {
    n = bytes - done < PIECE ? bytes - done : PIECE;
    good = read_exactly(fd, (char *)out + done, n) &&
           XXH3_64bits_update(state, (char *)out + done, n) == XXH_OK;
  }
  if (good) *hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return good;
}

/* The payload hash covers image, then label, as two hashes mixed: neither needs the other in memory
 * beside it. */
static bool load_payload(int fd, const cache_header *h, medical_case *out) {
  status error = volume_reserve(&out->image, h->size, h->channels);
  if (!error && h->has_label) error = labels_reserve(&out->label, h->size);
  if (error) {
    error_free(error);
    return false;
  }
  size_t voxels = (size_t)(h->size[0] * h->size[1] * h->size[2]);
  size_t image_bytes = voxels * (size_t)h->channels * sizeof(float);
  uint64_t hash, of_label;
  if (!read_hashed(fd, out->image.data, image_bytes, &hash)) return false;
  if (h->has_label) {
    if (!read_hashed(fd, out->label.data, voxels, &of_label)) return false;
    hash = hash_mix(hash, of_label);
  }
  memcpy(out->image.affine, h->image_affine, sizeof h->image_affine);
  memcpy(out->label.affine, h->label_affine, sizeof h->label_affine);
  return hash == h->payload_hash;
}

bool cache_load(const char *folder, cache_key key, medical_case *out) {
  char *path = entry_path(folder, key);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  free(path);
  if (fd < 0) return false;
  cache_header h;
  bool good = read_exactly(fd, &h, sizeof h) && memcmp(h.magic, cache_magic, sizeof h.magic) == 0 &&
              h.header_hash == header_hash(&h) && h.key[0] == key.part[0] &&
              h.key[1] == key.part[1];
  /* From here on the header is one that cache_store wrote. */
  *out = (medical_case){0};
  good = good && load_payload(fd, &h, out);
  close(fd);
  if (!good) case_free(out);
  return good;
}

/* Not synced to the disk: the hashes find an entry that a crash tore, and it is made again. */
static status write_entry(const char *path, const cache_header *h, const medical_case *c,
                          size_t voxels) {
  atomic_file file;
  TRY(atomic_begin(path, &file));
  fwrite(h, sizeof *h, 1, file.stream);
  fwrite(c->image.data, (size_t)h->channels * sizeof(float), voxels, file.stream);
  if (h->has_label) fwrite(c->label.data, 1, voxels, file.stream);
  return atomic_commit_unsynced(&file);
}

static status store(const char *folder, cache_key key, const medical_case *c) {
  TRY(folder_create(folder));
  const volume *v = &c->image;
  size_t voxels = (size_t)(v->size[0] * v->size[1] * v->size[2]);
  cache_header h;
  memset(&h, 0, sizeof h);
  memcpy(h.magic, cache_magic, sizeof h.magic);
  memcpy(h.key, key.part, sizeof h.key);
  memcpy(h.size, v->size, sizeof h.size);
  h.channels = v->channels;
  memcpy(h.image_affine, v->affine, sizeof h.image_affine);
  memcpy(h.label_affine, c->label.affine, sizeof h.label_affine);
  h.has_label = c->label.data != NULL;
  h.payload_hash = bytes_hash(v->data, voxels * (size_t)v->channels * sizeof(float));
  if (h.has_label) h.payload_hash = hash_mix(h.payload_hash, bytes_hash(c->label.data, voxels));
  h.header_hash = header_hash(&h);
  char *path = entry_path(folder, key);
  status error = write_entry(path, &h, c, voxels);
  free(path);
  return error;
}

void cache_store(const char *folder, cache_key key, const medical_case *c) {
  status error = store(folder, key, c);
  if (error) keep_problem(error);
}
