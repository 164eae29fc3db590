# Every file in tests/pipelines/bad_graph gives exactly the errors it announces in lines
#     # expect [FILE:]LINE:COLUMN: part of the message
# from `strata check`, in that order, with exit status 1.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
cd "$pipelines/bad_graph"
files=0
for file in *.yaml; do
  files=$((files + 1))
  try 1 "$STRATA" check "$file" --set "data.dataset.decathlon=$work/phantom/dataset.json"
  sed -n 's/^# expect //p' "$file" | sed "s/^\([0-9]\)/$file:\1/" >"$work/expected"
  sed -n '/^ /!s/: error: /: /p' "$work/err" >"$work/came"
  [ "$(wc -l <"$work/expected")" -eq "$(wc -l <"$work/came")" ] ||
    fail "$file: expected $(cat "$work/expected"), came $(cat "$work/came")"
  while IFS= read -r expected && IFS= read -r came <&3; do
    place=${expected%%: *} text=${expected#*: }
    [[ $came == $place": "*"$text"* ]] || fail "$file: expected $expected, came $came"
  done <"$work/expected" 3<"$work/came"
  # `run` refuses the same file before it makes a folder.
  try 1 "$STRATA" run "$file" --set "data.dataset.decathlon=$work/phantom/dataset.json" \
    --out "$work/never"
  [ ! -e "$work/never" ] || fail "$file: a refused run left a folder"
done
[ "$files" -ge 25 ] || fail "only $files files"
cd "$work"

# What is no file is refused at once, wherever a file is named.
mkfifo pipe.yaml pipe.lua
try 1 timeout 10 "$STRATA" check pipe.yaml
says "cannot read pipe.yaml: it is not a regular file"
try 1 timeout 10 "$STRATA" check "${tiny[@]}" --set "data.dataset.decathlon=$PWD/pipe.yaml"
says "not a regular file"
try 1 timeout 10 "$STRATA" ablate pipe.lua
says "cannot read pipe.lua: it is not a regular file"

# The command line itself: exit status 2 and the nearest name.
try 2 "$STRATA" rnu
says "did you mean \"strata run\"?"
try 2 "$STRATA" run "$pipelines/tiny.yaml" --treads 2
says "did you mean --threads?"
try 2 "$STRATA" run "$pipelines/tiny.yaml" --threads two
says "--threads takes a whole number, not \"two\""
try 2 "$STRATA" phantom none --cases 0
says "--cases takes a whole number from 1 on, not \"0\""
[ ! -e none ] || fail "a data set of no cases"
try 2 "$STRATA" phantom none --layout brats --organs 4
says "the layout brats has classes of its own"
try 2 "$STRATA" phantom none --layout bratz
says "--layout is decathlon, synapse, lung or brats, not bratz"
try 2 "$STRATA" run
says "usage: strata run FILE"
try 2 "$STRATA" run "$pipelines/tiny.yaml" --set seed
says "--set takes KEY=VALUE"
try 2 "$STRATA" check "${tiny[@]}" --set stages.pretrian.epochs=3
says "did you mean"
try 2 "$STRATA" check "${tiny[@]}" --set epochs=3
says '"epochs" is a key of stages: did you mean "stages.segment.epochs"?'
try 2 "$STRATA" check "${tiny[@]}" --set stages.finetune.epochs=3
says 'there is no "finetune" to set; there are pretrain, segment.'
for command in check plan; do
  try 0 "$STRATA" "$command" "${tiny[@]}" --set "stages.segment.no_decay=[norm, bias]"
  prints "group 0 (no decay: norms, biases): 32 parameters"
  prints "group 1 (the rest): 50 parameters"
done
try 2 "$STRATA" plan "${tiny[@]}" --stage pretrian
says "did you mean \"pretrain\"?"
try 1 "$STRATA" check missing.yaml
says "missing.yaml"
try 0 "$STRATA" ops RandFlipd
prints "random_flip (sample): "
try 0 "$STRATA" ops RandomAnisotropy
prints "random_low_resolution (sample): "
prints "RandomAnisotropy is this one here: a zoom of 0.5 is a downsampling of 2."
# Whatever is said to be one of ours is.
named=$(sed -n 's/^ *{"[^"]*", "\([^"]*\)".*/\1/p' "$SOURCE/engine/language/elsewhere_operators.c" | sort -u)
[ "$(wc -l <<<"$named")" -gt 20 ] || fail "no table of operators of other programs"
try 0 "$STRATA" ops
for name in $named; do prints "  $name "; done
try 2 "$STRATA" ops LoadImaged
says 'there is no operator "LoadImaged": every case is loaded, without being told'
try 2 "$STRATA" ops conv3
says "conv3d"
try 1 "$STRATA" check "${tiny[@]}" --set stages.segment.initialize=xavier
says 'There is no initializer operator "xavier"; did you mean "xavier_uniform" (or xavier_normal)?'
for name in UNet unet.yaml models/UNet; do
  try 1 "$STRATA" check "${tiny[@]}" --set "model.use=$name"
  says "There is no file $name; did you mean \"models/unet.yaml\"?"
done
# Keys and metrics by the names they have in other programs.
cat >foreign.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data: {num_workers: 4}
stages:
  - pretrain: {use: $pipelines/tiny.yaml, amp: true, max_epochs: 3}
  - segment: {use: $pipelines/tiny.yaml, valInterval: 2, lr: 0.1}
evaluate: {overlap: 0.5, metrics: [DiceMetric, mean-IoU]}
YAML
try 1 "$STRATA" check foreign.yaml
says 'foreign.yaml:3:8: error: data has no key "num_workers"; here it is `data: loader_threads`.'
says 'stage pretrain has no key "amp"; here it is `precision: bf16` of a stage.'
says 'stage pretrain has no key "max_epochs"; here it is `epochs` of a stage.'
says 'stage segment has no key "valInterval"; here it is `validate: {every: 10}` of a stage.'
says 'stage segment has no key "lr"; here it is `optimizer: {adamw: {lr: 1.0e-4}}` of a stage.'
says 'evaluate has no key "overlap"; here it is `overlap` of `evaluate: inferer: sliding_window`.'
says 'there is no metric "DiceMetric"; did you mean "dice"?'
says 'there is no metric "mean-IoU"; did you mean "jaccard"?'
if [ -e /dev/full ]; then
  got=0
  "$STRATA" ops >/dev/full 2>"$work/err" || got=$?
  [ "$got" -eq 1 ] || fail "exit status $got when standard output cannot be written"
  says "standard output"
fi
for device in cuda: cuda:x cuda:-1 cuda:1000 CUDA cpu:0 ""; do
  try 2 "$STRATA" run "${tiny[@]}" --device "$device" --out nowhere
  says "unknown device $device; there are auto, cpu, cuda, or cuda:1 for the second GPU and so on"
done
for command in run check plan predict evaluate data ops schema phantom bench weights; do
  try 0 "$STRATA" "$command" --help
  prints "strata $command"
done

# Items of lists go by their names.
try 2 "$STRATA" check "${tiny[@]}" --set stages.0.epochs=3
says '"stages.pretrain.epochs" is the key of item 0; there are pretrain, segment.'
try 0 "$STRATA" check "${tiny[@]}" --set stages.0.pretrain.epochs=3
try 2 "$STRATA" check "${tiny[@]}" --set data.sample.1.probability=1
says '"data.sample.random_flip.probability" is the key of item 1'
