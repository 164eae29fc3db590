/* The parts of `evaluate:` that say how a volume is segmented. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/text.h"
#include "language/bind.h"
#include "language/load.h"

typedef struct window_attrs {
  int64_t size[3], batch;
  double overlap, step[3], sigma_scale;
  int blend, average, resample, separate_axis;
  unsigned mirror;
  const char *memory;
} window_attrs;

static const char *const blends[] = {"constant", "gaussian", "gaussian_nnunet", NULL};
static const char *const averages[] = {"logits", "probabilities", NULL};
static const char *const resampled[] = {"probabilities", "logits", NULL};
static const char *const separations[] = {"none", "auto", NULL};

static const attr window_attr_list[] = {
    {"size", ATTR_INT3, offsetof(window_attrs, size), NULL, 1, 4096, NULL, 0,
     "extents of a window, in voxels of the prepared grid"},
    {"overlap", ATTR_FLOAT, offsetof(window_attrs, overlap), "0.5", 0, 0.95, NULL, 0,
     "of neighbouring windows, placed as MONAI places them"},
    {"step", ATTR_FLOAT3, offsetof(window_attrs, step), "0", 0, 4096, NULL, 0,
     "in place of overlap: largest distance of neighbours, spread evenly as nnU-Net spreads them. "
     "Up to 1 a share of the window, above in voxels; never less than a voxel"},
    {"blend", ATTR_CHOICE, offsetof(window_attrs, blend), "gaussian", 0, 0, blends, 0,
     "importance of a window's voxels: MONAI's Gaussian, nnU-Net's, or all the same"},
    {"sigma_scale", ATTR_FLOAT, offsetof(window_attrs, sigma_scale), "0.125", 0.02, 10, NULL, 0,
     "standard deviation of the Gaussian, as a share of the window"},
    {"batch", ATTR_INT, offsetof(window_attrs, batch), "1", 1, 256, NULL, 0,
     "windows that go through the network together"},
    {"mirror", ATTR_AXES, offsetof(window_attrs, mirror), "[]", 0, 0, NULL, 0,
     "axes along which windows are mirrored, too; the outputs of all copies are averaged"},
    {"average", ATTR_CHOICE, offsetof(window_attrs, average), "logits", 0, 0, averages, 0,
     "what is averaged over copies, windows and networks: MONAI and nnU-Net 2 take logits, nnU-Net 1 "
     "and UNETR++ probabilities"},
    {"resample", ATTR_CHOICE, offsetof(window_attrs, resample), "probabilities", 0, 0, resampled, 0,
     "what is interpolated onto the grid of the file; nnU-Net 2 takes logits"},
    {"separate_axis", ATTR_CHOICE, offsetof(window_attrs, separate_axis), "none", 0, 0, separations,
     0,
     "auto: along a coarse axis, as nnU-Net decides, the nearest slice is taken and only the others "
     "are interpolated"},
    {"memory", ATTR_STRING, offsetof(window_attrs, memory), "8GiB", 0, 0, NULL, 0,
     "what the sums of the outputs may take of it; they go to a temporary file beyond"},
    {0},
};

const op sliding_window_op = {
    .name = "evaluate: inferer: sliding_window",
    .attrs = window_attr_list,
    .attrs_bytes = sizeof(window_attrs),
};

void inference_window(arena *memory, const tree *t, evaluate_spec *e, problems *all) {
  window_attrs a;
  window_spec *w = &e->windows;
  int before = all->count;
  bind_attrs(&sliding_window_op, t, NULL, t->at, memory, &a, all);
  *w = (window_spec){.overlap = a.overlap,
                     .blend = (blend)a.blend,
                     .sigma_scale = a.sigma_scale,
                     .batch = a.batch,
                     .average_probabilities = a.average == 1,
                     .resample_logits = a.resample == 1,
                     .separates_axis = a.separate_axis == 1};
  const tree *step = tree_get(t, "step");
  for (int i = 0; i < 3; i++) {
    w->size[i] = a.size[i];
    w->step[i] = a.step[i] <= 1 ? a.step[i] * (double)a.size[i] : a.step[i];
    w->mirror[i] = a.mirror >> i & 1;
    if (step && all->count == before && (!(w->step[i] > 0) || w->step[i] > (double)w->size[i])) {
      problems_add(all,
                   error_new(ERROR_PIPELINE, step->at,
                             "%s: step must be above 0 and at most the window's %lld voxels "
                             "along %c, not %.10g.",
                             sliding_window_op.name, (long long)w->size[i], "xyz"[i], a.step[i]));
      break;
    }
  }
  if (step && tree_get(t, "overlap"))
    problems_add(all,
                 error_new(ERROR_PIPELINE, step->at,
                           "%s: give overlap or step, not both: a step of 0.5 is an overlap of "
                           "0.5.",
                           sliding_window_op.name));
  const tree *resample = tree_get(t, "resample");
  if (resample && w->resample_logits && w->average_probabilities)
    problems_add(all,
                 error_new(ERROR_PIPELINE, resample->at,
                           "%s: there are no logits to resample where probabilities are averaged.",
                           sliding_window_op.name));
  const tree *budget = tree_get(t, "memory");
  if (!parse_bytes(a.memory, &w->memory_bytes) && budget) {
    char found[96];
    problems_add(all, error_new(ERROR_PIPELINE, budget->at,
                                "%s: memory must be a size such as 2GiB or 512MiB, not %s.",
                                sliding_window_op.name, tree_describe(budget, found)));
  }
}

void postprocess_read(arena *memory, tree *t, evaluate_spec *e, problems *all) {
  e->postprocess = operators_read(memory, t, "evaluate: postprocess", OP_POSTPROCESS,
                                  "a postprocess", &e->postprocess_count, all);
}
