"""Makes the fixtures of the operators that paired attention is built from: values repeated to a
common shape, products with shared matrices, maps across tokens, vectors of length 1."""
import torch
import torch.nn.functional as F

from make_operators import Fixture, case, normal


def composite(name, op, attrs, inputs, oracle):
    """Forward only: a composite is several nodes, whose gradients have fixtures of their own."""
    f = Fixture(op, attrs)
    for a in inputs:
        f.add("in f32", a)
    f.add("out 0", oracle(*(torch.from_numpy(a).double() for a in inputs)).numpy().astype("float32"))
    f.save(name)


def main():
    case("add_broadcast", "add", {"broadcast": "true"}, [normal(2, 5, 7), normal(1, 5, 7), normal(7)],
         lambda x, y, z: x + y + z)
    case("add_broadcast_outer", "add", {"broadcast": "true"}, [normal(2, 1, 3, 1), normal(5, 1, 4)],
         lambda x, y: x + y)
    case("multiply_broadcast_channel", "multiply", {"broadcast": "true"}, [normal(2, 9, 6), normal(6)],
         lambda x, y: x * y)
    case("multiply_broadcast_head", "multiply", {"broadcast": "true"}, [normal(2, 3, 5, 5), normal(3, 1, 1)],
         lambda x, y: x * y)
    case("matmul_shared_left", "matmul", {}, [normal(6, 9), normal(2, 9, 5)], lambda a, b: a @ b)
    case("matmul_shared_transposed", "matmul", {"transpose_b": "true"}, [normal(2, 3, 7, 4), normal(3, 5, 4)],
         lambda a, b: a @ b.mT)
    composite("linear_tokens", "linear_tokens", {"tokens": 4}, [normal(2, 11, 5), normal(4, 11), normal(4)],
         lambda x, w, b: F.linear(x.mT, w, b).mT)
    case("l2_normalize_last", "l2_normalize", {}, [normal(2, 3, 40)], lambda x: F.normalize(x, dim=-1))
    case("l2_normalize_tokens", "l2_normalize", {"axis": "token"}, [normal(2, 23, 6)], lambda x: F.normalize(x, dim=1))
    case("l2_normalize_short", "l2_normalize", {"eps": 2}, [normal(6, 5, 3)], lambda x: F.normalize(x, dim=-1, eps=2))
    for width, heads in (("narrow", 5), ("wide", 18)):
        rows, weight = normal(2, 40, 3, heads), normal(2, 3, heads + 2, heads)
        case(f"matmul_interleaved_{width}", "matmul", {"interleaved": "true", "transpose_b": "true"}, [rows, weight],
             lambda a, b: torch.einsum("nmgk,ngck->nmgc", a, b))
        case(f"matmul_interleaved_sums_{width}", "matmul", {"interleaved": "true", "transpose_a": "true"},
             [rows, normal(2, 40, 3, heads + 2)], lambda a, b: torch.einsum("nkgm,nkgc->ngmc", a, b))


if __name__ == "__main__":
    main()
