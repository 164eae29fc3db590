#include "report/html.h"

#include "view/font.h"

#include <stdlib.h>
#include <string.h>

static const char *reference_of(uint32_t character) {
  switch (character) {
  case '&':
    return "&amp;";
  case '<':
    return "&lt;";
  case '>':
    return "&gt;";
  case '"':
    return "&quot;";
  case '\'':
    return "&#39;";
  case 0xFFFD:
    return "\xEF\xBF\xBD";
  default:
    return NULL;
  }
}

/* C0 and C1 controls other than tab and line feed, surrogates and non-characters. */
static bool is_forbidden(uint32_t c) {
  return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0) ||
         (c >= 0xD800 && c < 0xE000) || (c & 0xFFFE) == 0xFFFE || c > 0x10FFFF;
}

void html_text(text_buffer *out, const char *text) {
  while (*text) {
    const char *start = text;
    uint32_t character = utf8_next(&text);
    const char *reference = reference_of(is_forbidden(character) ? 0xFFFD : character);
    if (reference)
      text_append(out, reference, strlen(reference));
    else
      text_append(out, start, (size_t)(text - start));
  }
}

void html_format(text_buffer *out, const char *format, ...) {
  text_buffer text = {0};
  va_list args;
  va_start(args, format);
  text_addv(&text, format, args);
  va_end(args);
  if (text.data) html_text(out, text.data);
  text_free(&text);
}

void html_element(text_buffer *out, const char *tag, const char *class, const char *text) {
  text_add(out, class ? "<%s class=\"%s\">" : "<%s>", tag, class);
  html_text(out, text);
  text_add(out, "</%s>", tag);
}

void html_data(text_buffer *out, const char *id, const json_t *value) {
  char *json = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6));
  text_add(out, "<script type=\"application/json\" id=\"%s\">", id);
  for (const char *p = json ? json : "null"; *p; p++) {
    if (*p == '<' || *p == '>' || *p == '&')
      text_add(out, "\\u%04x", (unsigned)*p);
    else
      text_append(out, p, 1);
  }
  text_add(out, "</script>\n");
  free(json);
}
