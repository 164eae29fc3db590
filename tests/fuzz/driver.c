/* Runs a fuzz target without a fuzzer: on seed files as they are, then on mutations of them. Input i
 * depends on the target's name, the seeds and i alone, so a failure comes back.
 *
 *   fuzz_<target> COUNT SECONDS SEED…
 *
 * Stops after COUNT mutations or SECONDS, whichever is first. The input at hand lies in
 * fuzz_<target>.input in the working folder, and stays there when it crashes the target;
 * `fuzz_<target> 0 0 FILE` runs one file. */
#include "fuzz.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/rng.h"

#include <fcntl.h>
#include <stdbool.h>

enum { INPUT_MAX = 64 << 10, SEEDS_MAX = 256 };

typedef struct input {
  uint8_t bytes[INPUT_MAX];
  size_t length;
} input;

static struct {
  char *bytes;
  size_t length;
} seeds[SEEDS_MAX];
static int seed_count;

/* Bytes that readers treat specially. */
static const char *const tokens[] = {
    "0",
    "-1",
    "1e308",
    "nan",
    "inf",
    "9223372036854775807",
    "-9223372036854775808",
    "${",
    "}",
    "[",
    "]",
    "{",
    "\"",
    "'",
    ": ",
    ", ",
    "\n",
    "  ",
    "- ",
    "&a ",
    "*a",
    "<<:",
    "|\n",
    "#",
    "!!",
    "\\",
    "\\u0000",
    "true",
    "~",
    "//",
    "%",
    "(",
    ")",
    "1000000000",
    "[100000, 100000, 100000]",
    "..",
    "/",
    "--[[",
    "end",
    "or ",
    "65536",
    "\xff\xfe",
};

static uint32_t at_most(rng *r, size_t n) {
  return rng_below(r, (uint32_t)n + 1);
}

static void replace(input *in, size_t at, size_t removed, const void *bytes, size_t added) {
  if (in->length - removed + added > INPUT_MAX) return;
  memmove(in->bytes + at + added, in->bytes + at + removed, in->length - at - removed);
  memcpy(in->bytes + at, bytes, added);
  in->length += added - removed;
}

static size_t number_end(const input *in, size_t at) {
  while (at < in->length && in->bytes[at] >= '0' && in->bytes[at] <= '9') at++;
  return at;
}

static void mutate(input *in, rng *r) {
  size_t at = at_most(r, in->length), length = at_most(r, in->length - at);
  if (length > 64 && rng_below(r, 4)) length = at_most(r, 64);
  switch (rng_below(r, 8)) {
  case 0:
    if (at < in->length) in->bytes[at] ^= (uint8_t)(1u << rng_below(r, 8));
    break;
  case 1:
    if (at < in->length) in->bytes[at] = (uint8_t)rng_u32(r);
    break;
  case 2: /* an extreme binary number */
    for (size_t i = at; i < in->length && i < at + (size_t)(1 << rng_below(r, 4)); i++)
      in->bytes[i] = (uint8_t)(rng_below(r, 2) ? 0xff : 0x7f);
    break;
  case 3:
    if (rng_below(r, 4) == 0) in->length = at;
    break;
  case 4:
    replace(in, at, length, "", 0);
    break;
  case 5: { /* a piece of a seed */
    int k = (int)rng_below(r, (uint32_t)seed_count);
    size_t from = at_most(r, seeds[k].length), piece = at_most(r, seeds[k].length - from);
    replace(in, at, rng_below(r, 2) ? 0 : length, seeds[k].bytes + from, piece);
    break;
  }
  case 6: { /* another number */
    while (at < in->length && (in->bytes[at] < '0' || in->bytes[at] > '9')) at++;
    length = number_end(in, at) - at;
  } /* fall through */
  default: {
    const char *token = tokens[rng_below(r, sizeof tokens / sizeof tokens[0])];
    replace(in, at, length, token, strlen(token));
    break;
  }
  }
}

/* Leaves the input on disk before it runs, so that it outlives a crash. */
static int run(int fd, const input *in) {
  if (ftruncate(fd, 0) != 0 || pwrite(fd, in->bytes, in->length, 0) != (ssize_t)in->length)
    return 1;
  /* Its own allocation: reading past the end is then seen. */
  uint8_t *copy = malloc(in->length ? in->length : 1);
  if (!copy) return 1;
  memcpy(copy, in->bytes, in->length);
  LLVMFuzzerTestOneInput(copy, in->length);
  free(copy);
  return 0;
}

static int fail(const char *what, const char *name) {
  fprintf(stderr, "%s %s\n", what, name);
  return 1;
}

int main(int count, char **arguments) {
  if (count < 4) return fail("usage: COUNT SECONDS SEED…:", arguments[0]);
  const char *slash = strrchr(arguments[0], '/'), *name = slash ? slash + 1 : arguments[0];
  double end_s = clock_now_s() + atof(arguments[2]);
  char kept[256];
  snprintf(kept, sizeof kept, "%s.input", name);
  int fd = open(kept, O_RDWR | O_CREAT | O_CLOEXEC, 0666), failed = fd < 0;
  static input in;
  for (int i = 3; i < count && seed_count < SEEDS_MAX && !failed; i++) {
    status error =
        file_read(arguments[i], INPUT_MAX, &seeds[seed_count].bytes, &seeds[seed_count].length);
    if (error) {
      error_free(error);
      failed = fail("cannot read", arguments[i]);
      continue;
    }
    in.length = seeds[seed_count].length;
    memcpy(in.bytes, seeds[seed_count].bytes, in.length);
    seed_count++;
    failed |= run(fd, &in);
  }
  int64_t done = 0;
  for (; done < atoll(arguments[1]) && !failed && clock_now_s() < end_s; done++) {
    rng r = rng_open(rng_key_of(1, name, 0, "mutation", done), 0);
    uint32_t k = rng_below(&r, (uint32_t)seed_count), times = 1 + rng_below(&r, 6);
    in.length = seeds[k].length;
    memcpy(in.bytes, seeds[k].bytes, in.length);
    while (times--) mutate(&in, &r);
    failed |= run(fd, &in);
  }
  if (!failed) printf("%s: %d seeds, %lld mutations\n", name, seed_count, (long long)done);
  for (int i = 0; i < seed_count; i++) free(seeds[i].bytes);
  if (fd >= 0) close(fd);
  if (!failed) unlink(kept);
  return failed;
}
