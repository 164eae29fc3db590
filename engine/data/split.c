/* Who trains, who validates, who tests, and whose label may be seen. */
#include "data/cases.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const role_names[] = {"train", "validation", "test"};

/* ---- patients ------------------------------------------------------------------------------ */

/* The part in parentheses of a pattern such as (*)_*, in a case's name; NULL where it does not fit.
 */
static const char *patient_of(arena *memory, const char *pattern, const char *name) {
  const char *open = strchr(pattern, '('), *close = open ? strchr(open, ')') : NULL;
  if (!open || !close) return NULL;
  int from = (int)(open - pattern), to = (int)(close - pattern) - 1;
  const char *plain =
      arena_printf(memory, "%.*s%.*s%s", from, pattern, to - from, open + 1, close + 1);
  size_t length = strlen(name);
  int *by = arena_alloc(memory, (length + 1) * sizeof *by);
  if (!wildcard_match(plain, name, by)) return NULL;
  size_t start = 0, end = 0;
  while (start < length && by[start] < from) start++;
  for (end = start; end < length && by[end] < to;) end++;
  return end > start ? arena_strndup(memory, name + start, end - start) : NULL;
}

static void find_patients(const data_spec *spec, dataset *d, problems *found) {
  for (int i = 0; i < d->case_count; i++) {
    case_entry *c = &d->cases[i];
    c->patient = spec->patient ? patient_of(&d->memory, spec->patient, c->name) : c->name;
    if (c->patient) continue;
    c->patient = c->name;
    problems_add(found, error_new(ERROR_DATA, spec->split_at,
                                  "case %s: its name does not fit data: patient: %s", c->name,
                                  spec->patient));
  }
}

/* Distinct patients of the cases that train so far, sorted, to be dealt to roles; number[i] is that of
 * case i, −1: of none. Where some cases have labels, patients without one are not dealt but train: what
 * they say could neither be validated nor tested. */
typedef struct patients {
  int count;
  int *number;
  const char *which; /* " with labels", where the others are not dealt */
} patients;

static patients number_patients(dataset *d) {
  size_t n = (size_t)d->case_count, dealt = 0;
  int labelled = dataset_role_usable(d, ROLE_TRAIN, false);
  const char **names = arena_alloc(&d->memory, (n + 1) * sizeof *names);
  patients p = {.number = arena_alloc(&d->memory, (n + 1) * sizeof *p.number)};
  bool some = labelled > 0 && labelled < dataset_role_count(d, ROLE_TRAIN);
  p.which = some ? " with labels" : "";
  for (size_t i = 0; i < n; i++)
    if (d->cases[i].role == ROLE_TRAIN && (!some || d->cases[i].label))
      names[dealt++] = d->cases[i].patient;
  qsort(names, dealt, sizeof *names, by_text);
  for (size_t i = 0; i < dealt; i++)
    if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[p.count++] = names[i];
  for (size_t i = 0; i < n; i++) {
    const case_entry *c = &d->cases[i];
    const char **at = bsearch(&c->patient, names, (size_t)p.count, sizeof *names, by_text);
    p.number[i] = at && c->role == ROLE_TRAIN ? (int)(at - names) : -1;
  }
  return p;
}

static void give_roles(dataset *d, const patients *p, const role *roles) {
  for (int i = 0; i < d->case_count; i++)
    if (p->number[i] >= 0) d->cases[i].role = roles[p->number[i]];
}

/* ---- dealing by the seed ------------------------------------------------------------------- */

static int32_t *permutation(uint64_t seed, const char *stream, int n, dataset *d) {
  int32_t *order = arena_alloc(&d->memory, (size_t)(n + 1) * sizeof *order);
  rng random = rng_open(rng_key_of(seed, stream, 0, "", 0), text_hash(stream));
  rng_permutation(&random, order, n);
  return order;
}

/* How many of `n` each role gets: rounded fractions, and at least one where wanted. */
static status count_roles(const data_spec *spec, const patients *p, const double fraction[3], int n,
                          int count[3]) {
  int wanted = 0, end = 0;
  double sum = 0;
  for (int r = 0; r < 3; r++) {
    wanted += fraction[r] > 0;
    sum += fraction[r];
    int cut = (int)(sum * n + 0.5);
    if (cut > n || r == 2) cut = n;
    count[r] = cut - end;
    end = cut;
  }
  if (fraction[2] <= 0) { /* rounding errors of the sum must not fill an empty role */
    count[fraction[1] > 0 ? 1 : 0] += count[2];
    count[2] = 0;
  }
  if (n < wanted)
    return error_new(
        ERROR_DATA, spec->split_at, "the split asks for %d roles, but %s has only %d %s%s%s",
        wanted, spec->dataset, n, spec->patient ? "patient" : "case", n == 1 ? "" : "s", p->which);
  for (int r = 0; r < 3; r++)
    while (fraction[r] > 0 && count[r] == 0) {
      int largest = 0;
      for (int k = 1; k < 3; k++)
        if (count[k] > count[largest]) largest = k;
      count[largest]--;
      count[r]++;
    }
  return OK;
}

static status deal_fractions(const data_spec *spec, uint64_t seed, dataset *d) {
  patients p = number_patients(d);
  int count[3];
  TRY(count_roles(spec, &p, spec->split, p.count, count));
  int32_t *order = permutation(seed, "split", p.count, d);
  role *roles = arena_alloc(&d->memory, (size_t)(p.count + 1) * sizeof *roles);
  for (int i = 0; i < p.count; i++)
    roles[order[i]] = i < count[0]              ? ROLE_TRAIN
                      : i < count[0] + count[1] ? ROLE_VALIDATION
                                                : ROLE_TEST;
  give_roles(d, &p, roles);
  return OK;
}

/* Patients are dealt to the folds like cards, so that sizes differ by one at most. Of the others,
 * the validation fraction is cut off at the end of the same order. */
static status deal_folds(const data_spec *spec, uint64_t seed, dataset *d) {
  patients p = number_patients(d);
  if (p.count < spec->folds)
    return error_new(ERROR_DATA, spec->split_at, "%lld folds need as many cases; %s has %d%s",
                     (long long)spec->folds, spec->dataset, p.count, p.which);
  int32_t *order = permutation(seed, "folds", p.count, d);
  role *roles = arena_alloc(&d->memory, (size_t)(p.count + 1) * sizeof *roles);
  int others = 0, count[3], given = 0;
  for (int i = 0; i < p.count; i++) others += i % spec->folds != spec->fold;
  TRY(count_roles(spec, &p, (const double[3]){1 - spec->split[1], spec->split[1], 0}, others,
                  count));
  for (int i = 0; i < p.count; i++)
    roles[order[i]] = i % spec->folds == spec->fold ? ROLE_TEST
                      : given++ < count[0]          ? ROLE_TRAIN
                                                    : ROLE_VALIDATION;
  give_roles(d, &p, roles);
  return OK;
}

/* ---- by name ------------------------------------------------------------------------------- */

static int by_case_name(const void *name, const void *entry) {
  return strcmp(name, ((const case_entry *)entry)->name);
}

static bool is_called(const char *path, const char *name) {
  const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
  size_t length = strlen(name);
  return strncmp(file, name, length) == 0 &&
         (strcmp(file + length, ".nii") == 0 || strcmp(file + length, ".nii.gz") == 0);
}

/* Lists name a case, or one of its files: img0001 where the case is called 0001. */
static case_entry *case_named(dataset *d, const char *name) {
  case_entry *exact =
      bsearch(name, d->cases, (size_t)d->case_count, sizeof *d->cases, by_case_name);
  for (int i = 0; i < d->case_count && !exact; i++) {
    const case_entry *c = &d->cases[i];
    if (is_called(c->image, name) || (c->label && is_called(c->label, name))) return &d->cases[i];
  }
  return exact;
}

static void unknown_case(const data_spec *spec, const dataset *d, const listed_case *c, int r,
                         problems *found) {
  enum { CONSIDERED = 2000 };
  const char *names[CONSIDERED];
  int count = 0;
  for (int i = 0; i < d->case_count && count < CONSIDERED; i++) names[count++] = d->cases[i].name;
  const char *near = nearest_name(c->name, names, count);
  char shown[96];
  problems_add(found, error_new(ERROR_DATA, c->at,
                                "the split's %s list names %s, which is not in %s%s%s%s",
                                role_names[r], printable(c->name, shown), spec->dataset,
                                near ? "; did you mean " : "", near ? near : "", near ? "?" : ""));
}

static void assign_names(const data_spec *spec, dataset *d, problems *found) {
  for (int i = 0; i < d->case_count; i++) d->cases[i].role = ROLE_NONE;
  for (int r = 0; r < 3; r++)
    for (int i = 0; i < spec->split_name_count[r]; i++) {
      const listed_case *listed = &spec->split_names[r][i];
      case_entry *c = case_named(d, listed->name);
      if (!c)
        unknown_case(spec, d, listed, r, found);
      else if (c->role == (role)r)
        problems_add(found,
                     error_new(ERROR_DATA, listed->at, "case %s is in the split's %s list twice",
                               c->name, role_names[r]));
      else if (c->role != ROLE_NONE)
        problems_add(found,
                     error_new(ERROR_DATA, listed->at, "case %s is in the split's %s and %s lists",
                               c->name, role_names[c->role], role_names[r]));
      else
        c->role = (role)r;
    }
}

/* The share of the training list that validates. */
static status deal_validation(const data_spec *spec, uint64_t seed, dataset *d) {
  if (spec->split[ROLE_VALIDATION] <= 0) return OK;
  patients p = number_patients(d);
  if (!p.which[0]) p.which = " in the list train";
  int count[3];
  TRY(count_roles(spec, &p,
                  (const double[3]){1 - spec->split[ROLE_VALIDATION], spec->split[ROLE_VALIDATION]},
                  p.count, count));
  int32_t *order = permutation(seed, "validation", p.count, d);
  role *roles = arena_alloc(&d->memory, (size_t)(p.count + 1) * sizeof *roles);
  for (int i = 0; i < p.count; i++)
    roles[order[i]] = i < count[ROLE_TRAIN] ? ROLE_TRAIN : ROLE_VALIDATION;
  give_roles(d, &p, roles);
  return OK;
}

/* ---- no leaks ------------------------------------------------------------------------------ */

static int by_patient(const void *a, const void *b) {
  return strcmp((*(case_entry *const *)a)->patient, (*(case_entry *const *)b)->patient);
}

static bool in_two_roles(const case_entry *a, const case_entry *b) {
  return a->role != b->role && a->role != ROLE_NONE && b->role != ROLE_NONE;
}

static void check_patients(const data_spec *spec, case_entry **cases, int n, problems *found) {
  qsort(cases, (size_t)n, sizeof *cases, by_patient);
  for (int i = 0; i < n; i++)
    for (int k = i + 1; k < n && strcmp(cases[k]->patient, cases[i]->patient) == 0; k++) {
      if (!in_two_roles(cases[i], cases[k])) continue;
      problems_add(found, error_new(ERROR_DATA, spec->split_at,
                                    "patient %s is in two roles: case %s (%s) and case %s (%s)",
                                    cases[i]->patient, cases[i]->name, role_names[cases[i]->role],
                                    cases[k]->name, role_names[cases[k]->role]));
      break; /* one example a patient and role is enough */
    }
}

typedef struct sized_case {
  const case_entry *entry;
  off_t bytes;
  dev_t device;
  ino_t inode;
  uint64_t probe; /* hash of a piece of the file */
} sized_case;

static int by_size(const void *a, const void *b) {
  const sized_case *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
  if (x->probe != y->probe) return x->probe < y->probe ? -1 : 1;
  return strcmp(x->entry->name, y->entry->name);
}

enum { PIECE = 1 << 16 };

/* Of the middle, where volumes of one size differ even when they are not compressed. */
static uint64_t probe(const char *path, off_t bytes) {
  FILE *in = fopen(path, "rb");
  char *piece = malloc(PIECE);
  uint64_t hash = 0;
  if (in && piece && fseeko(in, bytes > PIECE ? (bytes - PIECE) / 2 : 0, SEEK_SET) == 0)
    hash = bytes_hash(piece, fread(piece, 1, PIECE, in));
  if (in) fclose(in);
  free(piece);
  return hash;
}

/* Compares the files piece by piece, and stops at the first difference. */
static bool same_content(const char *a, const char *b) {
  FILE *x = fopen(a, "rb"), *y = fopen(b, "rb");
  char *pieces = malloc(2 * (size_t)PIECE);
  bool same = x && y && pieces;
  for (size_t n = PIECE; same && n == PIECE;) {
    n = fread(pieces, 1, PIECE, x);
    same = fread(pieces + PIECE, 1, PIECE, y) == n && memcmp(pieces, pieces + PIECE, n) == 0;
  }
  same = same && !ferror(x) && !ferror(y);
  if (x) fclose(x);
  if (y) fclose(y);
  free(pieces);
  return same;
}

/* Files are opened only where sizes are equal, which in compressed data sets is rare, and read in
 * full only where a piece is equal too. */
static void check_contents(const data_spec *spec, dataset *d, problems *found) {
  sized_case *sized = arena_alloc(&d->memory, (size_t)(d->case_count + 1) * sizeof *sized);
  int n = 0;
  for (int i = 0; i < d->case_count; i++) {
    struct stat info;
    if (d->cases[i].role == ROLE_NONE || stat(d->cases[i].image, &info) != 0 || info.st_size == 0)
      continue;
    sized[n++] = (sized_case){&d->cases[i], info.st_size, info.st_dev, info.st_ino, 0};
  }
  qsort(sized, (size_t)n, sizeof *sized, by_size);
  for (int i = 0; i < n; i++)
    if ((i > 0 && sized[i - 1].bytes == sized[i].bytes) ||
        (i + 1 < n && sized[i + 1].bytes == sized[i].bytes))
      sized[i].probe = probe(sized[i].entry->image, sized[i].bytes);
  qsort(sized, (size_t)n, sizeof *sized, by_size);
  for (int i = 0; i < n; i++)
    for (int k = i + 1;
         k < n && sized[k].bytes == sized[i].bytes && sized[k].probe == sized[i].probe; k++) {
      const sized_case *a = &sized[i], *b = &sized[k];
      if (!in_two_roles(a->entry, b->entry)) continue;
      bool same_file = a->device == b->device && a->inode == b->inode;
      if (!same_file && !same_content(a->entry->image, b->entry->image)) continue;
      problems_add(found, error_new(ERROR_DATA, spec->split_at,
                                    "%s (%s) and %s (%s) hold the same image; a case must have "
                                    "one role",
                                    a->entry->image, role_names[a->entry->role], b->entry->image,
                                    role_names[b->entry->role]));
    }
}

/* ---- labels -------------------------------------------------------------------------------- */

/* The first ⌈fraction·n⌉ of an order that depends on the seed only: 10 % is part of 20 %. */
static void withhold_labels(const data_spec *spec, uint64_t seed, dataset *d, problems *found) {
  if (spec->label_fraction <= 0 || spec->label_fraction >= 1) return;
  int *train = arena_alloc(&d->memory, (size_t)(d->case_count + 1) * sizeof *train), n = 0;
  for (int i = 0; i < d->case_count; i++)
    if (d->cases[i].role == ROLE_TRAIN && d->cases[i].label) train[n++] = i;
  int kept = (int)ceil(spec->label_fraction * n - 1e-9);
  int32_t *order = permutation(seed, "label fraction", n, d);
  for (int i = kept; i < n; i++) {
    case_entry *c = &d->cases[train[order[i]]];
    c->is_label_withheld = true;
    c->label = NULL;
  }
  if (kept == 0)
    problems_add(found, error_new(ERROR_DATA, spec->split_at,
                                  "data: label_fraction leaves no labelled training case"));
}

void split_assign(const data_spec *spec, uint64_t seed, dataset *d, problems *found) {
  if (spec->has_split_seed) seed = spec->split_seed;
  find_patients(spec, d, found);
  bool is_dealt = spec->split_kind == SPLIT_FRACTIONS || spec->split_kind == SPLIT_FOLDS;
  for (int i = 0; i < d->case_count && is_dealt; i++) d->cases[i].role = ROLE_TRAIN;
  switch (spec->split_kind) {
  case SPLIT_FRACTIONS:
    problems_add(found, deal_fractions(spec, seed, d));
    break;
  case SPLIT_FOLDS:
    problems_add(found, deal_folds(spec, seed, d));
    break;
  case SPLIT_NAMES:
    assign_names(spec, d, found);
    problems_add(found, deal_validation(spec, seed, d));
    break;
  case SPLIT_LISTED: /* the layout has set them */
    break;
  }
  case_entry **cases = arena_alloc(&d->memory, (size_t)(d->case_count + 1) * sizeof *cases);
  for (int i = 0; i < d->case_count; i++) cases[i] = &d->cases[i];
  check_patients(spec, cases, d->case_count, found);
  check_contents(spec, d, found);
  withhold_labels(spec, seed, d, found);
}
