#include "base/json_text.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text) {
  json_t *exact = json_string(text);
  char *plain = exact ? NULL : strdup(text);
  if (!plain) return exact;
  for (char *p = plain; *p; p++)
    if ((unsigned char)*p >= 0x80) *p = '?';
  json_t *readable = json_string(plain);
  free(plain);
  return readable;
}
