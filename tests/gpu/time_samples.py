"""What crops and augmentation add to a training step of UNETR on the GPU.

    STRATA=bin/strata python3 tests/gpu/time_samples.py [--json FILE] [--steps N] [--size N]
                                                        [--device cuda|cpu]

Whole runs, loader, uploads and log included: batches of 2 crops of 96^3 from phantoms of 160^3 voxels.
Once with crops alone, then with the published UNETR's augmentation and with nnU-Net's. In turn, and
the first epoch of each, in which cases are prepared and uploaded, is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile

BATCH, EPOCHS, ROUNDS = 2, 4, 2
LISTS = {
    "crops alone": [],
    "UNETR": [
        "random_flip: {probability: 0.2}",
        "random_rot90: {plane: [x, y], probability: 0.2}",
        "random_scale_intensity: {factor: 0.1, probability: 0.1}",
        "random_shift_intensity: {offset: 0.1, probability: 0.1}",
    ],
    "nnU-Net": [
        "random_affine: {rotation: 180, plane: [x, y], zoom: [0.7, 1.4]}",
        "random_noise: {probability: 0.1}",
        "random_blur: {probability: 0.2}",
        "random_brightness: {probability: 0.15}",
        "random_contrast: {probability: 0.15}",
        "random_low_resolution: {probability: 0.25}",
        "random_gamma: {probability: 0.1, invert: true, keep_statistics: true}",
        "random_gamma: {probability: 0.3, keep_statistics: true}",
        "random_flip: {probability: 0.5}",
    ],
}
PIPELINE = """
strata: 1
name: time-samples
seed: 1
data:
  root: {data}
  dataset: {{decathlon: dataset.json}}
  split: {{train: 0.75, test: 0.25}}
  prepare:
    - scale_range: {{from: [-175, 250], to: [0, 1], clip: true}}
  sample: [{sample}]
model:
  use: models/unetr.yaml
  with: {{features: 16, hidden: 768, mlp: 3072, heads: 12}}
stages:
  - segment:
      batch: {batch}
      epochs: {epochs}
      steps_per_epoch: {steps}
      graph:
        - net: {{model: image, outputs: "${{classes}}"}}
        - loss: {{dice_ce: [net.out, label]}}
      optimizer: {{adamw: {{lr: 1.0e-4}}}}
"""


def seconds_a_step(folder, data, changes, options, turn):
    """Of every epoch but the first."""
    sample = ", ".join("{%s}" % o for o in [f"random_crop: {{size: {options.size}}}"] + changes)
    pipeline, run = os.path.join(folder, "p.yaml"), os.path.join(folder, f"run-{turn}")
    with open(pipeline, "w") as file:
        file.write(PIPELINE.format(data=data, sample=sample, batch=BATCH, epochs=EPOCHS,
                                   steps=options.steps))
    done = subprocess.run([os.environ["STRATA"], "run", pipeline, "--device", options.device,
                           "--out", run], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    if options.device == "cuda" and "augmentation on the device" not in done.stdout + done.stderr:
        raise SystemExit("the samples were made on the host:\n" + done.stdout + done.stderr)
    with open(os.path.join(run, "metrics.jsonl")) as file:
        return [json.loads(line)["seconds"] / options.steps for line in file][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    seconds = {name: [] for name in LISTS}
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "phantom")
        subprocess.run([os.environ["STRATA"], "phantom", data, "--cases", "4", "--size",
                        str(options.size * 5 // 3)], check=True, stdout=subprocess.DEVNULL)
        for turn in range(ROUNDS):
            for name, changes in LISTS.items():
                seconds[name] += seconds_a_step(folder, data, changes, options, f"{turn}-{name}")
    figures = {name: statistics.median(of) for name, of in seconds.items()}
    alone = figures["crops alone"]
    for name, value in figures.items():
        print(f"{name:14} {1e3 * value:9.2f} ms a step {100 * (value / alone - 1):+7.1f} %")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)
    added = max(value / alone - 1 for value in figures.values())
    print(f"augmentation adds {100 * added:.1f} % to a step (to be below 5 %)")


if __name__ == "__main__":
    main()
