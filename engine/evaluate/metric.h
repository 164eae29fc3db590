/* The metrics of a segmentation, by name. */
#ifndef STRATA_EVALUATE_METRIC_H
#define STRATA_EVALUATE_METRIC_H

typedef enum metric {
  METRIC_DICE,
  METRIC_JACCARD,
  METRIC_PRECISION,
  METRIC_RECALL,
  METRIC_HD,
  METRIC_HD95,
  METRIC_ASSD,
  METRIC_NSD,
  METRIC_VOLUME_DIFFERENCE,
  METRIC_RELATIVE_VOLUME_DIFFERENCE,
  METRIC_COUNT
} metric;

/* Metrics of Lua scripts follow those of the table. */
enum { CUSTOM_METRICS_MAX = 16, METRIC_SLOTS = METRIC_COUNT + CUSTOM_METRICS_MAX };

#define METRIC_BIT(m) (1u << (m))
#define METRICS_DEFAULT (METRIC_BIT(METRIC_DICE) | METRIC_BIT(METRIC_HD95))
/* Those that need distances between surfaces. */
#define METRICS_OF_SURFACES                                                                        \
  (METRIC_BIT(METRIC_HD) | METRIC_BIT(METRIC_HD95) | METRIC_BIT(METRIC_ASSD) |                     \
   METRIC_BIT(METRIC_NSD))

typedef enum better { BETTER_UNKNOWN, BETTER_HIGHER, BETTER_LOWER, BETTER_NEAR_ZERO } better;

typedef struct metric_info {
  const char *name;    /* in YAML and on the command line */
  const char *key;     /* in JSON and CSV: the name, with its unit */
  const char *heading; /* of a column in the table */
  int decimals;        /* in the table */
  better better;
  const char *doc; /* for completion in an editor */
} metric_info;

extern const metric_info metric_table[METRIC_COUNT];

/* The entry with this key ("hd95_mm"); NULL for a metric of one's own. */
const metric_info *metric_of_key(const char *key);
/* Heading and decimals of a column; a metric of one's own is called by its key. */
const char *metric_heading(const char *key);
int metric_decimals(const char *key);

#endif
