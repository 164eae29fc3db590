/* The text of a configured pipeline. */
#ifndef STRATA_CONFIGURE_WRITE_H
#define STRATA_CONFIGURE_WRITE_H

#include "configure/configure.h"

/* Every choice with the reason for it, as a person would write it. */
void configure_write(const configure_options *o, const dataset_look *look, const configuration *c,
                     text_buffer *yaml);

#endif
