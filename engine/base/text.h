/* Small text helpers: hashing, nearest name, human-readable numbers, a growing string. */
#ifndef STRATA_BASE_TEXT_H
#define STRATA_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* XXH3 of a string, and of bytes. Stable across machines and releases: cache keys and random
 * streams depend on it. */
uint64_t text_hash(const char *text);
uint64_t bytes_hash(const void *data, size_t bytes);
/* Mixes two 64-bit hashes into one (order matters). */
uint64_t hash_mix(uint64_t a, uint64_t b);

/* For qsort and bsearch over char *: byte by byte. */
int by_text(const void *a, const void *b);

/* The name closest to `word` by edit distance, or NULL when none is near enough to suggest. */
const char *nearest_name(const char *word, const char *const *names, int count);

/* Have `length` characters of `word` the letters of `name`, whatever the capitals and underscores: "LeakyReLU" those of
 * "leaky_relu"? */
bool text_has_letters(const char *word, size_t length, const char *name);
bool text_starts_with(const char *text, const char *prefix);
bool text_ends_with(const char *text, const char *suffix);
/* Well-formed UTF-8 to its end? */
bool text_is_utf8(const char *text);
/* Control characters steer a terminal: those below the space, DEL, and U+0080 … U+009F. Is there
 * none? */
bool text_is_printable(const char *text);
/* Puts '?' in their place, but leaves tabs and line feeds. */
void text_make_printable(char *text);

/* Does `pattern` describe `text`? `*` stands for any run of characters, `?` for one; neither for '/'.
 * by[i], when `by` is not NULL, is the index in `pattern` of what text[i] was matched by; every `*`
 * takes as little as it can. */
bool wildcard_match(const char *pattern, const char *text, int *by);

/* Growing string, heap-owned. Zero-initialise; `data` is NULL until something is added and always
 * NUL-terminated after. */
typedef struct text_buffer {
  char *data;
  size_t length, capacity;
} text_buffer;
void text_add(text_buffer *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_addv(text_buffer *t, const char *format, va_list args);
void text_append(text_buffer *t, const char *data, size_t length);
/* A word of a command as a shell reads it: in quotes where it has to be. */
void text_add_word(text_buffer *t, const char *word);
/* Bytes in base64 (RFC 4648), padded. */
void text_add_base64(text_buffer *t, const void *data, size_t length);
void text_free(text_buffer *t);

/* "1.5 GiB", "312 KiB". Writes into `out` (at least 24 bytes) and returns it. */
char *format_bytes(char out[24], double bytes);
/* The other way: a number and B, KiB, MiB, GiB or TiB, with or without a space. False when it is none,
 * not above 0, or beyond int64_t. */
bool parse_bytes(const char *text, int64_t *bytes);
/* "1:02:03", "4:05". */
char *format_duration(char out[24], double seconds);

#endif
