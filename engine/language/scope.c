#include "language/scope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum {
  MAX_EXPRESSION_BYTES = 1000,
  MAX_EXPRESSION_DEPTH = 32,
  MAX_PASTED_BYTES = 1000, /* a scalar after pasting */
  MAX_LIST_OPERAND = 64,   /* numbers of a list that is calculated with */
  MAX_NAMES_COMPARED = 500 /* for did-you-mean */
};

void scope_escape(const char *text, text_buffer *out) {
  for (const char *p = text; *p; p++) text_append(out, *p == '$' ? "$$" : p, *p == '$' ? 2 : 1);
}

void scope_set(scope *s, arena *memory, const char *name, tree *value) {
  for (int i = 0; i < s->count; i++)
    if (strcmp(s->names[i], name) == 0) {
      s->values[i] = value;
      return;
    }
  int count = s->count, capacity = s->capacity;
  ARENA_PUSH(memory, s->names, count, capacity, arena_strdup(memory, name));
  capacity = s->capacity;
  ARENA_PUSH(memory, s->values, s->count, capacity, value);
  s->capacity = capacity;
}

tree *scope_get(const scope *s, const char *name) {
  for (; s; s = s->parent)
    for (int i = 0; i < s->count; i++)
      if (strcmp(s->names[i], name) == 0) return s->values[i];
  return NULL;
}

/* ---- values -------------------------------------------------------------------------------- */

typedef enum value_kind { VALUE_INT, VALUE_FLOAT, VALUE_BOOL, VALUE_TEXT, VALUE_TREE } value_kind;

typedef struct value {
  value_kind kind;
  int64_t whole;    /* INT, BOOL */
  double number;    /* INT and FLOAT */
  const char *text; /* TEXT */
  const tree *tree; /* TREE; and where a name's value came from unchanged, else NULL */
} value;

static value of_int(int64_t whole) {
  return (value){.kind = VALUE_INT, .whole = whole, .number = (double)whole};
}

static value of_float(double number) {
  return (value){.kind = VALUE_FLOAT, .number = number};
}

static value of_bool(bool truth) {
  return (value){.kind = VALUE_BOOL, .whole = truth};
}

static bool looks_whole(const char *text) {
  return strspn(text, "+-0123456789_") == strlen(text);
}

static value of_tree(const tree *t) {
  value v = {.kind = VALUE_TREE, .tree = t};
  if (t->kind != TREE_SCALAR || tree_is_null(t)) return v;
  status error = OK;
  bool truth;
  if (!t->quoted) {
    if (looks_whole(t->text) && !(error = tree_int(t, &v.whole))) {
      v.kind = VALUE_INT;
      v.number = (double)v.whole;
      return v;
    }
    error_free(error);
    if (!(error = tree_float(t, &v.number))) {
      v.kind = VALUE_FLOAT;
      return v;
    }
    error_free(error);
    if (!(error = tree_bool(t, &truth))) {
      v.kind = VALUE_BOOL;
      v.whole = truth;
      return v;
    }
    error_free(error);
  }
  v.kind = VALUE_TEXT;
  v.text = t->text;
  return v;
}

static bool is_number(value v) {
  return v.kind == VALUE_INT || v.kind == VALUE_FLOAT;
}

static const char *format_value(value v, char out[40]) {
  if (v.kind == VALUE_INT) {
    snprintf(out, 40, "%lld", (long long)v.whole);
  } else if (v.kind == VALUE_BOOL) {
    strcpy(out, v.whole ? "true" : "false");
  } else {
    for (int digits = 15; digits <= 17; digits++) {
      snprintf(out, 40, "%.*g", digits, v.number);
      if (strtod(out, NULL) == v.number) break;
    }
    if (!strpbrk(out, ".e")) strcat(out, ".0"); /* a float stays one */
  }
  return out;
}

static const char *kind_name(value v) {
  switch (v.kind) {
  case VALUE_INT:
  case VALUE_FLOAT:
    return "a number";
  case VALUE_BOOL:
    return "true or false";
  case VALUE_TEXT:
    return "text";
  default:
    return v.tree->kind == TREE_LIST  ? "a list"
           : v.tree->kind == TREE_MAP ? "a mapping"
                                      : "nothing";
  }
}

/* ---- expressions --------------------------------------------------------------------------- */

typedef enum token_kind {
  TOKEN_END,
  TOKEN_NUMBER,
  TOKEN_TEXT,
  TOKEN_NAME,
  TOKEN_SIGN /* an operator or bracket, in `text` */
} token_kind;

typedef struct parser {
  const scope *names;
  arena *memory;
  source_pos at;
  const char *source; /* the expression, NUL-terminated */
  const char *next;
  token_kind token;
  char *text;
  int depth;
  int skipping; /* > 0: parse without evaluating (the unused side of `and`, `or` and `if`) */
} parser;

static status fail(const parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static status fail(const parser *p, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_PIPELINE, p->at, format, args);
  va_end(args);
  char shown[96];
  return error_prefix(error, "in ${%s}", printable(p->source, shown));
}

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static status advance(parser *p) {
  static const char *const signs[] = {"//", "==", "!=", "<=", ">=", "+", "-", "*", "/",
                                      "%",  "<",  ">",  "(",  ")",  "[", "]", ",", "."};
  const char *c = p->next;
  while (*c == ' ' || *c == '\n' || *c == '\t') c++;
  const char *start = c;
  if (*c == 0) {
    p->token = TOKEN_END;
    p->next = c;
    p->text = "the end";
    return OK;
  }
  if (is_digit(*c) || (*c == '.' && is_digit(c[1]))) {
    while (is_digit(*c) || *c == '.' || *c == '_' || *c == 'e' || *c == 'E' ||
           ((*c == '+' || *c == '-') && (c[-1] == 'e' || c[-1] == 'E')))
      c++;
    p->token = TOKEN_NUMBER;
  } else if (is_letter(*c)) {
    /* Dots belong to the name: "x.channels", "blocks.3.conv". */
    while (is_letter(*c) || is_digit(*c) || (*c == '.' && (is_letter(c[1]) || is_digit(c[1])))) c++;
    p->token = TOKEN_NAME;
  } else if (*c == '\'' || *c == '"') {
    c = strchr(c + 1, *start);
    if (!c) return fail(p, "the text that starts with %c has no end.", *start);
    p->token = TOKEN_TEXT;
    p->text = arena_strndup(p->memory, start + 1, (size_t)(c - start - 1));
    p->next = c + 1;
    return OK;
  } else {
    p->token = TOKEN_SIGN;
    for (size_t i = 0; i < sizeof signs / sizeof signs[0] && c == start; i++)
      if (text_starts_with(c, signs[i])) c += strlen(signs[i]);
    if (c == start) {
      char shown[96];
      return fail(p, "\"%s\" is not understood.", printable(start, shown));
    }
  }
  p->text = arena_strndup(p->memory, start, (size_t)(c - start));
  p->next = c;
  return OK;
}

static bool at_sign(const parser *p, const char *sign) {
  return p->token == TOKEN_SIGN && strcmp(p->text, sign) == 0;
}

static bool at_word(const parser *p, const char *word) {
  return p->token == TOKEN_NAME && strcmp(p->text, word) == 0;
}

static status expect_sign(parser *p, const char *sign) {
  if (!at_sign(p, sign)) return fail(p, "expected \"%s\" before %s.", sign, p->text);
  return advance(p);
}

static status parse_or(parser *p, value *out);

static status want_number(const parser *p, const char *operator, value v) {
  if (p->skipping || is_number(v)) return OK;
  return fail(p, "\"%s\" needs numbers, not %s.", operator, kind_name(v));
}

static status truth(const parser *p, value v, bool *out) {
  if (v.kind == VALUE_BOOL || v.kind == VALUE_INT)
    *out = v.whole != 0;
  else if (v.kind == VALUE_FLOAT)
    *out = v.number != 0;
  else if (p->skipping)
    *out = false;
  else
    return fail(p, "expected true, false or a number, not %s.", kind_name(v));
  return OK;
}

static bool is_list(value v) {
  return v.kind == VALUE_TREE && v.tree->kind == TREE_LIST;
}

static status arithmetic(const parser *p, const char *sign, value a, value b, value *out);

static status check_length(const parser *p, const char *what, int count) {
  if (count <= MAX_LIST_OPERAND) return OK;
  return fail(p, "\"%s\" takes lists of at most %d numbers.", what, MAX_LIST_OPERAND);
}

/* Number by number; a single number goes with each of the other's. */
static status list_arithmetic(const parser *p, const char *sign, value a, value b, value *out) {
  int count = is_list(a) ? a.tree->count : b.tree->count;
  if (is_list(a) && is_list(b) && a.tree->count != b.tree->count)
    return fail(p, "\"%s\" needs lists of one length, not %d and %d.", sign, a.tree->count,
                b.tree->count);
  TRY(check_length(p, sign, count));
  tree *list = tree_new(p->memory, p->at, TREE_LIST, count);
  for (int i = 0; i < count; i++) {
    value left = is_list(a) ? of_tree(a.tree->items[i]) : a, result = of_int(0);
    value right = is_list(b) ? of_tree(b.tree->items[i]) : b;
    char number[40];
    TRY(want_number(p, sign, left));
    TRY(want_number(p, sign, right));
    TRY(arithmetic(p, sign, left, right, &result));
    list->items[list->count++] = tree_scalar(p->memory, p->at, format_value(result, number), false);
  }
  *out = of_tree(list);
  return OK;
}

static status arithmetic(const parser *p, const char *sign, value a, value b, value *out) {
  if (p->skipping) return OK;
  if (is_list(a) || is_list(b)) return list_arithmetic(p, sign, a, b, out);
  TRY(want_number(p, sign, a));
  TRY(want_number(p, sign, b));
  bool both_whole = a.kind == VALUE_INT && b.kind == VALUE_INT;
  bool divides = sign[0] == '/' || sign[0] == '%';
  if (divides && b.number == 0) return fail(p, "division by zero.");
  int64_t whole = 0;
  double number = 0;
  bool overflow = false;
  if (both_whole && divides && a.whole == INT64_MIN && b.whole == -1) {
    overflow = true;
  } else if (both_whole && divides) {
    int64_t quotient = a.whole / b.whole, rest = a.whole % b.whole;
    if (strcmp(sign, "/") == 0 && rest != 0) {
      *out = of_float(a.number / b.number);
      return OK;
    }
    bool floored = rest != 0 && (rest < 0) != (b.whole < 0);
    whole = sign[0] == '%' ? rest + (floored ? b.whole : 0)
                           : quotient - (floored && sign[1] == '/' ? 1 : 0);
  } else if (both_whole) {
    overflow = sign[0] == '+'   ? __builtin_add_overflow(a.whole, b.whole, &whole)
               : sign[0] == '-' ? __builtin_sub_overflow(a.whole, b.whole, &whole)
                                : __builtin_mul_overflow(a.whole, b.whole, &whole);
  } else {
    switch (sign[0]) {
    case '+':
      number = a.number + b.number;
      break;
    case '-':
      number = a.number - b.number;
      break;
    case '*':
      number = a.number * b.number;
      break;
    case '/':
      number = sign[1] == '/' ? floor(a.number / b.number) : a.number / b.number;
      break;
    default:
      number = a.number - b.number * floor(a.number / b.number);
    }
    overflow = !isfinite(number);
  }
  if (overflow) return fail(p, "the result of \"%s\" is too large.", sign);
  *out = both_whole ? of_int(whole) : of_float(number);
  return OK;
}

static status compare(const parser *p, const char *sign, value a, value b, value *out) {
  if (p->skipping) return OK;
  int order = 2; /* 2: different, without an order */
  if (is_number(a) && is_number(b))
    order = a.kind == VALUE_INT && b.kind == VALUE_INT
                ? (a.whole > b.whole) - (a.whole < b.whole)
                : (a.number > b.number) - (a.number < b.number);
  else if (a.kind == VALUE_TEXT && b.kind == VALUE_TEXT)
    order = strcmp(a.text, b.text);
  else if (a.kind == VALUE_BOOL && b.kind == VALUE_BOOL)
    order = a.whole == b.whole ? 0 : 2;
  else if (a.kind == VALUE_TREE && b.kind == VALUE_TREE && tree_is_null(a.tree) &&
           tree_is_null(b.tree))
    order = 0;
  else if ((a.kind == VALUE_TREE && !tree_is_null(a.tree)) ||
           (b.kind == VALUE_TREE && !tree_is_null(b.tree)))
    return fail(p, "\"%s\" cannot compare %s with %s.", sign, kind_name(a), kind_name(b));
  if (strcmp(sign, "==") == 0) {
    *out = of_bool(order == 0);
  } else if (strcmp(sign, "!=") == 0) {
    *out = of_bool(order != 0);
  } else {
    if (!is_number(a) || !is_number(b))
      return fail(p, "\"%s\" needs numbers, not %s and %s.", sign, kind_name(a), kind_name(b));
    bool or_equal = sign[1] == '=';
    *out = of_bool((order == 0 && or_equal) || (sign[0] == '<' ? order < 0 : order > 0));
  }
  return OK;
}

static status undefined(const parser *p, const char *name) {
  const char *names[MAX_NAMES_COMPARED];
  int count = 0;
  for (const scope *s = p->names; s; s = s->parent)
    for (int i = 0; i < s->count && count < MAX_NAMES_COMPARED; i++) names[count++] = s->names[i];
  char shown[96];
  printable(name, shown);
  const char *near = nearest_name(name, names, count);
  if (near) return fail(p, "\"%s\" is not defined; did you mean \"%s\"?", shown, near);
  return fail(p, "\"%s\" is not defined.", shown);
}

/* `path` is what follows the dot of a map's name: "a.b". */
static status member(const parser *p, const tree *t, const char *path, value *out) {
  while (*path) {
    size_t length = strcspn(path, ".");
    char *key = arena_strndup(p->memory, path, length);
    char shown[96];
    if (t->kind != TREE_MAP)
      return fail(p, "\"%s\" is asked of %s.", printable(key, shown), kind_name(of_tree(t)));
    const tree *found = tree_get(t, key);
    if (!found) {
      const char *names[MAX_NAMES_COMPARED];
      int count = 0;
      for (int i = 0; i < t->count && count < MAX_NAMES_COMPARED; i++)
        names[count++] = t->keys[i]->text;
      const char *near = nearest_name(key, names, count);
      if (near)
        return fail(p, "there is no \"%s\"; did you mean \"%s\"?", printable(key, shown), near);
      return fail(p, "there is no \"%s\".", printable(key, shown));
    }
    t = found;
    path += length + (path[length] == '.');
  }
  *out = of_tree(t);
  return OK;
}

static status name_value(const parser *p, const char *name, value *out) {
  const tree *found = scope_get(p->names, name);
  if (found) {
    *out = of_tree(found);
    return OK;
  }
  size_t length = strcspn(name, ".");
  char *first = arena_strndup(p->memory, name, length);
  found = name[length] ? scope_get(p->names, first) : NULL;
  if (found) return member(p, found, name + length + 1, out);
  for (const scope *s = p->names; s; s = s->parent) {
    tree *known = NULL;
    if (s->lookup && s->lookup(s->context, p->memory, name, p->at, &known)) {
      *out = of_tree(known);
      return OK;
    }
  }
  return undefined(p, name[length] ? first : name);
}

/* if(condition, a, b): only the side that is chosen is evaluated. */
static status parse_choice(parser *p, value *out) {
  value condition = of_bool(false);
  bool holds = false;
  TRY(expect_sign(p, "("));
  TRY(parse_or(p, &condition));
  TRY(truth(p, condition, &holds));
  for (int side = 0; side < 2; side++) {
    value v = of_int(0);
    bool chosen = (side == 0) == holds;
    TRY(expect_sign(p, ","));
    p->skipping += !chosen;
    TRY(parse_or(p, &v));
    p->skipping -= !chosen;
    if (chosen) *out = v;
  }
  return expect_sign(p, ")");
}

static status parse_call(parser *p, const char *function, value *out) {
  if (strcmp(function, "if") == 0) return parse_choice(p, out);
  bool is_len = strcmp(function, "len") == 0, is_min = strcmp(function, "min") == 0;
  if (!is_len && !is_min && strcmp(function, "max") != 0)
    return fail(p, "there is no function \"%s\": there are min, max, len and if.", function);
  TRY(expect_sign(p, "("));
  value best = {0};
  int count = 0, arguments = 0;
  do {
    value v = of_int(0);
    if (arguments++ > 0) TRY(advance(p));
    TRY(parse_or(p, &v));
    /* A list given to min and max stands for its numbers. */
    bool spread = !is_len && is_list(v);
    if (spread) TRY(check_length(p, function, v.tree->count));
    for (int i = 0; i < (spread ? v.tree->count : 1); i++) {
      value one = spread ? of_tree(v.tree->items[i]) : v;
      if (!is_len) TRY(want_number(p, function, one));
      if (count == 0 || (is_min ? one.number < best.number : one.number > best.number)) best = one;
      count++;
    }
  } while (at_sign(p, ","));
  TRY(expect_sign(p, ")"));
  if (!is_len) {
    if (count == 0) return fail(p, "%s of an empty list has no value.", function);
    best.tree = NULL;
    *out = best;
    return OK;
  }
  if (count != 1) return fail(p, "len takes one list.");
  if (p->skipping) return OK;
  if (best.kind != VALUE_TREE || best.tree->kind == TREE_SCALAR)
    return fail(p, "len needs a list, not %s.", kind_name(best));
  *out = of_int(best.tree->count);
  return OK;
}

/* `name`: of the list, "" where an expression gives it. */
static status parse_index(parser *p, const char *name, value *out) {
  value index = of_int(0);
  TRY(advance(p));
  TRY(parse_or(p, &index));
  TRY(expect_sign(p, "]"));
  if (p->skipping) return OK;
  if (out->kind != VALUE_TREE || out->tree->kind != TREE_LIST)
    return fail(p, "[ ] needs a list, not %s.", kind_name(*out));
  if (index.kind != VALUE_INT)
    return fail(p, "an index must be an integer, not %s.", kind_name(index));
  int64_t count = out->tree->count, i = index.whole < 0 ? index.whole + count : index.whole;
  if (i < 0 || i >= count)
    return fail(p, "index %lld is outside %s%sof %lld.", (long long)index.whole,
                name[0] ? name : "the list", name[0] ? ", a list " : " ", (long long)count);
  *out = of_tree(out->tree->items[i]);
  return OK;
}

/* What follows the dot of `list[0].key`. */
static status parse_member(parser *p, value *out) {
  char shown[96], *path = p->text;
  if (p->token != TOKEN_NAME) return fail(p, "a name must follow \".\".");
  TRY(advance(p));
  if (p->skipping) return OK;
  if (out->kind == VALUE_TREE) return member(p, out->tree, path, out);
  return fail(p, "\"%s\" is asked of %s.", printable(path, shown), kind_name(*out));
}

static status parse_primary(parser *p, value *out) {
  const char *list = "";
  if (p->token == TOKEN_NUMBER) {
    tree *t = tree_scalar(p->memory, p->at, p->text, false);
    *out = of_tree(t);
    if (!is_number(*out)) return fail(p, "%s is not a number.", p->text);
    out->tree = NULL;
    TRY(advance(p));
  } else if (p->token == TOKEN_TEXT) {
    *out = (value){.kind = VALUE_TEXT, .text = p->text};
    TRY(advance(p));
  } else if (at_sign(p, "(")) {
    TRY(advance(p));
    TRY(parse_or(p, out));
    TRY(expect_sign(p, ")"));
    out->tree = out->kind == VALUE_TREE ? out->tree : NULL;
  } else if (p->token == TOKEN_NAME) {
    char *name = p->text;
    list = name;
    TRY(advance(p));
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
      *out = of_bool(name[0] == 't');
    else if (at_sign(p, "("))
      TRY(parse_call(p, name, out));
    else if (p->skipping)
      *out = of_int(0);
    else
      TRY(name_value(p, name, out));
  } else {
    return fail(p, "expected a value before %s.", p->text);
  }
  for (;;) {
    if (at_sign(p, "[")) {
      TRY(parse_index(p, list, out));
      list = "";
    } else if (at_sign(p, ".")) {
      TRY(advance(p));
      TRY(parse_member(p, out));
    } else {
      return OK;
    }
  }
}

static status parse_unary(parser *p, value *out) {
  bool is_minus = at_sign(p, "-");
  if (!is_minus && !at_sign(p, "+")) return parse_primary(p, out);
  if (++p->depth > MAX_EXPRESSION_DEPTH) return fail(p, "the expression is nested too deep.");
  TRY(advance(p));
  TRY(parse_unary(p, out));
  p->depth--;
  return arithmetic(p, is_minus ? "-" : "+", of_int(0), *out, out);
}

static status parse_product(parser *p, value *out) {
  TRY(parse_unary(p, out));
  while (at_sign(p, "*") || at_sign(p, "/") || at_sign(p, "//") || at_sign(p, "%")) {
    char *sign = p->text;
    value right = of_int(1);
    TRY(advance(p));
    TRY(parse_unary(p, &right));
    TRY(arithmetic(p, sign, *out, right, out));
  }
  return OK;
}

static status parse_sum(parser *p, value *out) {
  TRY(parse_product(p, out));
  while (at_sign(p, "+") || at_sign(p, "-")) {
    char *sign = p->text;
    value right = of_int(0);
    TRY(advance(p));
    TRY(parse_product(p, &right));
    TRY(arithmetic(p, sign, *out, right, out));
  }
  return OK;
}

static bool at_comparison(const parser *p) {
  return p->token == TOKEN_SIGN &&
         (strchr("<>", p->text[0]) || strcmp(p->text, "==") == 0 || strcmp(p->text, "!=") == 0);
}

static status parse_comparison(parser *p, value *out) {
  TRY(parse_sum(p, out));
  if (!at_comparison(p)) return OK;
  char *sign = p->text;
  value right = of_int(0);
  TRY(advance(p));
  TRY(parse_sum(p, &right));
  TRY(compare(p, sign, *out, right, out));
  if (at_comparison(p)) return fail(p, "join comparisons with \"and\".");
  return OK;
}

static status parse_not(parser *p, value *out) {
  if (!at_word(p, "not")) return parse_comparison(p, out);
  if (++p->depth > MAX_EXPRESSION_DEPTH) return fail(p, "the expression is nested too deep.");
  bool is_true = false;
  TRY(advance(p));
  TRY(parse_not(p, out));
  p->depth--;
  TRY(truth(p, *out, &is_true));
  *out = of_bool(!is_true);
  return OK;
}

static status parse_and(parser *p, value *out) {
  TRY(parse_not(p, out));
  while (at_word(p, "and")) {
    bool left = false, right = false;
    value v = of_bool(false);
    TRY(truth(p, *out, &left));
    TRY(advance(p));
    p->skipping += !left;
    TRY(parse_not(p, &v));
    TRY(truth(p, v, &right));
    p->skipping -= !left;
    *out = of_bool(left && right);
  }
  return OK;
}

static status parse_or(parser *p, value *out) {
  if (++p->depth > MAX_EXPRESSION_DEPTH) return fail(p, "the expression is nested too deep.");
  TRY(parse_and(p, out));
  while (at_word(p, "or")) {
    bool left = false, right = false;
    value v = of_bool(false);
    TRY(truth(p, *out, &left));
    TRY(advance(p));
    p->skipping += left;
    TRY(parse_and(p, &v));
    TRY(truth(p, v, &right));
    p->skipping -= left;
    *out = of_bool(left || right);
  }
  p->depth--;
  return OK;
}

static status evaluate(const scope *names, arena *memory, source_pos at, const char *text,
                       size_t length, value *out) {
  parser p = {.names = names, .memory = memory, .at = at};
  p.source = p.next = arena_strndup(memory, text, length);
  if (length > MAX_EXPRESSION_BYTES)
    return fail(&p, "the expression is longer than %d bytes.", MAX_EXPRESSION_BYTES);
  TRY(advance(&p));
  if (p.token == TOKEN_END) return fail(&p, "the expression is empty.");
  *out = of_int(0);
  TRY(parse_or(&p, out));
  if (p.token != TOKEN_END) return fail(&p, "%s is not expected here.", p.text);
  return OK;
}

/* ---- substitution -------------------------------------------------------------------------- */

/* The `}` that ends an expression starting at `text`, or NULL. Quoted text may contain braces. */
static const char *expression_end(const char *text) {
  for (char quote = 0; *text; text++) {
    if (quote) {
      if (*text == quote) quote = 0;
    } else if (*text == '\'' || *text == '"') {
      quote = *text;
    } else if (*text == '}') {
      return text;
    }
  }
  return NULL;
}

typedef struct substitution {
  const scope *names;
  arena *memory;
  int64_t nodes;
  bool full; /* the node limit was reported */
} substitution;

static status no_end(source_pos at) {
  return error_new(ERROR_PIPELINE, at, "\"${\" has no \"}\". Write $$ for a dollar sign.");
}

static status paste(substitution *s, const tree *in, tree **out) {
  text_buffer pasted = {0};
  status error = OK;
  for (const char *p = in->text; *p && !error;) {
    if (p[0] == '$' && p[1] == '$') {
      text_append(&pasted, "$", 1);
      p += 2;
    } else if (p[0] == '$' && p[1] == '{') {
      const char *end = expression_end(p + 2);
      value v = {0};
      char number[40];
      if (!end)
        error = no_end(in->at);
      else
        error = evaluate(s->names, s->memory, in->at, p + 2, (size_t)(end - p - 2), &v);
      if (!error && v.kind == VALUE_TREE)
        error = error_new(ERROR_PIPELINE, in->at, "%s cannot be pasted into text.",
                          v.tree->kind == TREE_LIST  ? "A list"
                          : v.tree->kind == TREE_MAP ? "A mapping"
                                                     : "Nothing (null)");
      if (error) break;
      const char *text = v.kind == VALUE_TEXT ? v.text
                         : v.tree             ? v.tree->text
                                              : format_value(v, number);
      text_append(&pasted, text, strlen(text));
      p = end + 1;
    } else {
      size_t plain = strcspn(p + 1, "$") + 1;
      text_append(&pasted, p, plain);
      p += plain;
    }
    if (!error && pasted.length > MAX_PASTED_BYTES && pasted.length > strlen(in->text))
      error =
          error_new(ERROR_PIPELINE, in->at, "The text is longer than %d bytes.", MAX_PASTED_BYTES);
  }
  if (!error) *out = tree_scalar(s->memory, in->at, pasted.data ? pasted.data : "", in->quoted);
  text_free(&pasted);
  return error;
}

static int tree_height(const tree *t) {
  int height = 1;
  for (int i = 0; i < t->count; i++) {
    int below = 1 + tree_height(t->items[i]);
    if (below > height) height = below;
  }
  return height;
}

static status count_nodes(substitution *s, int64_t more, source_pos at) {
  s->nodes += more;
  if (s->nodes <= TREE_MAX_NODES || s->full) return OK;
  s->full = true;
  return error_new(ERROR_PIPELINE, at, "The expressions make more than %d values.", TREE_MAX_NODES);
}

static status eval_scalar(substitution *s, const tree *in, int depth, tree **out) {
  if (!strchr(in->text, '$')) {
    *out = (tree *)in;
    return OK;
  }
  const char *end = text_starts_with(in->text, "${") ? expression_end(in->text + 2) : NULL;
  if (!end || end[1] != 0) return paste(s, in, out);
  value v = {0};
  char number[40];
  TRY(evaluate(s->names, s->memory, in->at, in->text + 2, (size_t)(end - in->text - 2), &v));
  if (v.tree) {
    if (depth + tree_height(v.tree) - 1 > TREE_MAX_DEPTH)
      return error_new(ERROR_PIPELINE, in->at, "Values are nested more than %d deep.",
                       TREE_MAX_DEPTH);
    TRY(count_nodes(s, tree_size(v.tree), in->at));
    if (s->full) return OK;
    tree *copy = tree_copy(s->memory, v.tree);
    /* What is wrong with the value is wrong where it is used; what the command line set keeps its
     * `--set key=value`. */
    bool is_override = copy->at.line == 0 && copy->at.file;
    if (!is_override) copy->at = in->at;
    *out = copy;
    return OK;
  }
  *out = tree_scalar(s->memory, in->at, v.kind == VALUE_TEXT ? v.text : format_value(v, number),
                     v.kind == VALUE_TEXT);
  return OK;
}

static status check_key(const tree *key, source_pos at) {
  if (key->kind != TREE_SCALAR || key->text[0] == 0)
    return error_new(ERROR_PIPELINE, at, "A key must be text.");
  if (strlen(key->text) > TREE_MAX_KEY_BYTES)
    return error_new(ERROR_PIPELINE, at, "The key is longer than %d bytes.", TREE_MAX_KEY_BYTES);
  return OK;
}

static tree *eval_node(substitution *s, const tree *in, int depth, problems *all) {
  tree *out = (tree *)in;
  problems_add(all, count_nodes(s, 1, in->at));
  if (s->full) return out;
  if (in->kind == TREE_SCALAR) {
    status error = eval_scalar(s, in, depth, &out);
    problems_add(all, error);
    return error ? (tree *)in : out;
  }
  out = tree_new(s->memory, in->at, in->kind, in->count);
  bool keys_changed = false;
  for (int i = 0; i < in->count; i++) {
    if (in->kind == TREE_MAP) {
      out->keys[i] = in->keys[i];
      if (strchr(in->keys[i]->text, '$')) {
        status error = eval_scalar(s, in->keys[i], depth + 1, &out->keys[i]);
        keys_changed = true;
        if (!error) error = check_key(out->keys[i], in->keys[i]->at);
        if (error) out->keys[i] = in->keys[i];
        problems_add(all, error);
      }
    }
    out->items[i] = eval_node(s, in->items[i], depth + 1, all);
  }
  out->count = in->count;
  if (keys_changed) problems_add(all, tree_check_duplicates(out));
  return out;
}

status scope_eval(const scope *s, arena *memory, const tree *in, tree **out) {
  substitution work = {.names = s, .memory = memory};
  problems all = {0};
  tree *result = eval_node(&work, in, 1, &all);
  *out = NULL;
  TRY(problems_take(&all));
  *out = result;
  return OK;
}

status scope_truth(const scope *s, arena *memory, const tree *in, bool *out) {
  tree *t;
  TRY(scope_eval(s, memory, in, &t));
  value v = of_tree(t);
  if (v.kind == VALUE_BOOL || v.kind == VALUE_INT) {
    *out = v.whole != 0;
    return OK;
  }
  if (v.kind == VALUE_FLOAT) {
    *out = v.number != 0;
    return OK;
  }
  char found[96];
  return error_new(ERROR_PIPELINE, t->at, "expected true, false or a number, not %s.",
                   tree_describe(t, found));
}
