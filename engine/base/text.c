#include "base/text.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

uint64_t text_hash(const char *text) {
  return XXH3_64bits(text, strlen(text));
}

uint64_t bytes_hash(const void *data, size_t bytes) {
  return XXH3_64bits(data, bytes);
}

uint64_t hash_mix(uint64_t a, uint64_t b) {
  uint64_t pair[2] = {a, b};
  return XXH3_64bits(pair, sizeof pair);
}

int by_text(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int edit_distance(const char *a, const char *b) {
  enum { LIMIT = 63 };
  int n = (int)strlen(a), m = (int)strlen(b);
  if (n > LIMIT || m > LIMIT) return LIMIT;
  int row[3][LIMIT + 1];
  for (int j = 0; j <= m; j++) row[0][j] = j;
  for (int i = 1; i <= n; i++) {
    int *now = row[i % 3], *above = row[(i - 1) % 3], *two_above = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= m; j++) {
      int best = above[j - 1] + (a[i - 1] != b[j - 1]);
      if (above[j] + 1 < best) best = above[j] + 1;
      if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
          two_above[j - 2] + 1 < best)
        best = two_above[j - 2] + 1;
      now[j] = best;
    }
  }
  return row[n % 3][m];
}

const char *nearest_name(const char *word, const char *const *names, int count) {
  const char *best = NULL;
  int best_distance = (int)strlen(word) / 3 + 2; /* further than this is not a typing error */
  for (int i = 0; i < count; i++) {
    int distance = edit_distance(word, names[i]);
    if (distance < best_distance) {
      best_distance = distance;
      best = names[i];
    }
  }
  return best;
}

bool wildcard_match(const char *pattern, const char *text, int *by) {
  int p = 0, t = 0, star = -1, taken = 0; /* the last star, and where the text it took ends */
  while (text[t]) {
    if (pattern[p] == '*') {
      star = p++;
      taken = t;
    } else if (pattern[p] && (pattern[p] == text[t] || (pattern[p] == '?' && text[t] != '/'))) {
      if (by) by[t] = p;
      p++;
      t++;
    } else if (star >= 0 && text[taken] != '/') {
      if (by) by[taken] = star;
      t = ++taken;
      p = star + 1;
    } else {
      return false;
    }
  }
  while (pattern[p] == '*') p++;
  return pattern[p] == 0;
}

bool text_has_letters(const char *word, size_t length, const char *name) {
  const char *end = word + length;
  while (word < end || *name) {
    if (*name == '_')
      name++;
    else if (word < end && *word == '_')
      word++;
    else if (word == end || tolower((unsigned char)*word++) != tolower((unsigned char)*name++))
      return false;
  }
  return true;
}

bool text_starts_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool text_ends_with(const char *text, const char *suffix) {
  size_t n = strlen(text), m = strlen(suffix);
  return n >= m && strcmp(text + n - m, suffix) == 0;
}

bool text_is_utf8(const char *text) {
  static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  for (const unsigned char *p = (const unsigned char *)text; *p;) {
    int more = *p < 0x80 ? 0 : *p < 0xC0 ? -1 : *p < 0xE0 ? 1 : *p < 0xF0 ? 2 : *p < 0xF8 ? 3 : -1;
    if (more < 0) return false;
    uint32_t code = more ? *p & (0x3Fu >> more) : *p;
    p++;
    for (int i = 0; i < more; i++, p++) {
      if ((*p & 0xC0) != 0x80) return false;
      code = code << 6 | (*p & 0x3Fu);
    }
    if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
  }
  return true;
}

/* How many bytes the control character at `text` has; 0: there is none. */
static int control_bytes(const char *text) {
  unsigned char c = (unsigned char)text[0];
  if (c == 0xC2) return ((unsigned char)text[1] & 0xE0) == 0x80 ? 2 : 0;
  return c < 32 || c == 127;
}

bool text_is_printable(const char *text) {
  while (*text && !control_bytes(text)) text++;
  return !*text;
}

void text_make_printable(char *text) {
  for (; *text; text++)
    if (*text != '\n' && *text != '\t') memset(text, '?', (size_t)control_bytes(text));
}

static void reserve(text_buffer *t, size_t more) {
  size_t needed = t->length + more + 1;
  if (needed <= t->capacity) return;
  size_t capacity = t->capacity ? t->capacity * 2 : 256;
  if (capacity < needed) capacity = needed;
  t->data = memory_resize(t->data, capacity);
  t->capacity = capacity;
}

void text_append(text_buffer *t, const char *data, size_t length) {
  reserve(t, length);
  memcpy(t->data + t->length, data, length);
  t->length += length;
  t->data[t->length] = 0;
}

void text_add_base64(text_buffer *t, const void *data, size_t length) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *in = data;
  reserve(t, (length + 2) / 3 * 4);
  char *out = t->data + t->length;
  for (size_t i = 0; i < length; i += 3) {
    uint32_t group = (uint32_t)in[i] << 16;
    if (i + 1 < length) group |= (uint32_t)in[i + 1] << 8;
    if (i + 2 < length) group |= in[i + 2];
    *out++ = letters[group >> 18];
    *out++ = letters[group >> 12 & 63];
    *out++ = i + 1 < length ? letters[group >> 6 & 63] : '=';
    *out++ = i + 2 < length ? letters[group & 63] : '=';
  }
  *out = 0;
  t->length = (size_t)(out - t->data);
}

void text_addv(text_buffer *t, const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0) return;
  reserve(t, (size_t)length);
  vsnprintf(t->data + t->length, (size_t)length + 1, format, args);
  t->length += (size_t)length;
}

void text_add(text_buffer *t, const char *format, ...) {
  va_list args;
  va_start(args, format);
  text_addv(t, format, args);
  va_end(args);
}

void text_add_word(text_buffer *t, const char *word) {
  static const char plain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
  if (word[0] && !word[strspn(word, plain)]) {
    text_add(t, "%s", word);
    return;
  }
  text_add(t, "'");
  for (; *word; word++)
    if (*word == '\'')
      text_add(t, "'\\''");
    else
      text_append(t, word, 1);
  text_add(t, "'");
}

void text_free(text_buffer *t) {
  free(t->data);
  *t = (text_buffer){0};
}

char *format_bytes(char out[24], double bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    unit++;
  }
  snprintf(out, 24,
           bytes < 10 && unit > 0    ? "%.2f %s"
           : bytes < 100 && unit > 0 ? "%.1f %s"
                                     : "%.0f %s",
           bytes, units[unit]);
  return out;
}

bool parse_bytes(const char *text, int64_t *bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  char *end;
  if (text[0] < '0' || text[0] > '9') return false;
  double number = strtod(text, &end);
  while (*end == ' ') end++;
  for (int i = 0; i < 5; i++, number *= 1024) {
    if (strcmp(end, units[i]) != 0) continue;
    if (!(number >= 1 && number < 9e18)) return false;
    *bytes = (int64_t)number;
    return true;
  }
  return false;
}

char *format_duration(char out[24], double seconds) {
  enum { MOST = 99999999 };
  long whole = seconds > MOST ? MOST : seconds > 0 ? (long)(seconds + 0.5) : 0;
  if (whole >= 3600)
    snprintf(out, 24, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    snprintf(out, 24, "%ld:%02ld", whole / 60, whole % 60);
  return out;
}
