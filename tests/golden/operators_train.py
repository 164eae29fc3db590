"""Makes the fixtures of the optimizers and losses beyond the first ones; see make_operators.py for the
format."""
import torch

from make_operators import optimizer_case

torch.set_num_threads(1)


def optimizers():
    optimizer_case("adam", "adam", {"lr": 0.01}, lambda p: torch.optim.Adam(p, 0.01))
    optimizer_case("adam_decay", "adam",
                   {"lr": 0.003, "beta1": 0.8, "beta2": 0.95, "eps": "1e-3", "weight_decay": 0.1},
                   lambda p: torch.optim.Adam(p, 0.003, (0.8, 0.95), 1e-3, weight_decay=0.1))


if __name__ == "__main__":
    optimizers()
