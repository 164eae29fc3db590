/* What a pipeline and the command line call a device: auto, cpu, cuda, or cuda:1 for the second GPU and
 * so on. */
#ifndef STRATA_BASE_DEVICE_NAME_H
#define STRATA_BASE_DEVICE_NAME_H

#include <stdbool.h>

typedef enum device_kind { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA } device_kind;

/* The names, as a sentence about mistakes has them. */
#define DEVICE_NAMES "auto, cpu, cuda, or cuda:1 for the second GPU and so on"

/* `card`: which GPU, counted from 0 in the order in which CUDA lists them; may be NULL. */
bool device_name_read(const char *name, device_kind *kind, int *card);

#endif
