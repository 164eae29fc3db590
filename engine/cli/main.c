/* strata: finds the command, reads its options, prints errors, sets the exit status.
 *
 * Exit status: 0 done, 1 failed, 2 wrong command line, 130 stopped by a signal (state saved). */
#include "base/device_name.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/text.h"
#include "cli/command.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

typedef struct option_help {
  uint64_t flag;
  const char *name, *argument, *help;
} option_help;

static const option_help option_table[] = {
    {OPTION_SET, "set", "KEY=VALUE",
     "change a key: --set seed=3, --set params.slabs=4, --set stages.segment.epochs=50"},
    {OPTION_OUT, "out", "PATH", "where the result goes"},
    {OPTION_RESUME, "resume", NULL, "go on with what was stopped in --out"},
    {OPTION_RESUME_IF_ANY, "resume-if-any", NULL,
     "go on with the run in --out, or begin it where there is none yet: for scripts of jobs"},
    {OPTION_CHANGED_SCRIPTS, "changed-scripts", NULL,
     "with --resume: the Lua files may have changed; run.json notes it"},
    {OPTION_ALLOW_CHANGES, "allow-changes", NULL,
     "run a lock, or go on with --resume, although not everything is as it was; run.json lists what "
     "is not"},
    {OPTION_WITH_WEIGHTS, "weights", NULL, "pack weights, too"},
    {OPTION_LIST, "list", NULL, "list what a pack holds"},
    {OPTION_THREADS, "threads", "N",
     "threads to compute with (default: the pipeline's, else every core that the process may use); results "
     "do not depend on it"},
    {OPTION_DEVICE, "device", "NAME", DEVICE_NAMES},
    {OPTION_STAGE, "stage", "NAME", "which stage (default: the last)"},
    {OPTION_DOT, "dot", NULL, "write the graph for Graphviz"},
    {OPTION_STEPS, "steps", "N", "timed steps (default 10)"},
    {OPTION_BATCH, "batch", "N", "samples a step (default: the stage's; new: 2)"},
    {OPTION_PROFILE, "profile", NULL, "a row for each node"},
    {OPTION_INFERENCE, "inference", NULL,
     "the network alone, on a batch of windows as predict has it"},
    {OPTION_ARG, "arg", "NAME=VALUE", "what the script finds as args.NAME: --arg seeds=5"},
    {OPTION_JOBS, "jobs", "N", "trials at a time (default 1); --threads counts for all together"},
    {OPTION_DRY_RUN, "dry-run", NULL, "list the trials and what is done of them"},
    {OPTION_JSON, "json", "FILE", "also write the result as JSON"},
    {OPTION_MEMORY, "memory", "SIZE",
     "that a training step may take, weights included (default 8GiB)"},
    {OPTION_NETWORK, "network", "NAME", "dynunet (default) or resenc_unet"},
    {OPTION_NNUNET, "nnunet", "FOLDER",
     "go on with a trained model of nnU-Net: …/nnUNetTrainer__nnUNetPlans__3d_fullres"},
    {OPTION_CASES, "cases", "N", "number of cases (default 30)"},
    {OPTION_SEED, "seed", "N", "seed (default 1)"},
    {OPTION_ORGANS, "organs", "N", "number of organs, largest first (default 13)"},
    {OPTION_LAYOUT, "layout", "NAME", "decathlon (default), synapse, lung or brats"},
    {OPTION_SIZE, "size", "N", "voxels along x and y (default 96)"},
    {OPTION_PROBABILITIES, "probabilities", "DIR",
     "also write each class's probability, a channel a class (float32, before postprocessing)"},
    {OPTION_PREDICTION, "prediction", "DIR", "folder of segmentations"},
    {OPTION_REFERENCE, "reference", "DIR", "folder of reference labels"},
    {OPTION_EMPTY, "empty", "POLICY", "class absent from both: skip (default), one or zero"},
    {OPTION_HD95, "hd95", "NAME", "max (MONAI's definition, default) or pooled (MedPy's)"},
    {OPTION_CSV, "csv", "FILE", "also write the figures, a row each"},
    {OPTION_METRICS, "metrics", "NAMES",
     "all, or some of dice, jaccard, precision, recall, hd, hd95, assd, nsd, volume_difference, "
     "relative_volume_difference (default dice,hd95)"},
    {OPTION_TOLERANCE, "tolerance", "MM", "of nsd; with commas: by class from 1 (default 1)"},
    {OPTION_GROUP, "group", "NAME=CLASSES", "a mean over these classes, such as kidneys=2,3"},
    {OPTION_REGION, "region", "NAME=CLASSES",
     "scores the union of these classes; with one or more, regions in place of classes"},
    {OPTION_NAMES, "names", "NAMES", "of the classes from 1 on, with commas between them"},
    {OPTION_POSTPROCESS, "postprocess", "OPERATORS",
     "what is done to the segmentations first, such as keep_largest; the files stay"},
    {OPTION_IGNORE_LABEL, "ignore-label", "N",
     "voxels that are N in the reference are left out (their class is unknown)"},
    {OPTION_MAP, "map", "RULES.yaml", "how names change: strip, drop, rename"},
    {OPTION_MARKDOWN, "markdown", NULL, "print Markdown"},
    {OPTION_COMMON, "common", NULL, "compare the cases and classes that all runs have"},
    {OPTION_CLASSES, "classes", "NAMES",
     "only these, with commas between them; mean is the mean over all classes of a case"},
    {OPTION_ZEROS, "zeros", "METHOD",
     "pairs without a difference in Wilcoxon's test: wilcox leaves them out (default), pratt ranks "
     "them first"},
    {OPTION_BOOTSTRAP, "bootstrap", "METHOD", "bca (default) or percentile"},
    {OPTION_CASE, "case", "NAME", "which case (default: the first that trains)"},
    {OPTION_CROPS, "crops", "N", "how many random draws (default 3)"},
    {OPTION_EPOCH, "epoch", "N", "of which epoch, from 1 (default 1)"},
    {OPTION_RESAMPLES, "resamples", "N", "of the bootstrap (default 10000)"},
    {OPTION_CONFIDENCE, "confidence", "SHARE", "of the interval (default 0.95)"},
    {OPTION_KEY, "key", "NAME", "which dict of a PyTorch file: state_dict, trainer.model"},
    {OPTION_AGAINST, "against", "RUN", "a second run to compare with"},
    {OPTION_WITHIN, "within", "SHARE",
     "diff: such differences, relative to a tensor's largest number, are none (1e-4)"},
    {OPTION_QUIET, "quiet", NULL, "print errors only"},
    {OPTION_WEIGHTS, "weights", "FILE", "safetensors file with the network's parameters"},
    {OPTION_INPUT, "input", "FILE", "safetensors file with the tensor x, N×C×X×Y×Z"},
    {OPTION_OUTPUT, "output", "FILE", "where the outputs go, under their names in the graph"},
    {OPTION_GRADIENTS, "gradients", "FILE",
     "also the gradient of the mean square of the first output, for every parameter"},
    {OPTION_TRAIN, "train", NULL, "training mode: dropout acts, batch norms use the batch"},
    {0}};

static void print_general_help(FILE *out) {
  fprintf(
      out,
      "strata %s: declarative pipelines for volumetric medical image segmentation with learned\n"
      "weight initialization. One YAML file is the data, the transforms, the network, the\n"
      "self-supervised stage, the segmentation stage and the evaluation.\n\n"
      "  strata COMMAND --help explains a command by example.\n\n",
      STRATA_VERSION);
  for (const command *c = commands; c->name; c++) {
    fprintf(out, "  %-9s ", c->name);
    print_cell(out, c->operands, 14, false);
    fprintf(out, " %s\n", c->summary);
  }
  fputs("\nFirst steps:\n\n"
        "  strata phantom phantom --cases 30 --organs 4\n"
        "  strata check quickstart.yaml --set data.root=phantom\n"
        "  strata run quickstart.yaml --set data.root=phantom\n\n"
        "FILE is a pipeline of yours or a shipped one by its name: hippocampus/unetr.yaml.\n",
        out);
}

static void print_command_help(const command *c, FILE *out) {
  fprintf(out, "strata %s%s%s%s\n\n%s\n", c->name, c->operands[0] ? " " : "", c->operands,
          c->options ? " [options]" : "", c->help);
  if (c->options) fputs("Options:\n", out);
  for (const option_help *o = option_table; o->name; o++) {
    if (!(c->options & o->flag)) continue;
    char left[64];
    snprintf(left, sizeof left, "%s--%s%s%s", o->flag == OPTION_OUT ? "-o, " : "", o->name,
             o->argument ? " " : "", o->argument ? o->argument : "");
    fprintf(out, "  %-20s %s\n", left, o->help);
  }
}

static status usage(const char *format, const char *a, const char *b) {
  return error_new(ERROR_USAGE, NOWHERE, format, a, b);
}

static status read_number(const char *option, const char *text, int64_t *out) {
  char *end;
  long long n = strtoll(text, &end, 10);
  if (end == text || *end || n < 0)
    return usage("--%s takes a whole number, not \"%s\"", option, text);
  *out = n;
  return OK;
}

static status read_count(const char *option, const char *text, int64_t *out) {
  TRY(read_number(option, text, out));
  if (*out < 1 || *out > INT32_MAX)
    return usage("--%s takes a whole number from 1 on, not \"%s\"", option, text);
  return OK;
}

static status read_share(const char *option, const char *text, double *out) {
  char *end;
  double share = strtod(text, &end);
  if (end == text || *end || !(share > 0 && share < 1))
    return usage("--%s takes a number between 0 and 1, not \"%s\"", option, text);
  *out = share;
  return OK;
}

static status read_override(const option_help *o, char *text, override *out) {
  char *equals = strchr(text, '=');
  if (!equals || equals == text)
    return error_new(ERROR_USAGE, NOWHERE, "--%s takes %s, not \"%s\"", o->name, o->argument, text);
  *equals = 0;
  out->key = text;
  out->value = equals + 1;
  return OK;
}

static status store(arguments *a, const option_help *o, char *value) {
  switch (o->flag) {
  case OPTION_SET:
    if (a->override_count == MAX_OVERRIDES) return usage("too many --set%s%s", "", "");
    return read_override(o, value, &a->overrides[a->override_count++]);
  case OPTION_ARG:
    if (a->script_argument_count == MAX_ARGUMENTS) return usage("too many --arg%s%s", "", "");
    return read_override(o, value, &a->script_arguments[a->script_argument_count++]);
  case OPTION_JOBS:
    return read_count(o->name, value, &a->jobs);
  case OPTION_DRY_RUN:
    a->dry_run = true;
    break;
  case OPTION_GROUP:
    if (a->group_count == MAX_GROUPS) return usage("too many --group%s%s", "", "");
    return read_override(o, value, &a->groups[a->group_count++]);
  case OPTION_REGION:
    if (a->region_count == MAX_GROUPS) return usage("too many --region%s%s", "", "");
    return read_override(o, value, &a->regions[a->region_count++]);
  case OPTION_CSV:
    a->csv = value;
    break;
  case OPTION_METRICS:
    a->metrics = value;
    break;
  case OPTION_TOLERANCE:
    a->tolerance = value;
    break;
  case OPTION_POSTPROCESS:
    a->postprocess = value;
    break;
  case OPTION_NAMES:
    a->names = value;
    break;
  case OPTION_OUT:
    a->out = value;
    break;
  case OPTION_ALLOW_CHANGES:
    a->allow_changes = true;
    break;
  case OPTION_WITH_WEIGHTS:
    a->with_weights = true;
    break;
  case OPTION_LIST:
    a->list = true;
    break;
  case OPTION_RESUME:
    a->resume = true;
    break;
  case OPTION_RESUME_IF_ANY:
    a->resume_if_any = true;
    break;
  case OPTION_CHANGED_SCRIPTS:
    a->changed_scripts = true;
    break;
  case OPTION_THREADS:
    return read_number(o->name, value, &a->threads);
  case OPTION_DEVICE:
    a->device = value;
    break;
  case OPTION_STAGE:
    a->stage = value;
    break;
  case OPTION_DOT:
    a->dot = true;
    break;
  case OPTION_STEPS:
    return read_count(o->name, value, &a->steps);
  case OPTION_BATCH:
    return read_count(o->name, value, &a->batch);
  case OPTION_PROFILE:
    a->profile = true;
    break;
  case OPTION_INFERENCE:
    a->inference = true;
    break;
  case OPTION_JSON:
    a->json = value;
    break;
  case OPTION_CASES:
    return read_count(o->name, value, &a->cases);
  case OPTION_SEED:
    return read_number(o->name, value, &a->seed);
  case OPTION_ORGANS:
    return read_count(o->name, value, &a->organs);
  case OPTION_SIZE:
    return read_count(o->name, value, &a->size);
  case OPTION_PREDICTION:
    a->prediction = value;
    break;
  case OPTION_NNUNET:
    a->nnunet = value;
    break;
  case OPTION_PROBABILITIES:
    a->probabilities = value;
    break;
  case OPTION_REFERENCE:
    a->reference = value;
    break;
  case OPTION_EMPTY:
    a->empty = value;
    break;
  case OPTION_IGNORE_LABEL:
    return read_number(o->name, value, &a->ignore_label);
  case OPTION_HD95:
    a->hd95 = value;
    break;
  case OPTION_KEY:
    a->key = value;
    break;
  case OPTION_LAYOUT:
    a->layout = value;
    break;
  case OPTION_MEMORY:
    a->memory = value;
    break;
  case OPTION_NETWORK:
    a->network = value;
    break;
  case OPTION_MAP:
    a->map = value;
    break;
  case OPTION_AGAINST:
    a->against = value;
    break;
  case OPTION_WITHIN:
    return read_share(o->name, value, &a->within);
  case OPTION_QUIET:
    a->quiet = true;
    break;
  case OPTION_WEIGHTS:
    a->weights = value;
    break;
  case OPTION_INPUT:
    a->input = value;
    break;
  case OPTION_OUTPUT:
    a->output = value;
    break;
  case OPTION_GRADIENTS:
    a->gradients = value;
    break;
  case OPTION_TRAIN:
    a->train = true;
    break;
  case OPTION_MARKDOWN:
    a->markdown = true;
    break;
  case OPTION_COMMON:
    a->common = true;
    break;
  case OPTION_CLASSES:
    a->classes = value;
    break;
  case OPTION_ZEROS:
    a->zeros = value;
    break;
  case OPTION_CASE:
    a->case_name = value;
    break;
  case OPTION_CROPS:
    return read_number(o->name, value, &a->crops);
  case OPTION_EPOCH:
    return read_number(o->name, value, &a->epoch);
  case OPTION_BOOTSTRAP:
    a->bootstrap = value;
    break;
  case OPTION_RESAMPLES:
    return read_number(o->name, value, &a->resamples);
  case OPTION_CONFIDENCE:
    return read_share(o->name, value, &a->confidence);
  }
  return OK;
}

static status unknown_option(const command *c, const char *given) {
  const char *names[32];
  int count = 0;
  for (const option_help *o = option_table; o->name; o++)
    if (c->options & o->flag) names[count++] = o->name;
  names[count++] = "help";
  const char *word = given;
  while (*word == '-') word++;
  char bare[64];
  snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word, "="), word);
  const char *near = nearest_name(bare, names, count);
  return error_new(ERROR_USAGE, NOWHERE, "strata %s has no option %s%s%s%s", c->name, given,
                   near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
}

static status parse(const command *c, int argc, char **argv, arguments *a, bool *help) {
  struct option longs[40] = {0};
  const option_help *meaning[40] = {0};
  int count = 0;
  for (const option_help *o = option_table; o->name; o++) {
    if (!(c->options & o->flag)) continue;
    longs[count] =
        (struct option){o->name, o->argument ? required_argument : no_argument, NULL, 1000 + count};
    meaning[count++] = o;
  }
  longs[count] = (struct option){"help", no_argument, NULL, 'h'};
  opterr = 0;
  optind = 1;
  for (;;) {
    int index = optind;
    int got = getopt_long(argc, argv, (c->options & OPTION_OUT) ? ":ho:" : ":h", longs, NULL);
    if (got == -1) break;
    if (got == 'h') {
      *help = true;
      return OK;
    }
    if (got == 'o') {
      a->out = optarg;
    } else if (got == ':') {
      return usage("%s needs a value%s", argv[optind - 1], "");
    } else if (got == '?') {
      return unknown_option(c, argv[optind > index ? optind - 1 : index]);
    } else {
      TRY(store(a, meaning[got - 1000], optarg));
    }
  }
  for (int i = optind; i < argc; i++) {
    if (a->operand_count == MAX_OPERANDS) return usage("too many operands%s%s", "", "");
    a->operands[a->operand_count++] = argv[i];
  }
  if (a->operand_count > 0 && c->max_operands == 0)
    return error_new(ERROR_USAGE, NOWHERE,
                     "strata %s takes options only, not \"%s\" (strata %s --help explains it)",
                     c->name, a->operands[0], c->name);
  if (a->operand_count < c->min_operands || a->operand_count > c->max_operands)
    return error_new(ERROR_USAGE, NOWHERE, "usage: strata %s%s%s (strata %s --help explains it)",
                     c->name, c->operands[0] ? " " : "", c->operands, c->name);
  return OK;
}

static int fail(status error) {
  console_finish();
  fflush(stdout);
  error_print(stderr, error);
  int exit_status = error_code_of(error) == ERROR_INTERRUPTED ? 130
                    : error_code_of(error) == ERROR_USAGE     ? 2
                                                              : 1;
  error_free(error);
  return exit_status;
}

/* What has been printed is a result, too: a full disk must not pass for success. */
static int end(void) {
  status error = stream_flush(stdout, "standard output");
  return error ? fail(error) : 0;
}

static status unknown_command(const char *name) {
  const char *names[32];
  int count = 0;
  for (const command *c = commands; c->name; c++) names[count++] = c->name;
  const char *near = nearest_name(name, names, count);
  return error_new(ERROR_USAGE, NOWHERE, "there is no command \"%s\"%s%s%s", name,
                   near ? "; did you mean \"strata " : " (strata --help lists them)",
                   near ? near : "", near ? "\"?" : "");
}

int main(int argc, char **argv) {
  if (argc < 2) {
    print_general_help(stderr);
    return 2;
  }
  json_use_memory();
  if (strcmp(argv[1], "--version") == 0) {
    printf("strata %s\n", STRATA_VERSION);
    return end();
  }
  bool wants_help =
      strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0;
  const char *name = wants_help && argc > 2 ? argv[2] : argv[1];
  if (wants_help && argc == 2) {
    print_general_help(stdout);
    return end();
  }
  const command *found = NULL;
  for (const command *c = commands; c->name; c++)
    if (strcmp(c->name, name) == 0) found = c;
  if (!found) return fail(unknown_command(name));
  static arguments a;
  a = (arguments){.threads = -1,
                  .steps = -1,
                  .cases = -1,
                  .seed = -1,
                  .organs = -1,
                  .size = -1,
                  .batch = -1,
                  .jobs = -1,
                  .ignore_label = -1,
                  .crops = -1,
                  .epoch = -1,
                  .resamples = -1};
  /* getopt changes the order of argv, and reading KEY=VALUE its words. */
  static char *words[MAX_OPERANDS];
  for (int i = 0; i < argc && i < MAX_OPERANDS - 1; i++) words[i] = memory_strdup(argv[i]);
  a.words = (const char *const *)words;
  if (!wants_help) {
    status error = parse(found, argc - 1, argv + 1, &a, &wants_help);
    if (error) return fail(error);
  }
  if (wants_help) {
    print_command_help(found, stdout);
    return end();
  }
  signals_prepare(found->options & STOPS_IN_ORDER);
  status error = found->run(&a);
  if (error) return fail(error);
  console_finish();
  return end();
}
