#include "run/tensorboard.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  LIMIT_BYTES = 1 << 30,
  RECORD_FRAME_BYTES = 16, /* beside the data */
  WIRE_VARINT = 0,
  WIRE_8_BYTES = 1,
  WIRE_BYTES = 2,
  WIRE_4_BYTES = 5,
  EVENT_WALL_TIME = 1,
  EVENT_STEP = 2,
  EVENT_FILE_VERSION = 3,
  EVENT_SUMMARY = 5,
  EVENT_SESSION_LOG = 7,
  SUMMARY_VALUE = 1,
  VALUE_TAG = 1,
  VALUE_SIMPLE = 2,
  SESSION_STATUS = 1,
  SESSION_START = 1
};

/* TensorBoard reads files with "tfevents" in their name. */
static const char file_start[] = "events.out.tfevents.", file_end[] = ".strata";

struct event_file {
  FILE *out;
  char *path;
};

/* ---- records ------------------------------------------------------------------------------- */

uint32_t crc32c(const void *data, size_t bytes) {
  const unsigned char *p = data;
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1)));
  }
  return ~crc;
}

/* As TensorFlow stores it, so that a CRC of data that holds CRCs is none of the usual ones. */
static uint32_t masked_crc(const void *data, size_t bytes) {
  uint32_t crc = crc32c(data, bytes);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_little_endian(text_buffer *t, uint64_t value, int bytes) {
  char raw[8];
  for (int i = 0; i < bytes; i++) raw[i] = (char)(value >> (8 * i));
  text_append(t, raw, (size_t)bytes);
}

static uint64_t get_little_endian(const char *p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | (unsigned char)p[i];
  return value;
}

static void put_record(text_buffer *t, const text_buffer *event) {
  size_t start = t->length;
  put_little_endian(t, event->length, 8);
  put_little_endian(t, masked_crc(t->data + start, 8), 4);
  text_append(t, event->data, event->length);
  put_little_endian(t, masked_crc(event->data, event->length), 4);
}

/* ---- protocol buffers ---------------------------------------------------------------------- */

static void put_varint(text_buffer *t, uint64_t value) {
  for (; value >= 0x80; value >>= 7) put_little_endian(t, (value & 0x7F) | 0x80, 1);
  put_little_endian(t, value, 1);
}

static void put_key(text_buffer *t, int field, int wire) {
  put_varint(t, (uint64_t)(field << 3 | wire));
}

static void put_bytes(text_buffer *t, int field, const char *data, size_t bytes) {
  put_key(t, field, WIRE_BYTES);
  put_varint(t, bytes);
  text_append(t, data, bytes);
}

static text_buffer event_begin(int64_t step) {
  text_buffer t = {0};
  double now = clock_wall_s();
  uint64_t bits;
  memcpy(&bits, &now, sizeof bits);
  put_key(&t, EVENT_WALL_TIME, WIRE_8_BYTES);
  put_little_endian(&t, bits, 8);
  put_key(&t, EVENT_STEP, WIRE_VARINT);
  put_varint(&t, (uint64_t)step);
  return t;
}

static void put_scalar(text_buffer *summary, const char *name, double value) {
  text_buffer one = {0}, tag = {0};
  text_add(&tag, "%s", name);
  for (char *p = tag.data; p && *p; p++)
    if (*p == '.') *p = '/';
  put_bytes(&one, VALUE_TAG, tag.data, tag.length);
  float single = (float)value;
  uint32_t bits;
  memcpy(&bits, &single, sizeof bits);
  put_key(&one, VALUE_SIMPLE, WIRE_4_BYTES);
  put_little_endian(&one, bits, 4);
  put_bytes(summary, SUMMARY_VALUE, one.data, one.length);
  text_free(&one);
  text_free(&tag);
}

static bool get_varint(const char **p, const char *end, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && *p < end; shift += 7) {
    uint64_t byte = (unsigned char)*(*p)++;
    *value |= (byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

/* The step of an event that has a summary; −1 for other events, and for what is none. */
static int64_t summary_step(const char *data, size_t bytes) {
  const char *p = data, *end = data + bytes;
  uint64_t key, value, step = 0;
  bool has_summary = false;
  while (p < end) {
    if (!get_varint(&p, end, &key)) return -1;
    size_t left = (size_t)(end - p), skip = 0;
    int wire = (int)(key & 7);
    if (wire == WIRE_VARINT) {
      if (!get_varint(&p, end, &value)) return -1;
      if (key >> 3 == EVENT_STEP) step = value;
    } else if (wire == WIRE_BYTES) {
      if (!get_varint(&p, end, &value) || value > (uint64_t)(end - p)) return -1;
      has_summary |= key >> 3 == EVENT_SUMMARY;
      p += value;
    } else if (wire == WIRE_8_BYTES || wire == WIRE_4_BYTES) {
      skip = wire == WIRE_8_BYTES ? 8 : 4;
      if (left < skip) return -1;
      p += skip;
    } else {
      return -1;
    }
  }
  return has_summary && step <= INT64_MAX ? (int64_t)step : -1;
}

/* ---- going on ------------------------------------------------------------------------------ */

/* Where a file has to end: before the first record that is damaged or of an epoch after `epochs`. */
static size_t kept_bytes(const char *text, size_t length, int64_t epochs) {
  size_t at = 0;
  while (length - at > RECORD_FRAME_BYTES) {
    const char *record = text + at;
    uint64_t bytes = get_little_endian(record, 8);
    if (masked_crc(record, 8) != get_little_endian(record + 8, 4)) break;
    if (bytes > length - at - RECORD_FRAME_BYTES) break;
    if (masked_crc(record + 12, bytes) != get_little_endian(record + 12 + bytes, 4)) break;
    if (summary_step(record + 12, bytes) > epochs) break;
    at += bytes + RECORD_FRAME_BYTES;
  }
  return at;
}

/* In place: a TensorBoard that watches the folder loses its way when a file is removed. */
static status cut_back(const char *path, int64_t epochs) {
  char *text;
  size_t length;
  TRY(file_read(path, LIMIT_BYTES, &text, &length));
  size_t kept = kept_bytes(text, length, epochs);
  free(text);
  if (kept < length && truncate(path, (off_t)kept) != 0) return error_from_errno("cut", path);
  return OK;
}

/* Others' files in the folder are not ours to remove. */
static bool is_ours(const char *name) {
  return text_starts_with(name, file_start) && text_ends_with(name, file_end);
}

/* The event files of the folder, oldest first: one for each process that trained the stage. */
static status list_files(const char *folder, char ***list, int *count) {
  struct dirent **entries = NULL;
  int found = scandir(folder, &entries, NULL, alphasort);
  if (found < 0) return error_from_errno("list", folder);
  *list = memory_take((size_t)found * sizeof **list);
  for (int i = 0; i < found; i++) {
    if (is_ours(entries[i]->d_name)) (*list)[(*count)++] = path_join(folder, entries[i]->d_name);
    free(entries[i]);
  }
  free(entries);
  return OK;
}

/* A name that sorts after those that are there. */
static char *new_path(const char *folder, char *const *old, int count) {
  for (long long number = (long long)clock_wall_s();; number++) {
    char name[80];
    snprintf(name, sizeof name, "%s%010lld%s", file_start, number, file_end);
    char *path = path_join(folder, name);
    if ((count == 0 || strcmp(path, old[count - 1]) > 0) && !file_exists(path)) return path;
    free(path);
  }
}

static void put_head(text_buffer *t, int64_t epochs, bool goes_on) {
  text_buffer version = event_begin(0);
  put_bytes(&version, EVENT_FILE_VERSION, "brain.Event:2", 13);
  put_record(t, &version);
  text_free(&version);
  if (!goes_on) return;
  text_buffer start = event_begin(epochs + 1);
  const char status_start[] = {SESSION_STATUS << 3 | WIRE_VARINT, SESSION_START};
  put_bytes(&start, EVENT_SESSION_LOG, status_start, sizeof status_start);
  put_record(t, &start);
  text_free(&start);
}

static status go_on(const char *folder, int64_t epochs, char **path) {
  char **old = NULL;
  int count = 0;
  status error = list_files(folder, &old, &count);
  for (int i = 0; i < count && !error; i++) error = cut_back(old[i], epochs);
  if (!error) {
    text_buffer head = {0};
    put_head(&head, epochs, count > 0);
    *path = new_path(folder, old, count);
    error = file_write_atomic(*path, head.data, head.length);
    text_free(&head);
  }
  for (int i = 0; i < count; i++) free(old[i]);
  free(old);
  return error;
}

status event_file_open(const char *folder, int64_t epochs, event_file **out) {
  *out = NULL;
  TRY(folder_create(folder));
  event_file *f = calloc(1, sizeof *f);
  if (!f) return error_out_of_memory(sizeof *f);
  status error = go_on(folder, epochs, &f->path);
  if (!error) {
    f->out = fopen(f->path, "ab");
    if (!f->out) error = error_from_errno("open", f->path);
  }
  if (error) {
    free(f->path);
    free(f);
    return error;
  }
  *out = f;
  return OK;
}

status event_file_add(event_file *f, int64_t epoch, const char *const *names, const double *values,
                      int count) {
  text_buffer event = event_begin(epoch), summary = {0}, record = {0};
  for (int i = 0; i < count; i++) put_scalar(&summary, names[i], values[i]);
  put_bytes(&event, EVENT_SUMMARY, summary.data ? summary.data : "", summary.length);
  put_record(&record, &event);
  status error = OK;
  if (fwrite(record.data, 1, record.length, f->out) != record.length || fflush(f->out) != 0)
    error = error_from_errno("write", f->path);
  text_free(&event);
  text_free(&summary);
  text_free(&record);
  return error;
}

status event_file_close(event_file *f) {
  if (!f) return OK;
  status error = fclose(f->out) == 0 ? OK : error_from_errno("write", f->path);
  free(f->path);
  free(f);
  return error;
}
