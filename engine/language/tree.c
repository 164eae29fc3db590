#include "language/tree.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "language/elsewhere.h"

/* ---- file names ---------------------------------------------------------------------------- */

typedef struct interned {
  struct interned *next;
  char name[];
} interned;

const char *intern_file(const char *path) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static interned *names;
  pthread_mutex_lock(&mutex);
  interned *found = names;
  while (found && strcmp(found->name, path) != 0) found = found->next;
  if (!found) {
    size_t bytes = strlen(path) + 1;
    found = memory_take(sizeof *found + bytes);
    memcpy(found->name, path, bytes);
    found->next = names;
    names = found;
  }
  pthread_mutex_unlock(&mutex);
  return found->name;
}

/* ---- nodes --------------------------------------------------------------------------------- */

/* Can `text` be written as a plain scalar in a block, and does it come back the same? */
static bool is_plain_safe(const char *text) {
  size_t length = strlen(text);
  if (length == 0) return true; /* the empty null */
  if (text[0] == ' ' || text[length - 1] == ' ' || text[length - 1] == ':') return false;
  if (strchr("[]{},#&*!|>'\"%@`", text[0])) return false;
  if (strchr("-?:", text[0]) && (text[1] == 0 || text[1] == ' ')) return false;
  if (text_starts_with(text, "---") || text_starts_with(text, "...") || strcmp(text, "<<") == 0)
    return false;
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
    if (*p < 0x20 || *p == 0x7F) return false;
    if (*p >= 0x80) return false; /* quotes settle every question of printable characters */
    if (p[0] == ':' && p[1] == ' ') return false;
    if (p[0] == ' ' && p[1] == '#') return false;
  }
  return true;
}

static bool is_flow_safe(const char *text) {
  return text[0] && is_plain_safe(text) && !strpbrk(text, ",[]{}:?") && text[0] != '<';
}

tree *tree_new(arena *memory, source_pos at, tree_kind kind, int capacity) {
  tree *t = arena_alloc(memory, sizeof *t);
  t->kind = kind;
  t->at = at;
  if (capacity > 0 && kind != TREE_SCALAR)
    t->items = arena_alloc(memory, (size_t)capacity * sizeof(tree *));
  if (capacity > 0 && kind == TREE_MAP)
    t->keys = arena_alloc(memory, (size_t)capacity * sizeof(tree *));
  return t;
}

tree *tree_scalar(arena *memory, source_pos at, const char *text, bool quoted) {
  tree *t = tree_new(memory, at, TREE_SCALAR, 0);
  t->text = arena_strdup(memory, text);
  t->quoted = quoted || !is_plain_safe(text);
  return t;
}

tree *tree_copy(arena *memory, const tree *t) {
  tree *copy = tree_new(memory, t->at, t->kind, t->count);
  copy->quoted = t->quoted;
  copy->text = t->text;
  copy->count = t->count;
  for (int i = 0; i < t->count; i++) {
    copy->items[i] = tree_copy(memory, t->items[i]);
    if (t->kind == TREE_MAP) copy->keys[i] = tree_copy(memory, t->keys[i]);
  }
  return copy;
}

int64_t tree_size(const tree *t) {
  int64_t size = 1;
  for (int i = 0; i < t->count; i++) size += tree_size(t->items[i]) + (t->kind == TREE_MAP ? 1 : 0);
  return size;
}

static int find_key(const tree *map, const char *key) {
  if (!map || map->kind != TREE_MAP) return -1;
  for (int i = 0; i < map->count; i++)
    if (strcmp(map->keys[i]->text, key) == 0) return i;
  return -1;
}

tree *tree_get(const tree *map, const char *key) {
  int i = find_key(map, key);
  return i < 0 ? NULL : map->items[i];
}

tree *tree_key(const tree *map, const char *key) {
  int i = find_key(map, key);
  return i < 0 ? NULL : map->keys[i];
}

const char *printable(const char *text, char out[96]) {
  enum { SHOWN = 60 };
  size_t length = strlen(text), shown = length;
  if (length > SHOWN) {
    shown = SHOWN;
    while (shown > 0 && ((unsigned char)text[shown] & 0xC0) == 0x80) shown--;
  }
  for (size_t i = 0; i < shown; i++) out[i] = text[i] == '\n' || text[i] == '\t' ? '?' : text[i];
  strcpy(out + shown, shown < length ? "…" : "");
  text_make_printable(out);
  return out;
}

const char *tree_describe(const tree *t, char out[96]) {
  if (!t || tree_is_null(t)) return strcpy(out, "nothing");
  if (t->kind == TREE_LIST) {
    if (t->count == 0) return strcpy(out, "an empty list");
    snprintf(out, 96, "a list of %d", t->count);
    return out;
  }
  if (t->kind == TREE_MAP) return strcpy(out, "a mapping");
  char text[96];
  snprintf(out, 96, "\"%s\"", printable(t->text, text));
  return out;
}

/* ---- composer ------------------------------------------------------------------------------ */

typedef struct anchor {
  char *name;
  tree *node; /* NULL while its content is still being read */
  int64_t size;
  int height;
} anchor;

typedef struct composer {
  arena *memory;
  const char *file, *text;
  size_t length;
  yaml_parser_t parser;
  anchor *anchors;
  int anchor_count, anchor_capacity;
  int64_t nodes;
} composer;

static source_pos position(const composer *c, yaml_mark_t mark) {
  return (source_pos){c->file, (int)mark.line + 1, (int)mark.column + 1};
}

static source_pos position_of_byte(const composer *c, size_t offset) {
  source_pos at = {c->file, 1, 1};
  for (size_t i = 0; i < offset && i < c->length; i++) {
    unsigned char byte = (unsigned char)c->text[i];
    if (byte == '\n') {
      at.line++;
      at.column = 1;
    } else if ((byte & 0xC0) != 0x80) {
      at.column++;
    }
  }
  return at;
}

/* The text of a line, counted from 1, without its end; NULL: there is none. */
static const char *line_at(const composer *c, int line, size_t *length) {
  const char *start = c->text, *end = c->text + c->length;
  while (line > 1 && start && start < end) {
    start = memchr(start, '\n', (size_t)(end - start));
    if (start) start++;
    line--;
  }
  if (!start || start >= end) return NULL;
  const char *stop = memchr(start, '\n', (size_t)(end - start));
  *length = (size_t)((stop ? stop : end) - start);
  return start;
}

static bool has_unquoted_expression(const char *line, size_t length) {
  char quote = 0;
  for (size_t i = 0; i + 1 < length; i++) {
    if (quote == 0 && line[i] == '$' && line[i + 1] == '{') return true;
    if (quote == line[i])
      quote = 0;
    else if (quote == 0 && (line[i] == '"' || line[i] == '\''))
      quote = line[i];
  }
  return false;
}

/* What the user can do about the syntax error in this line, or nothing. */
static void advise(const yaml_parser_t *p, const char *line, size_t length, char out[128]) {
  size_t column = p->problem_mark.column, indent = 0;
  const char *context = p->context ? p->context : "";
  while (indent < length && line[indent] == ' ') indent++;
  out[0] = 0;
  if (strstr(context, "flow") && has_unquoted_expression(line, length))
    snprintf(out, 128, " Inside [ ] and { } an expression needs quotes: \"${name}\".");
  else if (memchr(line, '\t', length))
    snprintf(out, 128, " This line contains a tab: indent with spaces.");
  else if (strstr(p->problem, "mapping values are not allowed"))
    snprintf(out, 128, "%s",
             memmem(line, column < length ? column : length, ": ", 2)
                 ? " A text with a colon and a space in it needs quotes."
                 : " Either the line above lacks the colon and the space after its key, or one "
                   "of the two is indented wrongly.");
  else if (strstr(context, "block") && column == indent && column != p->context_mark.column)
    snprintf(out, 128, " This line is indented by %zu, line %zu by %zu.", column,
             p->context_mark.line + 1, p->context_mark.column);
}

/* libyaml's message for a failure, with what the user can do about the common ones. */
static status syntax_error(const composer *c) {
  const yaml_parser_t *p = &c->parser;
  const char *problem = p->problem ? p->problem : "the text is not YAML";
  if (p->error == YAML_MEMORY_ERROR) memory_end(c->length);
  if (p->error == YAML_READER_ERROR) {
    size_t offset = p->problem_offset;
    /* A wrong continuation byte is the fault of the byte that started the character. */
    if (strstr(problem, "trailing"))
      for (int back = 0; back < 3 && offset > 0; back++)
        if (((unsigned char)c->text[--offset] & 0xC0) == 0xC0) break;
    source_pos at = position_of_byte(c, offset);
    unsigned byte = offset < c->length ? (unsigned char)c->text[offset] : 0;
    if (strstr(problem, "control"))
      return error_new(ERROR_PIPELINE, at,
                       "This is not a text file: it contains the control character 0x%02X.", byte);
    return error_new(ERROR_PIPELINE, at,
                     "This is not UTF-8 text (byte 0x%02X): save the file as UTF-8.", byte);
  }
  source_pos at = position(c, p->problem_mark);
  size_t byte = 0; /* marks count characters: find the byte to look at */
  for (size_t seen = 0; byte < c->length; byte++) {
    if (((unsigned char)c->text[byte] & 0xC0) == 0x80) continue;
    if (seen++ == p->problem_mark.index) break;
  }
  char found = byte < c->length ? c->text[byte] : 0;
  if (strstr(problem, "cannot start any token")) {
    if (found == '\t')
      return error_new(ERROR_PIPELINE, at, "A tab cannot indent YAML: use spaces.");
    return error_new(ERROR_PIPELINE, at, "A value cannot start with '%c': put it in quotes.",
                     found);
  }
  size_t length = 0;
  const char *line = line_at(c, at.line, &length);
  char advice[128] = "";
  if (line && p->problem) advise(p, line, length, advice);
  char since[48] = "";
  if (p->context && p->context_mark.line != p->problem_mark.line)
    snprintf(since, sizeof since, " that starts in line %zu", p->context_mark.line + 1);
  return error_new(ERROR_PIPELINE, at, "YAML syntax: %s%s%s%s.%s", p->context ? p->context : "",
                   since, p->context ? ", " : "", problem, advice);
}

static status next(composer *c, yaml_event_t *event) {
  if (!yaml_parser_parse(&c->parser, event)) return syntax_error(c);
  return OK;
}

static status count_nodes(composer *c, int64_t more, source_pos at) {
  c->nodes += more;
  if (c->nodes > TREE_MAX_NODES)
    return error_new(ERROR_PIPELINE, at,
                     "The file has more than %d values once its aliases are expanded.",
                     TREE_MAX_NODES);
  return OK;
}

static status check_depth(int depth, source_pos at) {
  if (depth > TREE_MAX_DEPTH)
    return error_new(ERROR_PIPELINE, at, "Values are nested more than %d deep.", TREE_MAX_DEPTH);
  return OK;
}

/* Core tags are allowed where they agree with the node. *quoted is changed by tags on scalars. */
static status check_tag(const yaml_char_t *tag_bytes, tree_kind kind, source_pos at, bool *quoted) {
  const char *tag = (const char *)tag_bytes;
  if (!tag) return OK;
  if (strcmp(tag, "!") == 0) { /* "no particular type": a string if scalar */
    *quoted = true;
    return OK;
  }
  static const char *const scalar_tags[] = {YAML_INT_TAG, YAML_FLOAT_TAG, YAML_BOOL_TAG,
                                            YAML_NULL_TAG};
  if (kind == TREE_LIST && strcmp(tag, YAML_SEQ_TAG) == 0) return OK;
  if (kind == TREE_MAP && strcmp(tag, YAML_MAP_TAG) == 0) return OK;
  if (kind == TREE_SCALAR && strcmp(tag, YAML_STR_TAG) == 0) {
    *quoted = true;
    return OK;
  }
  for (size_t i = 0; kind == TREE_SCALAR && i < sizeof scalar_tags / sizeof scalar_tags[0]; i++)
    if (strcmp(tag, scalar_tags[i]) == 0) {
      *quoted = false;
      return OK;
    }
  char text[96];
  return error_new(ERROR_PIPELINE, at, "The tag %s is not supported: remove it.",
                   printable(tag, text));
}

static status compose(composer *c, yaml_event_t *event, int depth, tree **out, int *height);

static int by_text_and_place(const void *a, const void *b) {
  const tree *x = *(tree *const *)a, *y = *(tree *const *)b;
  int order = strcmp(x->text, y->text);
  if (order) return order;
  if (x->at.line != y->at.line) return x->at.line < y->at.line ? -1 : 1;
  return (x->at.column > y->at.column) - (x->at.column < y->at.column);
}

status tree_check_duplicates(const tree *map) {
  if (map->count < 2) return OK;
  tree **sorted = malloc((size_t)map->count * sizeof *sorted);
  if (!sorted) return error_out_of_memory((size_t)map->count * sizeof *sorted);
  memcpy(sorted, map->keys, (size_t)map->count * sizeof *sorted);
  qsort(sorted, (size_t)map->count, sizeof *sorted, by_text_and_place);
  problems all = {0};
  char text[96], place[48] = "";
  for (int i = 1; i < map->count; i++) {
    if (strcmp(sorted[i]->text, sorted[i - 1]->text) != 0) continue;
    int line = sorted[i - 1]->at.line;
    if (line > 0) snprintf(place, sizeof place, "; the first is in line %d", line);
    problems_add(&all, error_new(ERROR_PIPELINE, sorted[i]->at, "The key \"%s\" is here twice%s.",
                                 printable(sorted[i]->text, text), place));
  }
  free(sorted);
  return problems_take(&all);
}

static status check_map_key(const tree *key) {
  if (key->kind != TREE_SCALAR)
    return error_new(ERROR_PIPELINE, key->at, "A key must be text, not %s.",
                     key->kind == TREE_LIST ? "a list" : "a mapping");
  if (key->text[0] == 0) return error_new(ERROR_PIPELINE, key->at, "The key is empty.");
  if (strcmp(key->text, "<<") == 0)
    return error_new(ERROR_PIPELINE, key->at,
                     "Merge keys (<<) are not supported: include a base file with `use:`.");
  if (strlen(key->text) > TREE_MAX_KEY_BYTES)
    return error_new(ERROR_PIPELINE, key->at, "The key is longer than %d bytes.",
                     TREE_MAX_KEY_BYTES);
  return OK;
}

/* The children of a list or a map, up to its end event. */
static status compose_children(composer *c, tree *t, int depth, int *height) {
  yaml_event_type_t end = t->kind == TREE_LIST ? YAML_SEQUENCE_END_EVENT : YAML_MAPPING_END_EVENT;
  int item_capacity = 0, key_capacity = 0;
  for (;;) {
    yaml_event_t event;
    tree *key = NULL, *value = NULL;
    int child_height = 0;
    TRY(next(c, &event));
    if (event.type == end) {
      yaml_event_delete(&event);
      break;
    }
    if (t->kind == TREE_MAP) {
      TRY(compose(c, &event, depth + 1, &key, &child_height));
      TRY(check_map_key(key));
      TRY(next(c, &event));
    }
    TRY(compose(c, &event, depth + 1, &value, &child_height));
    if (child_height + 1 > *height) *height = child_height + 1;
    int count = t->count;
    if (key) {
      int keys = count;
      ARENA_PUSH(c->memory, t->keys, keys, key_capacity, key);
    }
    ARENA_PUSH(c->memory, t->items, t->count, item_capacity, value);
  }
  return t->kind == TREE_MAP ? tree_check_duplicates(t) : OK;
}

static status compose_alias(composer *c, const char *name, source_pos at, int depth, tree **out,
                            int *height) {
  char text[96];
  for (int i = c->anchor_count - 1; i >= 0; i--) {
    const anchor *a = &c->anchors[i];
    if (strcmp(a->name, name) != 0) continue;
    if (!a->node)
      return error_new(ERROR_PIPELINE, at, "The alias *%s is inside what it stands for.",
                       printable(name, text));
    TRY(count_nodes(c, a->size, at));
    TRY(check_depth(depth + a->height, at));
    *height = a->height;
    *out = tree_copy(c->memory, a->node);
    return OK;
  }
  return error_new(ERROR_PIPELINE, at, "There is no anchor &%s before this alias.",
                   printable(name, text));
}

/* Consumes `event` (deleted here) and, for collections, everything up to its end. */
static status compose_owned(composer *c, const yaml_event_t *event, int depth, tree **out,
                            int *height) {
  source_pos at = position(c, event->start_mark);
  *height = 0;
  TRY(check_depth(depth, at));
  if (event->type == YAML_ALIAS_EVENT)
    return compose_alias(c, (const char *)event->data.alias.anchor, at, depth, out, height);
  TRY(count_nodes(c, 1, at));

  int64_t nodes_before = c->nodes - 1;
  const yaml_char_t *anchor_name = NULL;
  tree *t;
  if (event->type == YAML_SCALAR_EVENT) {
    const char *text = (const char *)event->data.scalar.value;
    bool quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    anchor_name = event->data.scalar.anchor;
    TRY(check_tag(event->data.scalar.tag, TREE_SCALAR, at, &quoted));
    if (strlen(text) != event->data.scalar.length)
      return error_new(ERROR_PIPELINE, at, "The text contains a NUL character.");
    t = tree_scalar(c->memory, at, text, quoted);
  } else {
    bool is_list = event->type == YAML_SEQUENCE_START_EVENT, ignored = false;
    anchor_name = is_list ? event->data.sequence_start.anchor : event->data.mapping_start.anchor;
    t = tree_new(c->memory, at, is_list ? TREE_LIST : TREE_MAP, 0);
    TRY(check_tag(is_list ? event->data.sequence_start.tag : event->data.mapping_start.tag, t->kind,
                  at, &ignored));
  }

  int slot = -1;
  if (anchor_name) {
    anchor a = {.name = arena_strdup(c->memory, (const char *)anchor_name)};
    slot = c->anchor_count;
    ARENA_PUSH(c->memory, c->anchors, c->anchor_count, c->anchor_capacity, a);
  }
  if (t->kind != TREE_SCALAR) TRY(compose_children(c, t, depth, height));
  if (slot >= 0) {
    c->anchors[slot].node = t;
    c->anchors[slot].size = c->nodes - nodes_before;
    c->anchors[slot].height = *height;
  }
  *out = t;
  return OK;
}

static status compose(composer *c, yaml_event_t *event, int depth, tree **out, int *height) {
  status error = compose_owned(c, event, depth, out, height);
  yaml_event_delete(event);
  return error;
}

static status compose_document(composer *c, tree **out) {
  yaml_event_t event;
  source_pos start = {c->file, 1, 1};
  int height;
  for (;;) {
    TRY(next(c, &event));
    yaml_event_type_t type = event.type;
    if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT) break;
    yaml_event_delete(&event);
  }
  if (event.type == YAML_STREAM_END_EVENT) {
    yaml_event_delete(&event);
    return error_new(ERROR_PIPELINE, start, "The file is empty.");
  }
  TRY(compose(c, &event, 1, out, &height));
  for (;;) {
    TRY(next(c, &event));
    yaml_event_type_t type = event.type;
    source_pos at = position(c, event.start_mark);
    yaml_event_delete(&event);
    if (type == YAML_STREAM_END_EVENT) return OK;
    if (type == YAML_DOCUMENT_START_EVENT)
      return error_new(ERROR_PIPELINE, at,
                       "A second document starts here: a file holds one (remove the ---).");
  }
}

status tree_parse(arena *memory, const char *text, size_t length, const char *name, tree **out) {
  *out = NULL;
  if (length > TREE_MAX_FILE_BYTES)
    return error_new(ERROR_PIPELINE, (source_pos){intern_file(name), 0, 0},
                     "The file is larger than %d KiB.", TREE_MAX_FILE_BYTES / 1024);
  composer c = {.memory = memory, .file = intern_file(name), .text = text, .length = length};
  if (!yaml_parser_initialize(&c.parser)) memory_end(sizeof c.parser);
  yaml_parser_set_input_string(&c.parser, (const unsigned char *)text, length);
  yaml_parser_set_encoding(&c.parser, YAML_UTF8_ENCODING);
  tree *root = NULL;
  status error = compose_document(&c, &root);
  yaml_parser_delete(&c.parser);
  if (!error) *out = root;
  return error;
}

status tree_load(arena *memory, const char *path, tree **out) {
  char *text;
  size_t length;
  *out = NULL;
  TRY(file_read(path, TREE_MAX_FILE_BYTES, &text, &length));
  status error = tree_parse(memory, text, length, path, out);
  free(text);
  return error;
}

/* ---- typed reading ------------------------------------------------------------------------- */

static bool reads_as_null(const char *text) {
  return text[0] == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

bool tree_is_null(const tree *t) {
  return t->kind == TREE_SCALAR && !t->quoted && reads_as_null(t->text);
}

static status expected(const tree *t, const char *what) {
  char found[96];
  return error_new(ERROR_PIPELINE, t->at, "expected %s, not %s.%s", what, tree_describe(t, found),
                   t->kind == TREE_SCALAR && t->quoted &&
                           strspn(t->text, "0123456789.eE+-_") == strlen(t->text)
                       ? " Quotes make it text: remove them."
                       : "");
}

status tree_bool(const tree *t, bool *out) {
  bool is_true = t->kind == TREE_SCALAR && !t->quoted && strcmp(t->text, "true") == 0;
  bool is_false = t->kind == TREE_SCALAR && !t->quoted && strcmp(t->text, "false") == 0;
  if (!is_true && !is_false) return expected(t, "true or false");
  *out = is_true;
  return OK;
}

/* A decimal number: copies it to `digits` without the underscores between digits. */
static bool scan_number(const char *text, char digits[64], bool *has_fraction) {
  size_t n = 0;
  bool seen_digit = false, seen_dot = false, seen_exponent = false;
  *has_fraction = false;
  for (const char *p = text; *p; p++) {
    bool is_digit = *p >= '0' && *p <= '9';
    if (*p == '_') {
      bool between = p > text && p[-1] >= '0' && p[-1] <= '9' && p[1] >= '0' && p[1] <= '9';
      if (!between) return false;
      continue;
    }
    if (is_digit) {
      seen_digit = true;
    } else if (*p == '+' || *p == '-') {
      if (p != text && !(seen_exponent && (p[-1] == 'e' || p[-1] == 'E'))) return false;
    } else if (*p == '.') {
      if (seen_dot || seen_exponent) return false;
      seen_dot = *has_fraction = true;
    } else if (*p == 'e' || *p == 'E') {
      if (!seen_digit || seen_exponent) return false;
      seen_exponent = *has_fraction = true;
      if (p[1] == 0 || ((p[1] == '+' || p[1] == '-') && p[2] == 0)) return false;
    } else {
      return false;
    }
    if (n == 63) return false;
    digits[n++] = *p;
  }
  digits[n] = 0;
  return seen_digit;
}

status tree_float(const tree *t, double *out) {
  char digits[64];
  bool has_fraction;
  if (t->kind != TREE_SCALAR || t->quoted || !scan_number(t->text, digits, &has_fraction))
    return expected(t, "a number");
  double value = strtod(digits, NULL);
  if (!isfinite(value)) return expected(t, "a finite number");
  *out = value;
  return OK;
}

status tree_int(const tree *t, int64_t *out) {
  char digits[64];
  bool has_fraction;
  if (t->kind != TREE_SCALAR || t->quoted || !scan_number(t->text, digits, &has_fraction))
    return expected(t, "an integer");
  if (has_fraction) {
    double value = strtod(digits, NULL);
    if (!(fabs(value) <= 9007199254740992.0) || value != floor(value))
      return expected(t, "an integer");
    *out = (int64_t)value;
    return OK;
  }
  errno = 0;
  long long value = strtoll(digits, NULL, 10);
  if (errno == ERANGE) return expected(t, "an integer of at most 63 bits");
  *out = value;
  return OK;
}

status tree_string(const tree *t, const char **out) {
  if (t->kind != TREE_SCALAR || tree_is_null(t)) return expected(t, "text");
  *out = t->text;
  return OK;
}

void tree_check_keys(const tree *map, const char *what, const char *const *allowed, problems *all) {
  char found[96];
  if (map->kind != TREE_MAP) {
    problems_add(all, error_new(ERROR_PIPELINE, map->at, "%s must be a mapping, not %s.", what,
                                tree_describe(map, found)));
    return;
  }
  int count = 0;
  while (allowed[count]) count++;
  for (int i = 0; i < map->count; i++) {
    const char *key = map->keys[i]->text;
    bool known = false;
    for (int k = 0; k < count && !known; k++) known = strcmp(key, allowed[k]) == 0;
    if (known) continue;
    const char *near = nearest_name(key, allowed, count), *here = elsewhere_key(key);
    text_buffer hint = {0};
    if (here) {
      text_add(&hint, "here it is %s.", here);
    } else if (near) {
      text_add(&hint, "did you mean \"%s\"?", near);
    } else {
      text_add(&hint, "it can have");
      for (int k = 0; k < count; k++) text_add(&hint, "%s %s", k ? "," : "", allowed[k]);
      text_add(&hint, ".");
    }
    problems_add(all, error_new(ERROR_PIPELINE, map->keys[i]->at, "%s has no key \"%s\"; %s", what,
                                printable(key, found), hint.data));
    text_free(&hint);
  }
}

/* ---- writing ------------------------------------------------------------------------------- */

static void write_quoted(const char *text, text_buffer *out) {
  text_append(out, "\"", 1);
  for (const unsigned char *p = (const unsigned char *)text; *p;) {
    if (*p < 0x80) {
      if (*p == '"' || *p == '\\')
        text_add(out, "\\%c", *p);
      else if (*p == '\n')
        text_append(out, "\\n", 2);
      else if (*p == '\t')
        text_append(out, "\\t", 2);
      else if (*p < 0x20 || *p == 0x7F)
        text_add(out, "\\x%02X", *p);
      else
        text_append(out, (const char *)p, 1);
      p++;
      continue;
    }
    int more = *p >= 0xF0 ? 3 : *p >= 0xE0 ? 2 : 1;
    uint32_t code = *p & (0x3Fu >> more);
    int used = 1;
    while (used <= more && (p[used] & 0xC0) == 0x80) code = code << 6 | (p[used++] & 0x3Fu);
    bool is_printable = (code >= 0xA0 && code <= 0xD7FF && code != 0x2028 && code != 0x2029) ||
                        (code >= 0xE000 && code <= 0xFFFD && code != 0xFEFF) || code >= 0x10000;
    if (is_printable)
      text_append(out, (const char *)p, (size_t)used);
    else
      text_add(out, "\\u%04X", code);
    p += used;
  }
  text_append(out, "\"", 1);
}

static void write_scalar(const tree *t, text_buffer *out) {
  if (t->quoted)
    write_quoted(t->text, out);
  else
    text_append(out, t->text, strlen(t->text));
}

/* Short lists of scalars, and empty collections, go on one line. */
static bool fits_in_line(const tree *t) {
  enum { LINE = 80 };
  if (t->kind == TREE_SCALAR || t->count == 0) return true;
  if (t->kind == TREE_MAP) return false;
  size_t length = 0;
  for (int i = 0; i < t->count; i++) {
    const tree *item = t->items[i];
    if (item->kind != TREE_SCALAR || (!item->quoted && !is_flow_safe(item->text))) return false;
    length += strlen(item->text) + 4;
  }
  return length <= LINE;
}

static void write_inline(const tree *t, text_buffer *out) {
  if (t->kind == TREE_SCALAR) {
    write_scalar(t, out);
  } else if (t->count == 0) {
    text_add(out, t->kind == TREE_LIST ? "[]" : "{}");
  } else {
    for (int i = 0; i < t->count; i++) {
      text_add(out, i ? ", " : "[");
      write_scalar(t->items[i], out);
    }
    text_add(out, "]");
  }
}

static void write_node(const tree *t, text_buffer *out, int indent, bool started) {
  if (fits_in_line(t)) {
    text_add(out, "%*s", started ? 0 : indent, "");
    write_inline(t, out);
    text_add(out, "\n");
    return;
  }
  for (int i = 0; i < t->count; i++) {
    const tree *value = t->items[i];
    text_add(out, "%*s", started && i == 0 ? 0 : indent, "");
    if (t->kind == TREE_LIST) {
      text_add(out, "-%s",
               value->kind == TREE_SCALAR && !value->text[0] && !value->quoted ? "" : " ");
      write_node(value, out, indent + 2, true);
      continue;
    }
    write_scalar(t->keys[i], out);
    if (fits_in_line(value)) {
      bool is_empty = value->kind == TREE_SCALAR && !value->text[0] && !value->quoted;
      text_add(out, is_empty ? ":" : ": ");
      write_node(value, out, indent + 2, true);
    } else {
      text_add(out, ":\n");
      write_node(value, out, indent + 2, false);
    }
  }
}

/* Can it be a literal block? Control characters and what YAML takes for a line's end cannot. */
static bool is_literal_safe(const char *text) {
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
    if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7F) return false;
    if (*p == 0xC2 && p[1] < 0xA0) return false;                                    /* C1 */
    if (*p == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9)) return false; /* separators */
    if (*p == 0xEF && (p[1] == 0xBB || p[1] == 0xBF)) return false; /* byte order mark, U+FFFE */
  }
  return text[strspn(text, "\n")] != 0 && text_is_utf8(text);
}

void tree_write_key(const char *text, text_buffer *out) {
  if (is_flow_safe(text) && !reads_as_null(text))
    text_add(out, "%s", text);
  else
    write_quoted(text, out);
}

void tree_write_text(const char *text, text_buffer *out, int indent) {
  size_t length = strlen(text), end = length;
  if (!strchr(text, '\n') || !is_literal_safe(text)) {
    write_quoted(text, out);
    text_add(out, "\n");
    return;
  }
  while (text[end - 1] == '\n') end--;
  text_add(out, "|%s%s\n", text[0] == ' ' || text[0] == '\n' || text[0] == '\t' ? "2" : "",
           length == end       ? "-"
           : length == end + 1 ? ""
                               : "+");
  for (const char *line = text; *line;) {
    size_t bytes = strcspn(line, "\n");
    if (bytes > 0) text_add(out, "%*s", indent + 2, "");
    text_append(out, line, bytes);
    text_add(out, "\n");
    line += bytes + (line[bytes] == '\n');
  }
}

void tree_write(const tree *t, text_buffer *out, int indent) {
  write_node(t, out, indent, false);
}
