/* From a YAML mapping to an operator's attribute struct, by the operator's own declaration. */
#ifndef STRATA_LANGUAGE_BIND_H
#define STRATA_LANGUAGE_BIND_H

#include "graph/op.h"
#include "language/tree.h"

/* Fills `attrs` (o->attrs_bytes, allocated by the caller) from `map`, whose values are already
 * substituted. Keys in `reserved` (NULL-terminated, may be NULL) belong to the caller and are
 * skipped. Every unknown key, wrong type, out-of-range value and missing required attribute is
 * added to `all` at its place; a missing one is reported at `at`. Strings are copied into `memory`.
 * `map` may be NULL (no attributes given). */
void bind_attrs(const op *o, const tree *map, const char *const *reserved, source_pos at,
                arena *memory, void *attrs, problems *all);
/* Only that the mapping's keys are attributes of `o`: of an operator that was meant, under another name. */
void bind_check_names(const op *o, const tree *map, problems *all);
/* One attribute from YAML text (defaults, --set on schedulable attributes, tests). */
status bind_attr_text(const attr *a, const char *text, arena *memory, void *attrs);
/* The attribute's present value, as YAML text. */
char *attr_format(const attr *a, const void *attrs, arena *memory);
/* Its attributes, as YAML would have them: "factor: 0.1, probability: 0.5". */
char *attrs_format(const op *o, const void *attrs, arena *memory);
/* What may be written, for people: "whole number, 1 to 64; default 1". */
struct text_buffer;
void attr_describe(const attr *a, struct text_buffer *out);

#endif
