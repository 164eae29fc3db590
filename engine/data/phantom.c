/* The body is described in its own coordinates: x to the right, y to the front, z to the head, each
 * −1 to 1 across the trunk. Every voxel's place in the patient (by the file's affine) is carried
 * into these coordinates, bent by a smooth random warp, and compared with the shapes; so spacing,
 * stored orientation and obliqueness are those of the file, never of the body. */
#include "data/phantom.h"

#include "base/files.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/volume.h"

#include <jansson.h>
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

enum { POINTS_MAX = 4, BOWEL_LOOPS = 6, WAVES = 3 };

/* An ellipsoid (one point, three radii, turned in the x-y plane) or a tube along two or more points
 * (one radius). */
typedef struct shape_model {
  int organ; /* BTCV number, 0 = unlabelled */
  double hu;
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

enum { AIR = -1000, FAT = -100, MUSCLE = 55, LUNG = -800, BONE = 420, MARROW = 190, DISC = 90 };

/* One case, drawn from its random stream. */
typedef struct body {
  double half_mm[3];   /* of the trunk */
  double centre_mm[3]; /* in the patient's coordinates */
  double wave[WAVES][3], phase[WAVES][3], bend[WAVES][3];
  double grain[2][3]; /* texture: wave vectors in 1/mm */
  shape_model shape[SHAPES];
  double bowel[BOWEL_LOOPS][4], bowel_hu[BOWEL_LOOPS];
  double lung_base;
} body;

static double jitter(rng *r, double half_width) {
  return rng_range(r, -half_width, half_width);
}

static void draw_body(rng *r, const double field_mm[3], body *b) {
  double size = 1 + jitter(r, .07);
  const double share[3] = {.44, .35, .5};
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
  for (int s = 0; s < SHAPES; s++) {
    shape_model *m = &b->shape[s];
    *m = anatomy[s];
    double move[3], grow = 1 + jitter(r, .12);
    for (int a = 0; a < 3; a++) move[a] = jitter(r, m->points > 1 ? .02 : .05);
    for (int p = 0; p < m->points; p++)
      for (int a = 0; a < 3; a++) m->point[p][a] += move[a] + jitter(r, .012);
    for (int a = 0; a < 3; a++) m->radius[a] *= grow * (1 + jitter(r, .06));
    m->angle += jitter(r, 12);
    m->hu += jitter(r, 7);
  }
  for (int i = 0; i < BOWEL_LOOPS; i++) {
    b->bowel[i][0] = jitter(r, .5);
    b->bowel[i][1] = rng_range(r, 0, .5);
    b->bowel[i][2] = rng_range(r, -.95, -.45);
    b->bowel[i][3] = rng_range(r, .1, .2);
    b->bowel_hu[i] = rng_below(r, 3) == 0 ? -600 : rng_range(r, 20, 60);
  }
  b->lung_base = rng_range(r, .72, .82);
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

/* Intensity in HU and BTCV class number at a place in the patient. */
static double tissue(const body *b, const double at_mm[3], int *organ) {
  double p[3], q[3];
  *organ = 0;
  for (int a = 0; a < 3; a++) p[a] = (at_mm[a] - b->centre_mm[a]) / b->half_mm[a];
  double trunk = ellipse(p[0], p[1], 1, 1);
  if (trunk > 1) return AIR;
  for (int a = 0; a < 3; a++) {
    q[a] = p[a];
    for (int w = 0; w < WAVES; w++)
      q[a] +=
          b->bend[w][a] * sin(b->wave[w][a] * (p[(a + 1) % 3] + p[(a + 2) % 3]) + b->phase[w][a]);
  }
  double grain = 0;
  for (int k = 0; k < 2; k++)
    grain +=
        4 * sin(b->grain[k][0] * at_mm[0] + b->grain[k][1] * at_mm[1] + b->grain[k][2] * at_mm[2]);
  if (trunk > .85) return FAT + grain;
  double vertebra = ellipse(q[0], q[1] + .6, .15, .16);
  if (vertebra < 1) {
    bool disc = q[2] * 5 - floor(q[2] * 5) < .2;
    return grain + (disc ? DISC : vertebra > .7 ? BONE : MARROW);
  }
  if (trunk > .72 || ellipse(fabs(q[0]) - .3, q[1] + .68, .2, .16) < 1) return MUSCLE + grain;
  for (int s = 0; s < SHAPES; s++)
    if (inside(&b->shape[s], q)) {
      *organ = b->shape[s].organ;
      return b->shape[s].hu + grain;
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

/* ---- the file's grid ---- */

/* A grid around the body's centre: spacing, stored orientation and tilt of this case. */
static void draw_grid(rng *r, const double field_mm[3], const int64_t nominal[3], const body *b,
                      volume *v) {
  static const char *const orientations[] = {"LAS", "RAS", "LPS", "ASR"};
  double in_plane = 1 + jitter(r, .15), through = 1 + jitter(r, .15);
  int64_t size[3];
  double affine[4][4] = {{0}};
  double tilt = rng_below(r, 4) == 0 ? rng_range(r, .06, .15) : 0; /* radians, about x */
  for (int a = 0; a < 3; a++) {
    double spacing = field_mm[a] / (double)nominal[a] * (a < 2 ? in_plane : through);
    size[a] = (int64_t)(field_mm[a] / spacing + .5);
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
  grid_map map = grid_to_axes((const double(*)[4])affine, size, orientations[rng_below(r, 4)]);
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

/* Binomial smoothing (1 2 1) / 4 along one axis: the partial volume of a scanner. */
static void smooth_axis(volume *v, int axis, float *line) {
  const int64_t stride[3] = {v->size[1] * v->size[2], v->size[2], 1};
  const int u = (axis + 1) % 3, w = (axis + 2) % 3;
  const int64_t n = v->size[axis], step = stride[axis];
  for (int64_t i = 0; i < v->size[u]; i++)
    for (int64_t j = 0; j < v->size[w]; j++) {
      float *at = v->data + i * stride[u] + j * stride[w];
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
  for (int a = 0; a < 3; a++) smooth_axis(v, a, line);
  free(line);
  return OK;
}

static status draw_case(rng_key key, const phantom_options *options, const int class_of[],
                        volume *image, labels *label) {
  const double field_mm[3] = {240, 240, 240}, noise_hu = 12;
  rng r = rng_open(key, text_hash("body")), noise = rng_open(key, text_hash("noise"));
  body b;
  draw_body(&r, field_mm, &b);
  draw_grid(&r, field_mm, options->size, &b, image);
  int64_t size[3] = {image->size[0], image->size[1], image->size[2]};
  TRY(volume_allocate(image, size, 1));
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
        int organ;
        image->data[i] = (float)tissue(&b, at, &organ);
        label->data[i] = class_of[organ];
      }
  TRY(smooth(image));
  for (int64_t k = 0; k < i; k++) {
    float hu = image->data[k] + (float)noise_hu * rng_normal(&noise);
    image->data[k] = rintf(hu < -1024 ? -1024 : hu);
  }
  return OK;
}

/* ---- the dataset ---- */

typedef struct work {
  const char *folder;
  uint64_t seed;
  phantom_options options;
  int class_of[PHANTOM_ORGANS + 1]; /* BTCV number → class number in the files, 0 = unlabelled */
  status *errors;
} work;

static void case_file_name(char out[40], int64_t index) {
  snprintf(out, 40, "phantom_%03d", (int)index + 1);
}

static status write_case(const work *w, int64_t index) {
  char name[40];
  case_file_name(name, index);
  text_buffer image_path = {0}, label_path = {0};
  text_add(&image_path, "%s/imagesTr/%s.nii.gz", w->folder, name);
  text_add(&label_path, "%s/labelsTr/%s.nii.gz", w->folder, name);
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

static status write_description(const work *w, const char *path, int cases) {
  json_t *classes = json_object(), *training = json_array();
  json_object_set_new(classes, "0", json_string("background"));
  for (int organ = 1; organ <= PHANTOM_ORGANS; organ++) {
    char number[12];
    snprintf(number, sizeof number, "%d", w->class_of[organ]);
    if (w->class_of[organ])
      json_object_set_new(classes, number, json_string(organs[organ - 1].name));
  }
  for (int i = 0; i < cases; i++) {
    char name[40], image[80], label[80];
    case_file_name(name, i);
    snprintf(image, sizeof image, "./imagesTr/%s.nii.gz", name);
    snprintf(label, sizeof label, "./labelsTr/%s.nii.gz", name);
    json_array_append_new(training, json_pack("{s:s, s:s}", "image", image, "label", label));
  }
  json_t *root = json_pack("{s:s, s:s, s:s, s:{s:s}, s:o, s:i, s:i, s:o, s:[]}", "name", "Phantom",
                           "description", "Synthetic abdominal CT; no patient data",
                           "tensorImageSize", "3D", "modality", "0", "CT", "labels", classes,
                           "numTraining", cases, "numTest", 0, "training", training, "test");
  char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
  status error = text ? file_write_atomic(path, text, strlen(text)) : error_out_of_memory(4096);
  free(text);
  json_decref(root);
  return error;
}

static status refuse_other_dataset(const char *path) {
  json_t *there = json_load_file(path, 0, NULL);
  const char *name = json_string_value(json_object_get(there, "name"));
  bool ours = !file_exists(path) || (name && strcmp(name, "Phantom") == 0);
  json_decref(there);
  return ours ? OK
              : error_new(ERROR_USAGE, NOWHERE,
                          "%s describes another dataset, which would be overwritten. Give an empty "
                          "folder.",
                          path);
}

static status make_folders(const char *folder) {
  static const char *const parts[] = {"imagesTr", "labelsTr"};
  for (int i = 0; i < 2; i++) {
    char *path = path_join(folder, parts[i]);
    if (!path) return error_out_of_memory(strlen(folder));
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

status phantom_write(const char *folder, int cases, uint64_t seed, const phantom_options *options) {
  work w = {.folder = folder, .seed = seed};
  if (options) w.options = *options;
  static const int64_t usual[3] = {96, 96, 64};
  for (int a = 0; a < 3; a++) {
    if (w.options.size[a] == 0) w.options.size[a] = usual[a];
    if (w.options.size[a] < 16 || w.options.size[a] > 1024)
      return error_new(ERROR_USAGE, NOWHERE, "a phantom has 16 to 1024 voxels an axis, not %lld",
                       (long long)w.options.size[a]);
  }
  if (w.options.organs == 0) w.options.organs = PHANTOM_ORGANS;
  if (w.options.organs < 1 || w.options.organs > PHANTOM_ORGANS)
    return error_new(ERROR_USAGE, NOWHERE, "a phantom has 1 to %d labelled organs, not %d",
                     PHANTOM_ORGANS, w.options.organs);
  if (cases < 1 || cases > PHANTOM_CASES_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "a phantom dataset has 1 to %d cases, not %d",
                     PHANTOM_CASES_MAX, cases);
  for (int i = 0, next = 1; i < PHANTOM_ORGANS; i++)
    if (organs[i].size_rank < w.options.organs) w.class_of[i + 1] = next++;

  char *description = path_join(folder, "dataset.json");
  w.errors = calloc((size_t)cases, sizeof *w.errors);
  status error =
      description && w.errors ? refuse_other_dataset(description) : error_out_of_memory(4096);
  if (!error) error = make_folders(folder);
  if (!error) error = write_cases(&w, cases);
  if (!error) error = write_description(&w, description, cases);
  free(w.errors);
  free(description);
  return error;
}
