"""Writes tests/golden/nnunet, for tests/cli/nnunet.sh: a small CT-like data set whose slices are thick and
lie across the first axis of the files, a model of nnU-Net for it as nnUNetTrainer saves one (planned by
nnU-Net and made small; its weights are random, have few distinct values and the archive is deflated, so
that it stays small), and nnU-Net's segmentations of one case, with mirroring and without.

nnU-Net adds up logits in half precision, where voxels that are nearly a tie go either way; here it does so
in single precision. Made with nnunetv2 2.8.1 and PyTorch 2.15. Run from the repository root."""
import gzip
import json
import os
import pathlib
import shutil
import tempfile

FOLDER = pathlib.Path("tests/golden/nnunet").resolve()
PLACES = pathlib.Path(tempfile.mkdtemp())
NAME = "Dataset001_Thick"
for key in ("raw", "preprocessed", "results"):
    os.environ["nnUNet_" + key] = str(PLACES / key)
    (PLACES / key).mkdir()
os.environ["nnUNet_n_proc_DA"] = "1"
os.environ["nnUNet_compile"] = "false"

import nibabel as nib
import numpy as np
import torch

from make_pt_monai import coarse, save_deflated
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints, plan_experiments, preprocess)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CASES = 4
LABELS = {"background": 0, "fat": 1, "muscle": 2}
FEATURES, CONVOLUTIONS, PATCH = [4, 6, 8], [1, 2, 1], [8, 24, 16]


def save_nifti(path, data, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out, gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as zipped:
        zipped.write(nib.Nifti1Image(data, affine, dtype=data.dtype).to_bytes())


def write_data(folder):
    """Blobs in air, in front of a border of zeros; the first axis of a file points to the head, the second
    to the back."""
    generator = np.random.default_rng(5)
    for case in range(CASES):
        size = (8 + case % 3, 26 + 3 * case, 22 + 2 * (case % 2))
        mm = (11 + case, 1.6 + 0.2 * case, 2.3)
        at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij"), -1)
        centre = generator.uniform(-0.2, 0.2, 3)
        radius = np.linalg.norm((at - centre) / (1.1, 0.8, 0.7), axis=-1)
        wave = np.sin(5 * at[..., 1] + case) * np.cos(4 * at[..., 2])
        texture = 4 * wave * (1 - radius) + generator.normal(0, 0.4, size)
        image = np.where(radius < 1, 40 * np.round(texture) + 20, -1000)
        image[:, :2] = 0
        label = (radius < 1).astype(np.uint8) + ((radius < 1) & (image > 20))
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = mm[0], -mm[1], mm[2], 1
        affine[:3, 3] = 7 * case, 30, -11
        save_nifti(folder / "imagesTr" / f"case_{case}_0000.nii.gz", image.astype(np.int16), affine)
        save_nifti(folder / "labelsTr" / f"case_{case}.nii.gz", label.astype(np.uint8), affine)
    with open(folder / "dataset.json", "w") as file:
        json.dump({"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": CASES,
                   "file_ending": ".nii.gz"}, file)


def make_plans():
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=["3d_fullres"], num_processes=[1])
    plans = json.load(open(PLACES / "preprocessed" / NAME / "nnUNetPlans.json"))
    assert plans["transpose_forward"] == [2, 0, 1], plans["transpose_forward"]
    full = plans["configurations"]["3d_fullres"]
    full["patch_size"] = PATCH
    kwargs = full["architecture"]["arch_kwargs"]
    stages = len(FEATURES)
    kwargs.update(n_stages=stages, features_per_stage=FEATURES, n_conv_per_stage=CONVOLUTIONS,
                  n_conv_per_stage_decoder=[1, 2], kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                  strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])
    plans["configurations"] = {"3d_fullres": full}
    plans["continue_training"] = False
    return plans


def train(plans, dataset):
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # which notes the axes
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.copy_(coarse(parameter, generator, 16).float())
    trainer.network(torch.zeros(1, 1, *PATCH))[0].sum().backward()
    trainer.optimizer.param_groups[0]["lr"] = 0.0  # for what the optimizer remembers
    trainer.optimizer.step()
    trainer.save_checkpoint(str(PLACES / "checkpoint.pth"))


def predict(model, images, out, mirror):
    torch.half = torch.float16 = torch.float32  # after all is saved, before its defaults are taken
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    predictor = nnUNetPredictor(use_mirroring=mirror, perform_everything_on_device=False,
                                device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    predictor.predict_from_files_sequential([[str(images)]], [str(out)], save_probabilities=False)
    image = nib.load(str(out) + ".nii.gz")
    data = np.asarray(image.dataobj).astype(np.uint8)
    print(out.name, data.shape, np.bincount(data.ravel()).tolist())
    save_nifti(FOLDER / out.name / "case_3.nii.gz", data, image.affine)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    raw = FOLDER / NAME
    write_data(raw)
    shutil.copytree(raw, PLACES / "raw" / NAME)
    plans = make_plans()
    dataset = json.load(open(raw / "dataset.json"))
    model = FOLDER / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    train(plans, dataset)
    shutil.copy(raw / "dataset.json", model / "dataset.json")
    plans.pop("continue_training", None)
    with open(model / "plans.json", "w") as file:
        json.dump(plans, file, indent=1)
        file.write("\n")
    checkpoint = torch.load(PLACES / "checkpoint.pth", weights_only=False)
    save_deflated(checkpoint, str(model / "fold_0" / "checkpoint_final.pth"))
    for mirror in (False, True):
        predict(model, raw / "imagesTr" / "case_3_0000.nii.gz",
                PLACES / ("mirrored" if mirror else "plain"), mirror)
    shutil.rmtree(PLACES)


if __name__ == "__main__":
    main()
