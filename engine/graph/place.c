/* place: from a mistake inside a shipped model or block to the line that the user can change. */
#include "graph/instance.h"

#include <string.h>

enum { MAX_ORIGIN_DEPTH = 64 };

static source_pos origin_of(const instance *in, const tree *t, int depth);

static source_pos origin_of_parameter(const instance *in, const char *name, int depth) {
  const tree *fallback = in->params ? tree_get(in->params, name) : NULL;
  if (!fallback) return NOWHERE;
  const tree *given = in->use ? tree_get(in->use, name) : NULL;
  if (given) return origin_of(in->outer, given, depth);
  given = in->with ? tree_get(in->with, name) : NULL;
  if (given) return given->at;
  bool is_set = fallback->at.line == 0; /* on the command line, of a model that stands alone */
  return is_set ? fallback->at : origin_of(in, fallback, depth);
}

static bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Of the first parameter in the text's expressions that has one. */
static source_pos origin_of_text(const instance *in, const char *text, int depth) {
  for (const char *begin = strstr(text, "${"); begin; begin = strstr(begin, "${")) {
    const char *end = strchr(begin, '}');
    for (begin += 2; end && begin < end; begin++) {
      size_t length = 0;
      while (is_word(begin[length])) length++;
      if (length == 0) continue;
      const char *name = arena_strndup(in->x->memory, begin, length);
      source_pos at = origin_of_parameter(in, name, depth);
      if (at.file) return at;
      begin += length - 1;
    }
  }
  return NOWHERE;
}

/* Where the user wrote what `t`, of the file of `in`, is made of; NOWHERE: it is all in shipped files. */
static source_pos origin_of(const instance *in, const tree *t, int depth) {
  if (in->is_stage || !graph_file_shipped(in->x->p, t->at.file)) return t->at;
  if (depth == MAX_ORIGIN_DEPTH) return NOWHERE;
  if (t->kind == TREE_SCALAR) return origin_of_text(in, t->text, depth + 1);
  for (int i = 0; i < t->count; i++) {
    /* The items of a repeat say for themselves what is wrong in them. */
    if (t->kind == TREE_MAP && strcmp(t->keys[i]->text, "graph") == 0) continue;
    source_pos at = origin_of(in, t->items[i], depth + 1);
    if (at.file) return at;
  }
  return NOWHERE;
}

/* The innermost use in a file of the user's. */
static source_pos use_of(const instance *in) {
  source_pos at = NOWHERE;
  for (; !in->is_stage && graph_file_shipped(in->x->p, in->path); in = in->outer) at = in->used_at;
  return at;
}

status place_for_user(const instance *in, status error, const tree *item) {
  const char *inside = error_position(error).file, *name = graph_file_shipped(in->x->p, inside);
  if (!name) return error;
  source_pos at = in->x->b.bad_input ? NOWHERE : origin_of(in, item, 0);
  if (!at.file) at = use_of(in);
  return at.file && at.file != inside ? error_move(error, inside, name, at) : error;
}
