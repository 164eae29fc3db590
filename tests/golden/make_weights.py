"""Writes weights_types.safetensors with the safetensors package: a tensor of every type that
tests/unit/test_weights.c reads, with values it can compute. Run from the repository root."""
import torch
from safetensors.torch import save_file

n = torch.arange(24, dtype=torch.float64)
tensors = {
    "net.f32": (n / 3 - 2).to(torch.float32).reshape(2, 3, 4),
    "net.f64": (n / 3 - 2).reshape(4, 6),
    "net.f16": torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 2**-24, -(2**-14), 2**-15 + 2**-24,
                             float("inf"), float("-inf"), float("nan"), 0.333251953125],
                            dtype=torch.float16),
    "net.bf16": torch.tensor([0.0, -0.0, 1.0, -2.5, 3.3895313892515355e38, 2.0**-133,
                              float("inf"), float("nan"), 0.333984375], dtype=torch.bfloat16),
    "count.i64": torch.tensor([-(2**31), -1, 0, 2**31 - 1], dtype=torch.int64),
    "count.i32": torch.tensor([-(2**31), -1, 0, 2**31 - 1], dtype=torch.int32),
    "count.i16": torch.tensor([-(2**15), -1, 0, 2**15 - 1], dtype=torch.int16),
    "count.i8": torch.tensor([-128, -1, 0, 127], dtype=torch.int8),
    "count.u8": torch.tensor([0, 1, 128, 255], dtype=torch.uint8),
    "mask.bool": torch.tensor([True, False, True], dtype=torch.bool),
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(3, 0, 2),
}
save_file(tensors, "tests/golden/weights_types.safetensors", {"format": "pt", "made by": "ü \"1\""})
