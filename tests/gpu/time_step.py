"""Times UNETR's training step on the GPU: Strata, and PyTorch + MONAI where they are installed.

    STRATA=bin/strata SOURCE=. python3 tests/gpu/time_step.py [--json FILE] [--steps N]

Published size (96^3, hidden 768), batch 2, Dice + cross-entropy, AdamW. PyTorch runs eager and with
torch.compile, in f32, in TF32 and with bf16 autocast; channels_last_3d and cudnn.benchmark are on.
Everything is timed in turn in one run, medians of the steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

SIZE, BATCH, CLASSES = (96, 96, 96), 2, 14
PRECISIONS = ("f32", "tf32", "bf16")
PIPELINE = """
strata: 1
name: time-step
data:
  root: {data}
  dataset: {{decathlon: dataset.json}}
  split: {{train: 0.5, validation: 0.25, test: 0.25}}
  sample: [{{random_crop: {{size: [96, 96, 96]}}}}]
model:
  use: models/unetr.yaml
  with: {{features: 16, hidden: 768, mlp: 3072, heads: 12}}
stages:
  - segment:
      precision: {precision}
      batch: 2
      epochs: 1
      graph:
        - net: {{model: image, outputs: "${{classes}}"}}
        - loss: {{dice_ce: [net.out, label]}}
      optimizer: {{adamw: {{lr: 1.0e-4}}}}
"""


def time_strata(steps, precision, cudnn):
    strata = os.environ["STRATA"]
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "phantom")
        subprocess.run([strata, "phantom", data, "--cases", "4", "--organs", str(CLASSES - 1),
                        "--size", "96"], check=True, stdout=subprocess.DEVNULL)
        pipeline, result = os.path.join(folder, "p.yaml"), os.path.join(folder, "r.json")
        with open(pipeline, "w") as file:
            file.write(PIPELINE.format(data=data, precision=precision))
        subprocess.run([strata, "bench", pipeline, "--device", "cuda", "--steps", str(steps),
                        "--json", result], check=True, stdout=subprocess.DEVNULL,
                       env=os.environ if cudnn else os.environ | {"STRATA_CUDNN": "off"})
        with open(result) as file:
            return json.load(file)["median_s"]


def time_torch(steps, compiled, precision):
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNETR

    torch.backends.cudnn.benchmark = True
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.manual_seed(0)
    model = UNETR(in_channels=1, out_channels=CLASSES, img_size=SIZE, feature_size=16,
                  hidden_size=768, mlp_dim=3072, num_heads=12, proj_type="perceptron")
    model = model.cuda().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    image = torch.randn(BATCH, 1, *SIZE, device="cuda")
    image = image.to(memory_format=torch.channels_last_3d)
    label = torch.randint(0, CLASSES, (BATCH, 1, *SIZE), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(forward(image), label)
        loss.backward()
        optimizer.step()

    forward = torch.compile(model) if compiled else model
    for _ in range(4):
        step()
    seconds = []
    for _ in range(steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    figures = {}
    for precision in PRECISIONS:
        for cudnn in (True, False):
            name = f"strata {precision}{'' if cudnn else ', no cuDNN'}"
            figures[name] = time_strata(options.steps, precision, cudnn)
    try:
        import monai  # noqa: F401
        import torch
        rivals = torch.cuda.is_available()
    except ImportError:
        rivals = False
    for precision in PRECISIONS if rivals else ():
        for compiled in (False, True):
            name = f"pytorch {precision}{' compiled' if compiled else ''}"
            try:
                figures[name] = time_torch(options.steps, compiled, precision)
            except Exception as error:  # a mode that does not work here is no reason to lose the rest
                print(f"{name}: {error}", file=sys.stderr)
    for name, seconds in figures.items():
        print(f"{name:24} {1e3 * seconds:9.2f} ms")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)
    print(f"UNETR 96^3, batch {BATCH}" + ("" if rivals else "; PyTorch and MONAI are not here"))


if __name__ == "__main__":
    main()
