/* Text from files in JSON. */
#ifndef STRATA_BASE_JSON_TEXT_H
#define STRATA_BASE_JSON_TEXT_H

#include <jansson.h>

/* A string. File names can hold any bytes, JSON holds UTF-8: where text is not, bytes above 127 become
 * '?'. NULL only when memory runs out. */
json_t *json_text(const char *text);

#endif
