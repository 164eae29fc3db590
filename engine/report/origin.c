/* Where the run came from: the command, the seed, the hashes, the device, the resolved pipeline. */
#include "report/sections.h"

#include <string.h>

/* A word of a command as a shell reads it back. */
static void shell_word(text_buffer *out, const char *word) {
  size_t plain = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "@%+=:,./_-");
  if (word[0] && !word[plain]) {
    text_add(out, "%s", word);
    return;
  }
  text_add(out, "'");
  for (; *word; word++) {
    if (*word == '\'')
      text_add(out, "'\\''");
    else
      text_append(out, word, 1);
  }
  text_add(out, "'");
}

static void command_of(page *p, const run_record *r) {
  const json_t *words = json_object_get(r->description, "command");
  if (!json_is_array(words)) return;
  text_buffer line = {0};
  for (size_t i = 0; i < json_array_size(words); i++) {
    const char *word = json_string_value(json_array_get(words, i));
    if (i) text_add(&line, " ");
    shell_word(&line, word ? word : "?");
  }
  text_add(&p->body, "<pre class=\"command\">");
  html_text(&p->body, line.data ? line.data : "");
  text_add(&p->body, "</pre>\n");
  text_free(&line);
}

/* A value of run.json as text. */
static void value_text(text_buffer *out, const json_t *value) {
  if (json_is_string(value))
    html_text(out, json_string_value(value));
  else if (json_is_integer(value))
    text_add(out, "%lld", (long long)json_integer_value(value));
  else if (json_is_real(value))
    text_add(out, "%.6g", json_real_value(value));
  else if (json_is_array(value))
    for (size_t i = 0; i < json_array_size(value); i++) {
      if (i) text_add(out, ", ");
      value_text(out, json_array_get(value, i));
    }
  else if (json_is_object(value)) {
    const char *key;
    json_t *member;
    text_add(out, "<dl>");
    json_object_foreach((json_t *)value, key, member) {
      html_element(out, "dt", NULL, key);
      text_add(out, "<dd>");
      value_text(out, member);
      text_add(out, "</dd>");
    }
    text_add(out, "</dl>");
  } else {
    text_add(out, "%s", json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "–");
  }
}

static void facts_of(page *p, const run_record *r) {
  const char *key;
  json_t *value;
  text_add(&p->body, "<dl class=\"origin\">\n<dt>folder</dt><dd>");
  html_text(&p->body, r->folder);
  text_add(&p->body, "</dd>\n");
  json_object_foreach(r->description, key, value) {
    if (strcmp(key, "command") == 0) continue;
    text_buffer words = {0};
    text_add(&words, "%s", key);
    for (char *c = words.data; c && *c; c++)
      if (*c == '_') *c = ' ';
    html_element(&p->body, "dt", NULL, words.data ? words.data : key);
    text_free(&words);
    text_add(&p->body, "<dd>");
    value_text(&p->body, value);
    text_add(&p->body, "</dd>\n");
  }
  text_add(&p->body, "</dl>\n");
}

static void origin_of(page *p, const run_record *r) {
  command_of(p, r);
  facts_of(p, r);
  if (!r->resolved) return;
  text_add(&p->body, "<details><summary>The resolved pipeline and its lock</summary>\n<pre>");
  html_text(&p->body, r->resolved);
  text_add(&p->body, "</pre></details>\n");
}

void section_origin(page *p) {
  page_section(p, "origin", "Where it comes from");
  if (p->other) html_element(&p->body, "h3", NULL, page_run_name(p, false));
  origin_of(p, p->run);
  if (p->other) {
    html_element(&p->body, "h3", NULL, page_run_name(p, true));
    origin_of(p, p->other);
  }
  page_section_end(p);
}
