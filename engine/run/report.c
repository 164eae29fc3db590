#include "run/report.h"

#include "base/text.h"

void report_line(const reporter *r, const char *format, ...) {
  if (!r || !r->line) return;
  text_buffer t = {0};
  va_list args;
  va_start(args, format);
  text_addv(&t, format, args);
  va_end(args);
  r->line(r->context, t.data ? t.data : "");
  text_free(&t);
}
