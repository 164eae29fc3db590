/* Writing HTML. Names come from strangers' files: whatever is not markup of ours goes through here. */
#ifndef STRATA_REPORT_HTML_H
#define STRATA_REPORT_HTML_H

#include "base/text.h"

#include <jansson.h>

/* Text as content or inside a quoted attribute: & < > " ' become references, and what is no UTF-8 or
 * not allowed in HTML becomes U+FFFD. */
void html_text(text_buffer *out, const char *text);
/* printf whose result is text. */
void html_format(text_buffer *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* <tag class="…">text</tag>; class may be NULL. */
void html_element(text_buffer *out, const char *tag, const char *class, const char *text);
/* A JSON value for scripts to read, which no text in it can end. Numbers have six digits. */
void html_data(text_buffer *out, const char *id, const json_t *value);

#endif
