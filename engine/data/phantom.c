/* The body is described in its own coordinates: x to the right, y to the front, z to the head, each
 * −1 to 1 across the trunk or the brain. Every voxel's place in the patient (by the file's affine) is
 * carried into these coordinates, bent by a smooth random warp, and compared with the shapes; so
 * spacing, stored orientation and obliqueness are those of the file, never of the body. */
#include "data/phantom.h"

#include "base/files.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct organ_name {
  const char *name;
  int size_rank; /* 0 = the first to be labelled */
} organ_name;

/* In the order of BTCV's class numbers 1…13. */
static const organ_name organs[PHANTOM_ORGANS] = {
    {"spleen", 1},
    {"right kidney", 2},
    {"left kidney", 3},
    {"gallbladder", 8},
    {"esophagus", 10},
    {"liver", 0},
    {"stomach", 4},
    {"aorta", 5},
    {"inferior vena cava", 6},
    {"portal and splenic veins", 9},
    {"pancreas", 7},
    {"right adrenal gland", 11},
    {"left adrenal gland", 12},
};

/* What is none of BTCV's: a tumour in the lung, seen in PHANTOM_LUNG only, and the tissues of
 * PHANTOM_BRATS, a glioma's first. */
enum {
  TUMOUR = PHANTOM_ORGANS + 1,
  EDEMA,
  NON_ENHANCING,
  ENHANCING,
  FLUID,
  GREY,
  WHITE,
  CLASS_NUMBERS
};

/* As the Decathlon spells them. */
static const char *const tumour_names[] = {"cancer", "edema", "non-enhancing tumor",
                                           "enhancing tumour"};

enum { POINTS_MAX = 4, BOWEL_LOOPS = 6, WAVES = 3, CHANNELS_MAX = 4 };

/* An ellipsoid (one point, three radii, turned in the x-y plane) or a tube along two or more points
 * (one radius). */
typedef struct shape_model {
  int organ; /* BTCV number or one of those above, 0 = unlabelled */
  double hu; /* unused in a brain, whose tissues have an intensity a channel */
  int points;
  double point[POINTS_MAX][3];
  double radius[3];
  double angle; /* degrees */
} shape_model;

/* Where shapes overlap the earlier one is seen. */
static const shape_model anatomy[] = {
    {8, 170, 2, {{-.08, -.27, -1.5}, {-.06, -.29, 1.5}}, {.085}, 0},
    {9, 140, 2, {{.14, -.24, -1.5}, {.15, -.22, 1.5}}, {.085}, 0},
    {10,
     155,
     4,
     {{.36, .04, .22}, {.12, .0, -.02}, {-.12, -.02, .02}, {-.52, -.24, .27}},
     {.06},
     0},
    {5, 35, 3, {{-.1, -.12, 1.5}, {-.1, -.1, .75}, {-.2, .1, .5}}, {.08}, 0},
    {12, 70, 3, {{.2, -.36, .2}, {.26, -.4, .14}, {.26, -.34, .06}}, {.05}, 0},
    {13, 70, 3, {{-.22, -.36, .26}, {-.3, -.36, .2}, {-.3, -.42, .12}}, {.05}, 0},
    {4, 8, 1, {{.34, .42, -.12}}, {.13, .14, .18}, 10},
    {2, 195, 1, {{.42, -.42, -.26}}, {.17, .2, .34}, 20},
    {3, 195, 1, {{-.42, -.42, -.18}}, {.17, .2, .34}, -20},
    {11, 90, 3, {{.2, .06, -.14}, {-.06, .12, -.02}, {-.44, -.08, .12}}, {.1}, 0},
    {7, 25, 1, {{-.36, .36, .26}}, {.3, .26, .3}, -25},
    {1, 130, 1, {{-.62, -.22, .38}}, {.2, .32, .28}, 25},
    {6, 108, 1, {{.42, .1, .32}}, {.46, .56, .42}, -8},
};
enum { SHAPES = sizeof anatomy / sizeof anatomy[0] };

/* Ventricles and basal ganglia. */
static const shape_model brain[] = {
    {FLUID, 0, 1, {{.14, .08, .12}}, {.09, .36, .16}, -8},
    {FLUID, 0, 1, {{-.14, .08, .12}}, {.09, .36, .16}, 8},
    {GREY, 0, 1, {{.32, .08, .02}}, {.11, .24, .2}, -12},
    {GREY, 0, 1, {{-.32, .08, .02}}, {.11, .24, .2}, 12},
};
enum { BRAIN_SHAPES = sizeof brain / sizeof brain[0], GLIOMA_PARTS = 5 };

/* How bright the tissues from EDEMA on are, in FLAIR, T1, T1 with gadolinium and T2. */
static const double contrast[][CHANNELS_MAX] = {
    {.92, .5, .5, .85},    /* edema */
    {.48, .34, .3, .95},   /* non-enhancing and necrotic */
    {.72, .52, 1.05, .68}, /* enhancing */
    {.18, .2, .2, 1.05},   /* fluid */
    {.62, .56, .58, .6},   /* grey matter */
    {.5, .76, .78, .44},   /* white matter */
};

enum { AIR = -1000, FAT = -100, MUSCLE = 55, LUNG = -800, BONE = 420, MARROW = 190, DISC = 90 };

/* One case, drawn from its random stream. */
typedef struct body {
  double half_mm[3];   /* of the trunk or the brain */
  double centre_mm[3]; /* in the patient's coordinates */
  double wave[WAVES][3], phase[WAVES][3], bend[WAVES][3];
  double grain[2][3]; /* texture: wave vectors in 1/mm */
  shape_model shape[SHAPES];
  int shapes;
  double bowel[BOWEL_LOOPS][4], bowel_hu[BOWEL_LOOPS];
  double lung_base;
  bool has_tumour;
  shape_model tumour;
  double gain[CHANNELS_MAX];     /* an MRI has no unit */
  double slope[CHANNELS_MAX][3]; /* across the brain, from the coil */
} body;
_Static_assert(BRAIN_SHAPES + GLIOMA_PARTS <= SHAPES, "a brain has as much room as a trunk");

static double jitter(rng *r, double half_width) {
  return rng_range(r, -half_width, half_width);
}

/* Extent, place, warp and texture. Half the body takes `share` of the field of view. */
static void draw_frame(rng *r, const double field_mm[3], const double share[3], body *b) {
  double size = 1 + jitter(r, .07);
  for (int a = 0; a < 3; a++) {
    b->half_mm[a] = field_mm[a] * share[a] * size * (1 + jitter(r, .04));
    b->centre_mm[a] = jitter(r, .02) * field_mm[a];
  }
  b->centre_mm[2] += 500;
  for (int w = 0; w < WAVES; w++)
    for (int a = 0; a < 3; a++) {
      b->wave[w][a] = rng_range(r, .8, 2.4);
      b->phase[w][a] = rng_range(r, 0, 6.283185307179586);
      b->bend[w][a] = jitter(r, .022);
    }
  for (int k = 0; k < 2; k++)
    for (int a = 0; a < 3; a++) b->grain[k][a] = jitter(r, .35);
}

static void draw_shapes(rng *r, const shape_model *models, int count, body *b) {
  for (int s = 0; s < count; s++) {
    shape_model *m = &b->shape[b->shapes++];
    *m = models[s];
    double move[3], grow = 1 + jitter(r, .12);
    for (int a = 0; a < 3; a++) move[a] = jitter(r, m->points > 1 ? .02 : .05);
    for (int p = 0; p < m->points; p++)
      for (int a = 0; a < 3; a++) m->point[p][a] += move[a] + jitter(r, .012);
    for (int a = 0; a < 3; a++) m->radius[a] *= grow * (1 + jitter(r, .06));
    m->angle += jitter(r, 12);
    m->hu += jitter(r, 7);
  }
}

static void draw_trunk(rng *r, const double field_mm[3], body *b) {
  draw_frame(r, field_mm, (double[]){.44, .35, .5}, b);
  draw_shapes(r, anatomy, SHAPES, b);
  for (int i = 0; i < BOWEL_LOOPS; i++) {
    b->bowel[i][0] = jitter(r, .5);
    b->bowel[i][1] = rng_range(r, 0, .5);
    b->bowel[i][2] = rng_range(r, -.95, -.45);
    b->bowel[i][3] = rng_range(r, .1, .2);
    b->bowel_hu[i] = rng_below(r, 3) == 0 ? -600 : rng_range(r, 20, 60);
  }
  b->lung_base = rng_range(r, .72, .82);
}

/* A chest instead of a belly: the domes stand lower, and in one lung is a tumour. */
static void draw_chest(rng *r, body *b) {
  b->lung_base -= 1.1;
  b->has_tumour = true;
  b->tumour = (shape_model){.organ = TUMOUR, .hu = rng_range(r, 10, 60), .points = 1};
  double side = rng_below(r, 2) ? 1 : -1;
  b->tumour.point[0][0] = side * rng_range(r, .38, .5);
  b->tumour.point[0][1] = rng_range(r, -.2, .2);
  b->tumour.point[0][2] = rng_range(r, .1, .7);
  for (int a = 0; a < 3; a++) b->tumour.radius[a] = rng_range(r, .1, .2);
}

/* A glioma from the inside: a necrosis, the part that takes up gadolinium, the rest of the core, the
 * edema and a lobe of it. One in eight takes up none, as most do that are of low grade. */
static void draw_glioma(rng *r, body *b) {
  double side = rng_below(r, 2) ? 1 : -1, centre[3], radius = rng_range(r, .28, .42);
  centre[0] = side * rng_range(r, .25, .5);
  centre[1] = rng_range(r, -.4, .4);
  centre[2] = rng_range(r, -.1, .4);
  double core = rng_range(r, .5, .65), enhancing = rng_range(r, .7, .9);
  const double share[GLIOMA_PARTS] = {rng_range(r, .4, .65) * enhancing * core, enhancing * core,
                                      core, 1, rng_range(r, .5, .7)};
  static const int organ[GLIOMA_PARTS] = {NON_ENHANCING, ENHANCING, NON_ENHANCING, EDEMA, EDEMA};
  for (int k = rng_below(r, 8) == 0 ? 2 : 0; k < GLIOMA_PARTS; k++) {
    shape_model *m = &b->shape[b->shapes++];
    *m = (shape_model){.organ = organ[k], .points = 1, .angle = rng_range(r, 0, 180)};
    for (int a = 0; a < 3; a++) {
      m->point[0][a] = centre[a] + (k == GLIOMA_PARTS - 1 ? jitter(r, radius) : jitter(r, .02));
      m->radius[a] = radius * share[k] * (1 + jitter(r, .15));
    }
  }
}

static void draw_brain(rng *r, const double field_mm[3], body *b) {
  draw_frame(r, field_mm, (double[]){.3, .36, .4}, b);
  draw_glioma(r, b);
  draw_shapes(r, brain, BRAIN_SHAPES, b);
  for (int c = 0; c < CHANNELS_MAX; c++) {
    b->gain[c] = 200 * pow(10, rng_uniform(r));
    for (int a = 0; a < 3; a++) b->slope[c][a] = jitter(r, .1);
  }
}

/* Squared distance to a tube's axis. */
static double distance_to_axis(const shape_model *m, const double p[3]) {
  double nearest = 1e9;
  for (int i = 0; i + 1 < m->points; i++) {
    const double *a = m->point[i], *b = m->point[i + 1];
    double along = 0, length = 0, distance = 0;
    for (int k = 0; k < 3; k++) {
      along += (p[k] - a[k]) * (b[k] - a[k]);
      length += (b[k] - a[k]) * (b[k] - a[k]);
    }
    along /= length;
    along = along < 0 ? 0 : along > 1 ? 1 : along;
    for (int k = 0; k < 3; k++) {
      double d = p[k] - (a[k] + along * (b[k] - a[k]));
      distance += d * d;
    }
    if (distance < nearest) nearest = distance;
  }
  return nearest;
}

static bool inside(const shape_model *m, const double p[3]) {
  if (m->points > 1) return distance_to_axis(m, p) < m->radius[0] * m->radius[0];
  double d[3] = {p[0] - m->point[0][0], p[1] - m->point[0][1], p[2] - m->point[0][2]};
  double reach = m->radius[0] > m->radius[1] ? m->radius[0] : m->radius[1];
  if (fabs(d[2]) > m->radius[2] || fabs(d[0]) > reach || fabs(d[1]) > reach) return false;
  double turn = m->angle * 0.017453292519943295, c = cos(turn), s = sin(turn);
  double x = (c * d[0] + s * d[1]) / m->radius[0], y = (c * d[1] - s * d[0]) / m->radius[1];
  double z = d[2] / m->radius[2];
  return x * x + y * y + z * z < 1;
}

static double ellipse(double x, double y, double rx, double ry) {
  return x * x / (rx * rx) + y * y / (ry * ry);
}

static void place_in_body(const body *b, const double at_mm[3], double p[3]) {
  for (int a = 0; a < 3; a++) p[a] = (at_mm[a] - b->centre_mm[a]) / b->half_mm[a];
}

static void warp(const body *b, const double p[3], double q[3]) {
  for (int a = 0; a < 3; a++) {
    q[a] = p[a];
    for (int w = 0; w < WAVES; w++)
      q[a] +=
          b->bend[w][a] * sin(b->wave[w][a] * (p[(a + 1) % 3] + p[(a + 2) % 3]) + b->phase[w][a]);
  }
}

/* Within ±8. */
static double texture(const body *b, const double at_mm[3]) {
  double grain = 0;
  for (int k = 0; k < 2; k++)
    grain +=
        4 * sin(b->grain[k][0] * at_mm[0] + b->grain[k][1] * at_mm[1] + b->grain[k][2] * at_mm[2]);
  return grain;
}

/* The first shape that holds a place, or NULL. */
static const shape_model *shape_at(const body *b, const double q[3]) {
  for (int s = 0; s < b->shapes; s++)
    if (inside(&b->shape[s], q)) return &b->shape[s];
  return NULL;
}

/* Intensity in HU and class number, of BTCV or TUMOUR, at a place in the patient. */
static double tissue(const body *b, const double at_mm[3], int *organ) {
  double p[3], q[3];
  *organ = 0;
  place_in_body(b, at_mm, p);
  double trunk = ellipse(p[0], p[1], 1, 1);
  if (trunk > 1) return AIR;
  warp(b, p, q);
  double grain = texture(b, at_mm);
  if (trunk > .85) return FAT + grain;
  double vertebra = ellipse(q[0], q[1] + .6, .15, .16);
  if (vertebra < 1) {
    bool disc = q[2] * 5 - floor(q[2] * 5) < .2;
    return grain + (disc ? DISC : vertebra > .7 ? BONE : MARROW);
  }
  if (trunk > .72 || ellipse(fabs(q[0]) - .3, q[1] + .68, .2, .16) < 1) return MUSCLE + grain;
  if (b->has_tumour && inside(&b->tumour, q)) {
    *organ = TUMOUR;
    return b->tumour.hu + grain;
  }
  const shape_model *there = shape_at(b, q);
  if (there) {
    *organ = there->organ;
    return there->hu + grain;
  }
  /* Lungs above two domes. */
  double dome = b->lung_base - .35 * ellipse(fabs(q[0]) - .4, q[1], .5, .8);
  if (q[2] > dome && fabs(q[0]) > .12) return LUNG + grain;
  for (int i = 0; i < BOWEL_LOOPS; i++) {
    const double *o = b->bowel[i];
    double x = q[0] - o[0], y = q[1] - o[1], z = q[2] - o[2];
    if (x * x + y * y + z * z < o[3] * o[3]) return b->bowel_hu[i] + grain;
  }
  return FAT + grain;
}

/* What of a brain is at a place: shapes, folds of grey matter with fluid between them and between the
 * halves, white matter. 0 outside. */
static int brain_tissue(const body *b, const double p[3]) {
  double q[3];
  warp(b, p, q);
  double depth = 1 - sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]);
  if (depth < 0) return 0;
  const shape_model *there = shape_at(b, q);
  if (there) return there->organ;
  double fold = sin(13 * q[0] + b->phase[0][0]) * sin(11 * q[1] + b->phase[0][1]) *
                sin(12 * q[2] + b->phase[0][2]);
  if (depth < .2 * fold || (fabs(q[0]) < .03 && q[2] > 0 && depth < .5)) return FLUID;
  return depth < .2 + .2 * fabs(fold) ? GREY : WHITE;
}

/* Its intensity in every channel, before noise. */
static int scan_brain(const body *b, const double at_mm[3], float *channels) {
  double p[3];
  place_in_body(b, at_mm, p);
  int organ = brain_tissue(b, p);
  if (organ == 0) return 0; /* as zeroed */
  double grain = 1 + texture(b, at_mm) / 200;
  for (int c = 0; c < CHANNELS_MAX; c++) {
    const double *s = b->slope[c];
    channels[c] = (float)(b->gain[c] * contrast[organ - EDEMA][c] * grain *
                          (1 + s[0] * p[0] + s[1] * p[1] + s[2] * p[2]));
  }
  return organ;
}

/* ---- the file's grid ---- */

/* What a data set looks like from outside. */
typedef struct appearance {
  const char *name, *images, *labels; /* folders below the data set's */
  const char *image_prefix, *label_prefix;
  int digits;
  const int16_t *numbers; /* of the cases; NULL: 1, 2, … */
  int cases;              /* how many there are; with NULL: by default */
  int channels;           /* 1: CT, CHANNELS_MAX: MRI */
  int64_t size[3];        /* nominal */
  double spacing_mm[2]
                   [2];  /* least and largest, in the plane and across; 0: from the field of view */
  bool describes_itself; /* by a dataset.json */
} appearance;

enum { SYNAPSE_CASES = 30, LUNG_CASES = 63 };
static const int16_t synapse_numbers[SYNAPSE_CASES] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                       21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
                                                       31, 32, 33, 34, 35, 36, 37, 38, 39, 40};
static const int16_t lung_numbers[LUNG_CASES] = {
    1,  3,  4,  5,  6,  9,  10, 14, 15, 16, 18, 20, 22, 23, 25, 26, 27, 28, 29, 31, 33,
    34, 36, 37, 38, 41, 42, 43, 44, 45, 46, 47, 48, 49, 51, 53, 54, 55, 57, 58, 59, 61,
    62, 64, 65, 66, 69, 70, 71, 73, 74, 75, 78, 79, 80, 81, 83, 84, 86, 92, 93, 95, 96};

static const appearance appearances[] = {
    [PHANTOM_DECATHLON] = {"decathlon",
                           "imagesTr",
                           "labelsTr",
                           "phantom_",
                           "phantom_",
                           3,
                           NULL,
                           30,
                           1,
                           {96, 96, 64},
                           {{0}},
                           true},
    [PHANTOM_SYNAPSE] = {"synapse",
                         "RawData/Training/img",
                         "RawData/Training/label",
                         "img",
                         "label",
                         4,
                         synapse_numbers,
                         SYNAPSE_CASES,
                         1,
                         {96, 96, 28},
                         {{.59, .98}, {2.5, 5}},
                         false},
    [PHANTOM_LUNG] = {"lung",
                      "imagesTr",
                      "labelsTr",
                      "lung_",
                      "lung_",
                      3,
                      lung_numbers,
                      LUNG_CASES,
                      1,
                      {96, 96, 48},
                      {{.6, .98}, {.625, 2.5}},
                      true},
    [PHANTOM_BRATS] = {"brats",
                       "imagesTr",
                       "labelsTr",
                       "BRATS_",
                       "BRATS_",
                       3,
                       NULL,
                       30,
                       CHANNELS_MAX,
                       {96, 96, 62},
                       {{1, 1}, {1, 1}},
                       true},
};

bool phantom_layout_named(const char *name, phantom_layout *out) {
  for (size_t i = 0; i < sizeof appearances / sizeof *appearances; i++)
    if (strcmp(appearances[i].name, name) == 0) {
      *out = (phantom_layout)i;
      return true;
    }
  return false;
}

/* The field of view of a case and the voxels it is divided into. */
typedef struct scan {
  double field_mm[3];
  int64_t size[3];
  bool varies; /* the spacing around the nominal one, orientation and tilt too */
} scan;

static scan draw_scan(rng *r, const phantom_options *options) {
  const double(*spacing)[2] = appearances[options->layout].spacing_mm;
  scan s = {.field_mm = {240, 240, 240}, .varies = spacing[0][0] == 0};
  memcpy(s.size, options->size, sizeof s.size);
  if (s.varies) return s;
  double in_plane = rng_range(r, spacing[0][0], spacing[0][1]);
  if (spacing[1][0] < spacing[1][1]) /* else all lie on one grid */
    s.size[2] = (int64_t)rint((double)s.size[2] * rng_range(r, .65, 1.35));
  s.field_mm[0] = in_plane * (double)s.size[0];
  s.field_mm[1] = in_plane * (double)s.size[1];
  s.field_mm[2] = rng_range(r, spacing[1][0], spacing[1][1]) * (double)s.size[2];
  return s;
}

/* A grid around the body's centre: spacing, stored orientation and tilt of this case. */
static void draw_grid(rng *r, const scan *scan, const body *b, volume *v) {
  static const char *const orientations[] = {"LAS", "RAS", "LPS", "ASR"};
  double wobble = scan->varies ? .15 : 0;
  double in_plane = 1 + jitter(r, wobble), through = 1 + jitter(r, wobble);
  int64_t size[3];
  double affine[4][4] = {{0}};
  double tilt = rng_below(r, 4) == 0 ? rng_range(r, .06, .15) : 0; /* radians, about x */
  if (!scan->varies) tilt = 0;
  for (int a = 0; a < 3; a++) {
    double spacing = scan->field_mm[a] / (double)scan->size[a] * (a < 2 ? in_plane : through);
    size[a] = (int64_t)(scan->field_mm[a] / spacing + .5);
    affine[a][a] = spacing;
  }
  double c = cos(tilt), s = sin(tilt);
  for (int k = 1; k < 3; k++) {
    double y = affine[1][k], z = affine[2][k];
    affine[1][k] = c * y - s * z;
    affine[2][k] = s * y + c * z;
  }
  for (int a = 0; a < 3; a++) {
    affine[a][3] = b->centre_mm[a] + jitter(r, 2);
    for (int k = 0; k < 3; k++) affine[a][3] -= affine[a][k] * (double)(size[k] - 1) / 2;
  }
  affine[3][3] = 1;
  /* From here the voxels' order is chosen; the grid stays where it is. */
  const char *axes = orientations[rng_below(r, 4)];
  grid_map map =
      grid_to_axes((const double(*)[4])affine, size, scan->varies ? axes : orientations[0]);
  memset(v, 0, sizeof *v);
  for (int a = 0; a < 3; a++) {
    int from = map.axis[a];
    v->size[a] = size[from];
    for (int k = 0; k < 3; k++) {
      v->affine[k][a] = map.flip[a] ? -affine[k][from] : affine[k][from];
      v->affine[k][3] += affine[k][from] * (double)map.start[a];
    }
  }
  for (int k = 0; k < 3; k++) v->affine[k][3] += affine[k][3];
  v->affine[3][3] = 1;
}

/* Binomial smoothing (1 2 1) / 4 of one channel along one axis: the partial volume of a scanner. */
static void smooth_axis(volume *v, int axis, int64_t channel, float *line) {
  const int64_t C = v->channels;
  const int64_t stride[3] = {v->size[1] * v->size[2] * C, v->size[2] * C, C};
  const int u = (axis + 1) % 3, w = (axis + 2) % 3;
  const int64_t n = v->size[axis], step = stride[axis];
  for (int64_t i = 0; i < v->size[u]; i++)
    for (int64_t j = 0; j < v->size[w]; j++) {
      float *at = v->data + channel + i * stride[u] + j * stride[w];
      for (int64_t k = 0; k < n; k++) line[k] = at[k * step];
      for (int64_t k = 0; k < n; k++) {
        float before = line[k > 0 ? k - 1 : 0], after = line[k + 1 < n ? k + 1 : k];
        at[k * step] = (before + 2 * line[k] + after) / 4;
      }
    }
}

static status smooth(volume *v) {
  int64_t longest = 1;
  for (int a = 0; a < 3; a++) longest = v->size[a] > longest ? v->size[a] : longest;
  float *line = malloc((size_t)longest * sizeof *line);
  if (!line) return error_out_of_memory((size_t)longest * sizeof *line);
  for (int64_t c = 0; c < v->channels; c++)
    for (int a = 0; a < 3; a++) smooth_axis(v, a, c, line);
  free(line);
  return OK;
}

/* Noise, and no smaller values than a scanner gives. Of a brain nothing but the brain is left. */
static void finish_image(rng *noise, const body *b, const labels *organs_there, volume *image) {
  const double noise_hu = 12, noise_share = .03;
  const bool is_brain = image->channels > 1;
  const float least = is_brain ? 1 : -1024;
  const int64_t C = image->channels, n = image->size[0] * image->size[1] * image->size[2] * C;
  for (int64_t i = 0; i < n; i++) {
    if (is_brain && organs_there->data[i / C] == 0) {
      image->data[i] = 0; /* smoothing has left some there */
      continue;
    }
    double sd = is_brain ? noise_share * b->gain[i % C] : noise_hu;
    float value = image->data[i] + (float)sd * rng_normal(noise);
    image->data[i] = rintf(value < least ? least : value);
  }
}

static status draw_case(rng_key key, const phantom_options *options, const int class_of[],
                        volume *image, labels *label) {
  rng r = rng_open(key, text_hash("body")), noise = rng_open(key, text_hash("noise"));
  rng scanner = rng_open(key, text_hash("scanner")), chest = rng_open(key, text_hash("chest"));
  const bool is_brain = options->layout == PHANTOM_BRATS;
  const int64_t channels = appearances[options->layout].channels;
  scan scan = draw_scan(&scanner, options);
  body b = {0};
  if (is_brain)
    draw_brain(&r, scan.field_mm, &b);
  else
    draw_trunk(&r, scan.field_mm, &b);
  if (options->layout == PHANTOM_LUNG) draw_chest(&chest, &b);
  draw_grid(&r, &scan, &b, image);
  int64_t size[3] = {image->size[0], image->size[1], image->size[2]};
  TRY(volume_allocate(image, size, channels));
  TRY(labels_allocate(label, size));
  memcpy(label->affine, image->affine, sizeof label->affine);
  int64_t i = 0;
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t y = 0; y < size[1]; y++)
      for (int64_t z = 0; z < size[2]; z++, i++) {
        double at[3];
        for (int a = 0; a < 3; a++)
          at[a] = image->affine[a][0] * (double)x + image->affine[a][1] * (double)y +
                  image->affine[a][2] * (double)z + image->affine[a][3];
        float *voxel = image->data + i * channels;
        int organ;
        if (is_brain)
          organ = scan_brain(&b, at, voxel);
        else
          *voxel = (float)tissue(&b, at, &organ);
        label->data[i] = (uint8_t)organ;
      }
  TRY(smooth(image));
  finish_image(&noise, &b, label, image);
  while (i-- > 0) label->data[i] = (uint8_t)class_of[label->data[i]];
  return OK;
}

/* ---- the dataset ---- */

typedef struct work {
  const char *folder;
  uint64_t seed;
  phantom_options options;
  const appearance *looks;
  int class_of
      [CLASS_NUMBERS]; /* BTCV number, TUMOUR, … → class number in the files, 0 = unlabelled */
  status *errors;
} work;

enum { NAME_BYTES = 40 };

static void case_file_name(const appearance *looks, bool label, int64_t index,
                           char out[NAME_BYTES]) {
  snprintf(out, NAME_BYTES, "%s%0*d", label ? looks->label_prefix : looks->image_prefix,
           looks->digits, looks->numbers ? looks->numbers[index] : (int)index + 1);
}

static status write_case(const work *w, int64_t index) {
  char name[NAME_BYTES], label_name[NAME_BYTES];
  case_file_name(w->looks, false, index, name);
  case_file_name(w->looks, true, index, label_name);
  text_buffer image_path = {0}, label_path = {0};
  text_add(&image_path, "%s/%s/%s.nii.gz", w->folder, w->looks->images, name);
  text_add(&label_path, "%s/%s/%s.nii.gz", w->folder, w->looks->labels, label_name);
  volume image = {0};
  labels label = {0};
  status error = draw_case(rng_key_of(w->seed, "phantom", 0, name, 0), &w->options, w->class_of,
                           &image, &label);
  if (!error) error = nifti_write_volume(image_path.data, &image);
  if (!error) error = nifti_write_labels(label_path.data, &label, image_path.data);
  volume_free(&image);
  labels_free(&label);
  text_free(&image_path);
  text_free(&label_path);
  return error;
}

static void case_task(void *context, int64_t task) {
  work *w = context;
  w->errors[task] = write_case(w, task);
}

static const char *class_name(int organ) {
  return organ < TUMOUR ? organs[organ - 1].name : tumour_names[organ - TUMOUR];
}

static const char *modality(const appearance *looks) {
  return looks->channels == 1 ? "CT" : "MRI";
}

static status write_description(const work *w, const char *path, int cases) {
  json_t *classes = json_object(), *training = json_array();
  json_object_set_new(classes, "0", json_string("background"));
  for (int organ = 1; organ < CLASS_NUMBERS; organ++) {
    char number[12];
    snprintf(number, sizeof number, "%d", w->class_of[organ]);
    if (w->class_of[organ]) json_object_set_new(classes, number, json_string(class_name(organ)));
  }
  for (int i = 0; i < cases; i++) {
    char name[NAME_BYTES], image[80], label[80];
    case_file_name(w->looks, false, i, name);
    snprintf(image, sizeof image, "./imagesTr/%s.nii.gz", name);
    snprintf(label, sizeof label, "./labelsTr/%s.nii.gz", name);
    json_array_append_new(training, json_pack("{s:s, s:s}", "image", image, "label", label));
  }
  json_t *modalities = w->looks->channels == 1 ? json_pack("{s:s}", "0", "CT")
                                               : json_pack("{s:s, s:s, s:s, s:s}", "0", "FLAIR",
                                                           "1", "T1w", "2", "t1gd", "3", "T2w");
  json_t *root = json_pack("{s:s, s:s++, s:s, s:o, s:o, s:i, s:i, s:o, s:[]}", "name", "Phantom",
                           "description", "Synthetic ", modality(w->looks), "; no patient data",
                           "tensorImageSize", w->looks->channels == 1 ? "3D" : "4D", "modality",
                           modalities, "labels", classes, "numTraining", cases, "numTest", 0,
                           "training", training, "test");
  status error = json_write(path, root, JSON_INDENT(2) | JSON_PRESERVE_ORDER, "");
  json_decref(root);
  return error;
}

/* BTCV has no description; a note marks the folder as ours. */
static status write_note(const char *path) {
  static const char note[] = "Synthetic CT made by strata phantom; no patient data.\n";
  return file_write_atomic(path, note, sizeof note - 1);
}

static status refuse_other_dataset(const work *w, const char *mark) {
  char *images = path_join(w->folder, w->looks->images);
  bool ours = file_exists(mark) || w->looks->describes_itself || !file_exists(images);
  if (file_exists(mark) && w->looks->describes_itself) {
    json_t *there = NULL;
    error_free(json_read(mark, 1 << 20, &there));
    const char *name = json_string_value(json_object_get(there, "name"));
    ours = name && strcmp(name, "Phantom") == 0;
    json_decref(there);
  }
  free(images);
  return ours
             ? OK
             : error_new(ERROR_USAGE, NOWHERE,
                         "%s is another dataset, which would be overwritten. Give an empty folder.",
                         w->folder);
}

static status make_folders(const work *w) {
  const char *const parts[] = {w->looks->images, w->looks->labels};
  for (int i = 0; i < 2; i++) {
    char *path = path_join(w->folder, parts[i]);
    status error = folder_create(path);
    free(path);
    if (error) return error;
  }
  return OK;
}

static status write_cases(work *w, int cases) {
  thread_pool *pool;
  TRY(pool_create(0, &pool));
  parallel_for(pool, cases, case_task, w);
  pool_destroy(pool);
  problems all = {0};
  for (int i = 0; i < cases; i++) problems_add(&all, w->errors[i]);
  return problems_take(&all);
}

static status check_options(work *w, int *cases) {
  const appearance *looks = w->looks;
  if (*cases == 0) *cases = looks->cases;
  int most = looks->numbers ? looks->cases : PHANTOM_CASES_MAX;
  if (*cases < 1 || *cases > most)
    return error_new(ERROR_USAGE, NOWHERE, "a phantom dataset has 1 to %d cases, not %d", most,
                     *cases);
  for (int a = 0; a < 3; a++) {
    if (w->options.size[a] == 0) w->options.size[a] = looks->size[a];
    if (w->options.size[a] < 16 || w->options.size[a] > 1024)
      return error_new(ERROR_USAGE, NOWHERE, "a phantom has 16 to 1024 voxels an axis, not %lld",
                       (long long)w->options.size[a]);
  }
  if (w->options.organs != 0 && w->options.layout != PHANTOM_DECATHLON)
    return error_new(ERROR_USAGE, NOWHERE, "the layout %s has classes of its own", looks->name);
  if (w->options.organs == 0) w->options.organs = PHANTOM_ORGANS;
  if (w->options.organs < 1 || w->options.organs > PHANTOM_ORGANS)
    return error_new(ERROR_USAGE, NOWHERE, "a phantom has 1 to %d labelled organs, not %d",
                     PHANTOM_ORGANS, w->options.organs);
  return OK;
}

static void number_classes(work *w) {
  if (w->options.layout == PHANTOM_LUNG) {
    w->class_of[TUMOUR] = 1;
    return;
  }
  if (w->options.layout == PHANTOM_BRATS) {
    for (int organ = EDEMA; organ <= ENHANCING; organ++) w->class_of[organ] = organ - TUMOUR;
    return;
  }
  for (int i = 0, next = 1; i < PHANTOM_ORGANS; i++)
    if (organs[i].size_rank < w->options.organs) w->class_of[i + 1] = next++;
}

status phantom_write(const char *folder, int cases, uint64_t seed, const phantom_options *options) {
  work w = {.folder = folder, .seed = seed};
  if (options) w.options = *options;
  w.looks = &appearances[w.options.layout];
  TRY(check_options(&w, &cases));
  number_classes(&w);
  char *mark = path_join(folder, w.looks->describes_itself ? "dataset.json" : "phantom.txt");
  w.errors = calloc((size_t)cases, sizeof *w.errors);
  status error = w.errors ? refuse_other_dataset(&w, mark) : error_out_of_memory(4096);
  if (!error) error = make_folders(&w);
  if (!error && !w.looks->describes_itself) error = write_note(mark);
  if (!error) error = write_cases(&w, cases);
  if (!error && w.looks->describes_itself) error = write_description(&w, mark, cases);
  free(w.errors);
  free(mark);
  return error;
}
