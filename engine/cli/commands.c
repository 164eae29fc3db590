/* What each command is called, takes and teaches. */
#include "cli/command.h"

const command commands[] = {
    {"run", "FILE", "train every stage of a pipeline, then evaluate",
     "Compiles FILE, trains its stages in order and evaluates on the test cases. Everything goes\n"
     "into one folder, --out or a new runs/NAME: pipeline.lock.yaml, metrics.jsonl and .csv,\n"
     "weights/*.safetensors, predictions, evaluation.json and report.html. Ctrl-C and SIGTERM save the\n"
     "state; --resume goes on to the same bits (docs/cluster.md: in jobs of a scheduler). A lock is run\n"
     "to the same weights again, or every file, case and operator that has changed is named.\n\n"
     "  strata run quickstart.yaml --set data.root=phantom\n"
     "  strata run hippocampus/unetr.yaml --set data.root=/data/Task04_Hippocampus\n"
     "  strata run my.yaml --set params.mask_ratio=0.6 --out runs/mask60\n"
     "  strata run my.yaml --set stages.pretrain.enabled=false   # the baseline without step 1\n"
     "  strata run my.yaml --out runs/mask60 --resume\n"
     "  strata run my.yaml --out runs/mask60 --resume-if-any   # the first time and every other\n"
     "  strata run my.yaml --out runs/mask60 --resume --changed-scripts   # a Lua file was mended\n"
     "  strata run my.yaml --out runs/mask60 --resume --set stages.segment.epochs=200   # longer\n"
     "  strata run runs/mask60/pipeline.lock.yaml --set data.root=/data/elsewhere --out again\n",
     OPTION_SET | OPTION_OUT | OPTION_RESUME | OPTION_RESUME_IF_ANY | OPTION_CHANGED_SCRIPTS |
         OPTION_ALLOW_CHANGES | OPTION_THREADS | OPTION_DEVICE | OPTION_QUIET | STOPS_IN_ORDER,
     1, 1, command_run},
    {"ablate", "SCRIPT", "many runs from one script, and a table with paired statistics",
     "SCRIPT is Lua: it loads pipelines, changes keys, says what is compared and with how many seeds\n"
     "and folds, and asks for a table. Shipped are with_without_pretraining, objectives, mask_ratio,\n"
     "mask_patch_size, slabs, pretraining_length, label_fraction, precision and initialization;\n"
     "docs/ablations.md explains them. Each trial is a run of its own under OUT/trials (OUT: ablations). One that is\n"
     "done is never run twice, whatever script asks for it; one that was interrupted goes on; one\n"
     "that fails is shown and stops no other. --device takes several, for trials at a time in turn;\n"
     "without --jobs there are as many at a time.\n\n"
     "  strata ablate mask_ratio --dry-run\n"
     "  strata ablate mask_ratio --set data.root=phantom --set stages.segment.epochs=10\n"
     "  strata ablate with_without_pretraining --arg pipeline=my.yaml --arg seeds=5 --jobs 2\n"
     "  strata ablate slabs --arg pipeline=my.yaml --device cuda:0,cuda:1,cuda:2,cuda:3\n"
     "  strata ablate my_study.lua --out studies\n",
     OPTION_ARG | OPTION_SET | OPTION_OUT | OPTION_JOBS | OPTION_THREADS | OPTION_DEVICE |
         OPTION_DRY_RUN | OPTION_QUIET | STOPS_IN_ORDER,
     1, 1, command_ablate},
    {"check", "FILE", "find every mistake before a voxel is read",
     "Reads the pipeline, the models and blocks it uses, the data set's list and the headers of its\n"
     "files. Errors come with file, line and column, all at once. Without one it prints the plan of the\n"
     "run: the data and which cases are prepared already; for every stage the shapes of what its graph\n"
     "makes, parameters, FLOPs, planned memory and time on this machine; what will be written; and what\n"
     "may surprise, such as cases smaller than the crop or a stage that is switched off.\n\n"
     "  strata check my.yaml\n"
     "  strata check my.yaml --set model.with.hidden=384\n",
     OPTION_SET | OPTION_THREADS, 1, 1, command_check},
    {"plan", "FILE", "show the compiled step graph",
     "A row for each node of a stage's training step: shape, parameters, FLOPs, bytes; then the\n"
     "memory plan. --dot writes the graph for Graphviz. --device cuda plans as that GPU would.\n\n"
     "  strata plan my.yaml --stage segment\n"
     "  strata plan my.yaml --dot | dot -Tsvg > plan.svg\n",
     OPTION_SET | OPTION_STAGE | OPTION_DOT | OPTION_THREADS | OPTION_DEVICE, 1, 1, command_plan},
    {"preview", "FILE", "show what the transforms do to a case",
     "A picture of every step on a case's way to the network: the prepare operators, every sample\n"
     "operator for several random crops, and what a stage does before its network (shuffled, masked).\n"
     "Three planes each, with contours of the label, sizes, spacings and the range of values. The\n"
     "draws are those of training in that epoch, to the bit. The result is one .png or one .html file.\n\n"
     "  strata preview my.yaml --case phantom_001\n"
     "  strata preview my.yaml --case phantom_001 --stage pretrain -o pretrain.html\n"
     "  strata preview my.yaml --set data.sample.random_flip.probability=1 --crops 6 --epoch 40\n",
     OPTION_SET | OPTION_STAGE | OPTION_CASE | OPTION_CROPS | OPTION_EPOCH | OPTION_OUT |
         OPTION_THREADS,
     1, 1, command_preview},
    {"predict", "RUN[,RUN…] IN…", "segment new volumes with a finished run, or an ensemble",
     "The result lies on the grid of the input: same size, same affine. One input and an -o that\n"
     "ends in .nii or .nii.gz writes that file; otherwise -o is a folder. IN may be a folder, too:\n"
     "all volumes in it, and for a run on nnU-Net's layout a case for all its channels. Channels in\n"
     "files of their own go with commas between them, and so do runs of one network: the mean of\n"
     "what they say counts. --set changes keys of evaluate:, such as postprocess or the inferer's mirror and\n"
     "memory, and a stage's precision; what prediction does not read is an error.\n"
     "--resume leaves in a folder what a command that was stopped has segmented by the same runs and\n"
     "keys from the same inputs, and does the rest; so it does after an input that was broken.\n\n"
     "  strata predict runs/hippocampus-unetr case.nii.gz -o seg.nii.gz\n"
     "  strata predict runs/fold0,runs/fold1,runs/fold2 case.nii.gz -o seg.nii.gz\n"
     "  strata predict runs/x case.nii.gz -o seg.nii.gz --set evaluate.postprocess=[keep_largest]\n"
     "  strata predict runs/hippocampus-unetr incoming -o segmentations\n"
     "  strata predict runs/brain Dataset004_Brain/imagesTs -o segmentations\n"
     "  strata predict runs/brain case_0000.nii.gz,case_0001.nii.gz -o segmentations\n"
     "  strata predict runs/hippocampus-unetr incoming -o segmentations --probabilities soft\n"
     "  strata predict runs/hippocampus-unetr incoming -o segmentations --resume\n",
     OPTION_SET | OPTION_OUT | OPTION_RESUME | OPTION_PROBABILITIES | OPTION_THREADS |
         OPTION_DEVICE | OPTION_QUIET | STOPS_IN_ORDER,
     2, MAX_OPERANDS, command_predict},
    {"pack", "FILE|RUN", "make one file to share of a pipeline or a run",
     "Of a pipeline: its file and every file it is made of (bases, stages of others, models, blocks,\n"
     "scripts, splits). Of a run: its lock; with --weights what it has learned, too. run, check,\n"
     "plan, preview, bench, data check and predict take the pack in place of the file or the run. It\n"
     "is a zip archive; the same content gives the same bytes.\n\n"
     "  strata pack my.yaml -o my.strata\n"
     "  strata pack runs/mask60 --weights -o mask60.strata\n"
     "  strata pack --list mask60.strata\n"
     "  strata run my.strata --set data.root=/data/Task04_Hippocampus\n"
     "  strata predict mask60.strata case.nii.gz -o seg.nii.gz\n",
     OPTION_OUT | OPTION_WITH_WEIGHTS | OPTION_LIST, 1, 1, command_pack},
    {"unpack", "PACK DIR", "put the files of a pack into a new folder",
     "To read and to edit. Where the pipeline was packed from its file, STRATA_SHARE=DIR has the\n"
     "edited folder's models, blocks and scripts used in place of those of this program.\n\n"
     "  strata unpack my.strata my\n"
     "  STRATA_SHARE=my strata run my/project/my.yaml\n",
     OPTION_OUT, 1, 2, command_unpack},
    {"evaluate", "", "score a folder of segmentations against references",
     "Pairs the files of two folders by name and prints Dice and HD95 (mm) per class, or the\n"
     "metrics you ask for. --csv has a row for each case and class, --json what evaluation.json\n"
     "has, for strata compare. Classes are the values in the files, unless --names says more: a run\n"
     "is compared by the names of its classes.\n\n"
     "  strata evaluate --prediction runs/x/predictions --reference labelsTs --json scores.json\n"
     "  strata evaluate --prediction a --reference b --metrics dice,nsd,assd --tolerance 2\n"
     "  strata evaluate --prediction a --reference b --metrics all --csv scores.csv\n"
     "  strata evaluate --prediction a --reference b --group abdomen8=1,2,3,4,6,7,8,11\n"
     "  strata evaluate --prediction a --reference b --region 'whole tumour=1,2,3' --region core=2,3\n"
     "  strata evaluate --prediction a --reference scribbles --ignore-label 4\n"
     "  strata evaluate --prediction a --reference b --postprocess 'keep_largest, fill_holes'\n"
     "  strata evaluate --prediction a --reference b --postprocess 'remove_small: {below: 0.2}'\n"
     "  strata evaluate --prediction nnunet --reference labelsTs --names Anterior,Posterior \\\n"
     "    --json nnunet.json && strata compare nnunet.json runs/hippocampus-unetr\n",
     OPTION_PREDICTION | OPTION_REFERENCE | OPTION_NAMES | OPTION_METRICS | OPTION_TOLERANCE |
         OPTION_GROUP | OPTION_REGION | OPTION_POSTPROCESS | OPTION_EMPTY | OPTION_HD95 |
         OPTION_IGNORE_LABEL | OPTION_JSON | OPTION_CSV | OPTION_THREADS,
     0, 0, command_evaluate},
    {"report", "RUN", "one page about a run, to look at and to send",
     "Writes RUN/report.html, which needs no network and no other file: curves of every loss term and\n"
     "metric, tables and box plots of the test cases, the worst, the median and the best of them as\n"
     "pictures, what the self-supervised stage was shown and what it made of it, the network, the\n"
     "command and the hashes. strata run ends with it; a run in progress has what there is so far.\n"
     "--against lays a second run over the first and compares the cases they share.\n\n"
     "  strata report runs/hippocampus-unetr\n"
     "  strata report runs/mask60 --against runs/mask40 -o comparison.html\n",
     OPTION_OUT | OPTION_AGAINST, 1, 1, command_report},
    {"new", "DIR", "write a first pipeline for a data set",
     "Looks through a data set (Decathlon, nnU-Net or BTCV; DIR or its dataset.json) and writes a\n"
     "pipeline for it: voxel spacing, intensities, the largest crop that a training step can hold in\n"
     "--memory, a U-Net that fits them, both stages and the evaluation, each with the reason, by the\n"
     "rules of nnU-Net's planning. A file to read, to edit and to run. Without a GPU give it 1GiB or\n"
     "less: the time of a step goes with the crop, and `strata check` says how long it takes. --batch is\n"
     "the number of crops a step, of which nnU-Net would take as many as hold a twentieth of the data.\n\n"
     "With --nnunet the pipeline goes on with a trained model of nnU-Net: images are prepared as its plans\n"
     "say, the network is its network with its weights, and windows are placed and averaged as its\n"
     "predictor does. A run of no epochs is that network as it is, for strata predict; docs/weights.md\n"
     "says how equal the segmentations are.\n\n"
     "  strata new /data/Task04_Hippocampus -o hippocampus.yaml\n"
     "  strata new /data/Dataset007_Pancreas -o pancreas.yaml --memory 12GiB --network resenc_unet\n"
     "  strata check hippocampus.yaml && strata run hippocampus.yaml\n"
     "  strata new nnUNet_raw/Dataset004_Hippocampus -o model.yaml \\\n"
     "    --nnunet nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres\n"
     "  strata run model.yaml --set stages.segment.epochs=0 --out model\n",
     OPTION_OUT | OPTION_MEMORY | OPTION_NETWORK | OPTION_BATCH | OPTION_NNUNET | OPTION_THREADS |
         STOPS_IN_ORDER,
     1, 1, command_new},
    {"data", "check FILE|DIR", "look through a data set",
     "Opens every file: sizes, spacings, orientations, intensities in the foreground, volumes of "
     "the\n"
     "classes; compares the grids of images and labels, the classes with those declared, qform with\n"
     "sform. A bad file is named, and the others are still looked at. FILE is a pipeline or a\n"
     "dataset.json; DIR holds a Decathlon, nnU-Net or BTCV data set.\n\n"
     "  strata data check pipelines/hippocampus/unetr.yaml\n"
     "  strata data check /data/Task04_Hippocampus --json hippocampus.json\n",
     OPTION_SET | OPTION_JSON | OPTION_THREADS, 2, 2, command_data},
    {"compare", "A B…", "paired statistics between finished runs",
     "Compares every arm with the first, the baseline, case by case. An arm is a run's folder, or a\n"
     "file of strata evaluate --json, or several of either, with commas between them: the same\n"
     "pipeline with other seeds. NAME= in front names it.\n\n"
     "  strata compare runs/baseline runs/ours\n"
     "  strata compare base=runs/a1,runs/a2,runs/a3 ours=runs/b1,runs/b2,runs/b3\n"
     "  strata compare runs/a runs/b runs/c --metrics dice,hd95 --classes mean --json compare.json\n"
     "  strata compare a.json b.json --common --markdown > table.md\n\n"
     "How to read it. \"difference\" is what to look at: the mean over cases of arm − baseline, in the\n"
     "metric's own unit, and the interval says how precisely these cases determine it. A p value is\n"
     "how often chance alone would give a difference as large as this one if the arms were equal. A\n"
     "small p does not say that the difference is large or matters, nor how likely it is to be real;\n"
     "a large p does not say that the arms are equal: see how wide the interval is. Wilcoxon's test\n"
     "asks no normal distribution of the differences, the t test does. Who looks at many classes and\n"
     "metrics finds a small p somewhere: the columns Holm are corrected for that, over everything in\n"
     "the table, so choose --metrics and --classes before you look. r (−1…1) and d tell the size of\n"
     "the effect. The cases say nothing of another training: that is in the table of runs, if arms\n"
     "have several seeds. docs/compare.md has the definitions.\n",
     OPTION_METRICS | OPTION_CLASSES | OPTION_COMMON | OPTION_ZEROS | OPTION_BOOTSTRAP |
         OPTION_RESAMPLES | OPTION_CONFIDENCE | OPTION_SEED | OPTION_JSON | OPTION_CSV |
         OPTION_MARKDOWN,
     2, MAX_OPERANDS, command_compare},
    {"ops", "[NAME]", "list the operators, or explain one",
     "Without a name: every operator by family. With one: its inputs, outputs, attributes with\n"
     "defaults and ranges, and the definition.\n\n"
     "  strata ops\n"
     "  strata ops conv3d\n",
     0, 0, 1, command_ops},
    {"lua", "[NAME]", "list what Lua scripts can use, or explain one",
     "Without a name: the kinds of scripts, and every function and value they have. With one (a\n"
     "kind, a group or an entry): that. --markdown prints the reference part of docs/lua.md.\n\n"
     "  strata lua\n"
     "  strata lua on_epoch_end\n"
     "  strata lua event.set\n",
     OPTION_MARKDOWN, 0, 1, command_lua},
    {"schema", "", "print the JSON Schema of pipeline files",
     "For completion and checking in an editor:\n\n"
     "  strata schema > strata.schema.json\n"
     "  # first line of your YAML:  # yaml-language-server: $schema=strata.schema.json\n"
     "\n"
     "docs/editor.md sets up VS Code, Neovim and Emacs.\n",
     0, 0, 0, command_schema},
    {"phantom", "DIR", "make a synthetic CT- or MRI-like data set",
     "Organ-like shapes in a body, with noise, anisotropic voxels and oblique affines, in "
     "Decathlon\n"
     "layout, the same to the byte for the same seed: to try everything without a download.\n"
     "--layout synapse and lung have the folders, case numbers, spacings and classes of BTCV and of\n"
     "the Decathlon's Task06_Lung, for the recipes of pipelines/synapse and pipelines/lung; with\n"
     "--size 512 the size too. --layout brats has those of Task01_BrainTumour: brains in four channels\n"
     "of MRI with a glioma in three parts, for pipelines/brats; its size is --size 240.\n\n"
     "  strata phantom phantom --cases 30 --organs 4\n"
     "  strata phantom btcv --layout synapse\n"
     "  strata phantom brats --layout brats --cases 12\n",
     OPTION_CASES | OPTION_SEED | OPTION_ORGANS | OPTION_SIZE | OPTION_LAYOUT, 1, 1,
     command_phantom},
    {"bench", "FILE", "time a compiled training step",
     "Runs the training step of a stage on random voxels and prints the median time, FLOP rate, "
     "memory\n"
     "and page faults (a steady step has none); --profile adds a row for each node, --inference\n"
     "takes the network without training, --set stages.segment.memory=1.5GiB shows what a budget\n"
     "costs.\n\n"
     "  strata bench pipelines/hippocampus/unetr.yaml --stage segment --steps 20 --profile\n",
     OPTION_SET | OPTION_STAGE | OPTION_STEPS | OPTION_PROFILE | OPTION_INFERENCE | OPTION_THREADS |
         OPTION_DEVICE | OPTION_JSON | OPTION_BATCH,
     1, 1, command_bench},
    {"forward", "MODEL", "run a network once on a tensor file",
     "Runs a model file on the tensor x (N×C×X×Y×Z, as PyTorch has it) and writes its outputs in\n"
     "PyTorch's order of axes, under their names in the file: out, levels.0, … Parameters of the\n"
     "model are set with --set. To port a network, to debug one, or to compare it with another\n"
     "framework: --gradients adds the gradient of mean(out²), out being the first output.\n\n"
     "  strata forward models/unetr.yaml --set outputs=14 --weights w.safetensors \\\n"
     "                 --input x.safetensors --output y.safetensors\n"
     "  strata forward my.yaml --weights w.safetensors --input x.safetensors \\\n"
     "                 --output y.safetensors --gradients g.safetensors --train --seed 3\n",
     OPTION_SET | OPTION_WEIGHTS | OPTION_INPUT | OPTION_OUTPUT | OPTION_GRADIENTS | OPTION_TRAIN |
         OPTION_SEED | OPTION_THREADS | OPTION_DEVICE,
     1, 1, command_forward},
    {"weights", "FILE", "list, compare and import weight files",
     "Reads safetensors and what torch.save writes (.pt, .pth, .ckpt, .bin), the latter without\n"
     "Python and without running anything that stands in it.\n\n"
     "  strata weights FILE               # names, types, shapes, norms\n"
     "  strata weights diff A B           # where two files differ; exit status 1 when they do\n"
     "  strata weights diff A B --within 1e-4   # rounding apart\n"
     "  strata weights import IN -o OUT   # to safetensors, for `init: {from: OUT}`\n\n"
     "import converts to 32-bit floats and leaves integer tensors out. Of a training checkpoint it\n"
     "takes the state dict and says what else is there; --key chooses. Prefixes of wrappers that all\n"
     "names share (module., net.) are taken off; other names change by the rules in --map:\n\n"
     "  strata: 1\n"
     "  strip: [module., backbone.]       # the first prefix that fits is taken off\n"
     "  drop: [\"head.*\"]                  # then these are left out\n"
     "  rename:                           # of the others, the first rule that fits counts\n"
     "    - {from: \"encoder.*.bn.*\", to: \"encoder.*.norm.*\"}\n\n"
     "  strata weights runs/a/weights/segment.safetensors\n"
     "  strata weights diff runs/a/weights/segment.safetensors runs/b/weights/segment.safetensors\n"
     "  strata weights import checkpoint.pt --key state_dict --map rules.yaml -o unetr.safetensors\n",
     OPTION_OUT | OPTION_KEY | OPTION_MAP | OPTION_WITHIN, 1, 3, command_weights},
    {0}};
