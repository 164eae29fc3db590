/* report. */
#include "base/files.h"
#include "cli/command.h"
#include "report/page.h"

#include <stdlib.h>

status command_report(const arguments *a) {
  char *inside = path_join(a->operands[0], "report.html");
  const char *path = a->out ? a->out : inside;
  status error = report_page_write(a->operands[0], a->against, path);
  if (!error) printf("%s\n", path);
  free(inside);
  return error;
}
