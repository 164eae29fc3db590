#include "base/device_name.h"

#include <stdlib.h>
#include <string.h>

bool device_name_read(const char *name, device_kind *kind, int *card) {
  static const char *const names[] = {"auto", "cpu", "cuda"};
  if (card) *card = 0;
  for (int i = 0; i < 3; i++) {
    *kind = (device_kind)i;
    if (strcmp(name, names[i]) == 0) return true;
  }
  const char *digits = name + strlen("cuda:");
  if (strncmp(name, "cuda:", strlen("cuda:")) != 0) return false;
  size_t length = strspn(digits, "0123456789");
  if (length == 0 || length > 3 || digits[length]) return false;
  if (card) *card = atoi(digits);
  return true;
}
