#include "base/refuse.h"

status refuse(const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_DATA, NOWHERE, format, args);
  va_end(args);
  return error;
}
