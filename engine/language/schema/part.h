/* Inside the schema folder: pieces of JSON Schema. Every function returns a new object that the
 * caller owns; arguments are taken over.
 *
 * A value of a pipeline may also be an expression, and, where a base pipeline may stand below, nothing
 * (`key: ~` takes a key of the base away). Both are further types of the same schema rather than
 * alternatives to it: bounds concern numbers, the pattern text, properties mappings, so a mistake is
 * marked where it is and not as "none of these". */
#ifndef STRATA_LANGUAGE_SCHEMA_PART_H
#define STRATA_LANGUAGE_SCHEMA_PART_H

#include <stdbool.h>

#include <jansson.h>

#include "graph/op.h"

json_t *part_described(json_t *schema, const char *doc); /* `doc` may be NULL */
/* The value a key has when it is not given, in YAML. */
json_t *part_default(json_t *schema, const char *yaml);
/* Values as they are written, in YAML: editors offer them. NULL-terminated. */
json_t *part_examples(json_t *schema, const char *const *yaml);
json_t *part_reference(const char *definition);
/* {"required": [keys]} added to a schema. NULL-terminated. */
json_t *part_requiring(json_t *schema, const char *const *keys);
/* Nothing is allowed as well. */
json_t *part_or_nothing(json_t *schema);
/* Only an expression; it may stand inside longer text. */
json_t *part_expression(void);

/* Bounds of numbers; those beyond ±1e9 are not worth saying. */
json_t *part_bounds(json_t *schema, double min, double max);

json_t *part_any(const char *doc);
json_t *part_text(const char *doc);
json_t *part_integer(double min, double max, const char *doc);
json_t *part_number(double min, double max, const char *doc);
json_t *part_truth(const char *doc);
json_t *part_choice(const char *const *names, const char *doc);
json_t *part_list(json_t *items, int least, const char *doc);
json_t *part_text_or_list(const char *doc);
/* A mapping with these keys and no others. */
json_t *part_map(json_t *properties, const char *doc);
/* The same in a place that a base pipeline may stand below: every value may be nothing. */
json_t *part_changing_map(json_t *properties, const char *doc);
/* A mapping of names of the user's to values of one kind. */
json_t *part_names(json_t *values, const char *doc);
/* `name: content`, one of it. `changing`: others may be taken away beside it. */
json_t *part_single(json_t *map, bool changing);

/* Types (given as a JSON list, taken over) and an expression. */
json_t *part_typed(json_t *types);

/* ---- operators (graph.c) ------------------------------------------------------------------- */

/* The attributes of `o` as properties. */
json_t *part_attributes(const op *o);
json_t *part_attribute(const attr *a);
/* An item of a list of operators, {operator: {attributes}}; the bare name will do when nothing is
 * required. */
json_t *part_operator_item(unsigned trait);
/* The same as the value of a key, which a base pipeline may complete. */
json_t *part_operator_value(unsigned trait, bool bare_name);
/* What such a value needs besides when no base completes it. */
json_t *part_operator_complete(unsigned trait);
/* The definitions "graph" (of a stage), "graph_of_operators" (of a model), "graph_with_blocks" and
 * what they are made of. */
void part_define_graphs(json_t *definitions);

#endif
