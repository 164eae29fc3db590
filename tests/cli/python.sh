# nibabel, which most people read volumes with, sees a prediction on the grid of its input. The
# phantoms are anisotropic, stored in several orientations, and some oblique.
. "$(dirname "$0")/lib.sh"
python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
  if "$candidate" -c 'import nibabel' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || skip "python3 has no nibabel (Debian: python3-nibabel)"
make_phantom phantom 10
try 0 "$STRATA" run "${tiny[@]}" --set stages.pretrain.enabled=false \
  --set stages.segment.epochs=1 --out run
try 0 "$STRATA" predict run phantom/imagesTr/*.nii.gz -o segmented
try 0 "$python" - <<'PYTHON'
import glob, os
import nibabel, numpy

oblique = orientations = 0
seen = set()
for path in sorted(glob.glob("phantom/imagesTr/*.nii.gz")):
    image, label = nibabel.load(path), nibabel.load(os.path.join("segmented", os.path.basename(path)))
    assert label.shape == image.shape, (path, label.shape, image.shape)
    assert numpy.allclose(label.affine, image.affine, rtol=1e-6, atol=1e-5), path
    values = numpy.asanyarray(label.dataobj)
    assert values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 2, path
    axes = image.affine[:3, :3] / numpy.linalg.norm(image.affine[:3, :3], axis=0)
    oblique += bool((abs(axes).max(axis=0) < 0.9999).any())
    seen.add("".join(nibabel.aff2axcodes(image.affine)))
assert oblique > 0 and len(seen) > 1 and seen != {"RAS"}, (oblique, seen)
print(oblique, "oblique;", sorted(seen))
PYTHON
cat "$work/out"
