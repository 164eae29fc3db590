# `strata preview`: the same file for the same seed, stage, epoch and case, as PNG and as one page.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
name=$(ls phantom/imagesTr | head -n 1)
name=${name%.nii.gz}

is_png() {
  [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || fail "$1 is no PNG"
}

try 0 "$STRATA" preview "${tiny[@]}" --case "$name"
prints "preview-$name.png: case $name"
prints "stage segment"
is_png "preview-$name.png"
try 0 "$STRATA" preview "${tiny[@]}" --case "$name" -o again.png --threads 3
cmp "preview-$name.png" again.png || fail "another preview of the same draws"
try 0 "$STRATA" preview "${tiny[@]}" --case "$name" -o later.png --epoch 2
! cmp -s again.png later.png || fail "the second epoch draws what the first does"
try 0 "$STRATA" preview "${tiny[@]}" --stage pretrain --crops 2 -o pretrain.png # the first case
is_png pretrain.png
[ ! -e runs ] || fail "preview wrote more than its file"

try 0 "$STRATA" preview "${tiny[@]}" --stage pretrain --crops 1 -o pretrain.html
has pretrain.html "<h3>shuffled = shuffle_slabs {slabs: 2, axis: z}</h3>"
has pretrain.html "<h3>random_flip {axes: [x], probability: 0.5}</h3>"
has pretrain.html "data:image/png;base64,"
! grep -qE 'https?://|<script' pretrain.html || fail "the page is not self-contained"

# A case that never trains is shown, and said to be so.
try 0 "$STRATA" check "${tiny[@]}"
for file in phantom/imagesTr/*; do
  case=$(basename "$file" .nii.gz)
  try 0 "$STRATA" preview "${tiny[@]}" --case "$case" --crops 1 -o any.png
  if grep -q '(test)' out; then
    prints "training never makes these crops"
    tested=yes
  fi
done
[ "${tested:-}" = yes ] || fail "no case tests"

try 2 "$STRATA" preview "${tiny[@]}" --case "${name}x"
says "did you mean \"$name\"?"
try 2 "$STRATA" preview "${tiny[@]}" --epoch 9
says "stage segment has the epochs 1 to 3, not 9"
try 2 "$STRATA" preview "${tiny[@]}" --crops 0
says "--crops takes a number from 1 to 32"
try 2 "$STRATA" preview "${tiny[@]}" -o preview.pdf
says "a .png or an .html file"
try 2 "$STRATA" preview "${tiny[@]}" --stage pretran
says "did you mean \"pretrain\"?"
