"""Writes tests/golden/pt/monai: a training checkpoint of MONAI's UNETR as torch.save writes it, an
input, and MONAI's output, for tests/cli/weights.sh. Weights are half precision with few distinct
values, and the archives are deflated, so that they stay small. Run from the repository root.

Made with MONAI 1.6.1 and PyTorch 2.15."""
import os
import zipfile

import torch
from monai.networks.nets import UNETR
from safetensors.torch import save_file

FOLDER = "tests/golden/pt/monai/"


def coarse(t, generator, steps=1):
    """Normal numbers of the tensor's scale, few of them distinct, so that they deflate well."""
    noise = (torch.randn(t.shape, generator=generator) * steps).round() / steps
    varies = t.numel() > 1 and t.std() > 0
    scale = 2.0 ** torch.log2(t.std()).round() if varies else 0.25
    return ((0 if varies else t.mean()) + scale * noise).half()


def save_deflated(value, path):
    torch.save(value, path)
    with zipfile.ZipFile(path) as z:
        entries = [(name, z.read(name)) for name in z.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for name, data in entries:
            z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(3)
    net = UNETR(in_channels=1, out_channels=1, img_size=(32, 16, 16), feature_size=2, hidden_size=12,
                mlp_dim=12, num_heads=2).eval()
    weights = {name: coarse(t, generator) for name, t in net.state_dict().items()}
    net.load_state_dict({name: t.float() for name, t in weights.items()})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = coarse(torch.randn(1, 1, 32, 16, 16, generator=generator), generator, 4)
    with torch.no_grad():
        out = net(x.float())
    os.makedirs(FOLDER, exist_ok=True)
    save_deflated({"epoch": 7, "best_metric": 0.5, "optimizer": optimizer.state_dict(),
                   "state_dict": {"module." + name: t for name, t in weights.items()}},
                  FOLDER + "unetr.pt")
    save_deflated({"x": x}, FOLDER + "unetr_input.pt")
    save_file({"out": out.contiguous()}, FOLDER + "unetr_output.safetensors")


if __name__ == "__main__":
    main()
