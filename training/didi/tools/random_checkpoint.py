"""Write random weights as a published checkpoint: `python -m didi.tools.random_checkpoint --out DIR`.

For tests and measurements without the real weights. The sizes default to the published ones (169M
parameters). Names and shapes are written out here, independent of the modules that load them.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..command import command_parser

SIGMA_WIDTH = 256  # sinusoids of the noise level


def linear(tensors: dict[str, Tensor], name: str, inputs: int, outputs: int, bias: bool = True) -> None:
    tensors[f"{name}.weight"] = torch.randn(outputs, inputs) / math.sqrt(inputs)
    if bias:
        tensors[f"{name}.bias"] = 0.2 * torch.randn(outputs)


def trunk(vocab: int, hidden: int, blocks: int, cond: int) -> dict[str, Tensor]:
    """Return embedding, noise-level MLP and blocks, without values that hide a mistake, such as 0 or 1."""
    tensors = {"vocab_embed.embedding": 0.5 * torch.randn(vocab, hidden)}
    linear(tensors, "sigma_map.mlp.0", SIGMA_WIDTH, cond)
    linear(tensors, "sigma_map.mlp.2", cond, cond)
    for n in range(blocks):
        block = f"blocks.{n}"
        tensors[f"{block}.norm1.weight"] = 1 + 0.2 * torch.randn(hidden)
        tensors[f"{block}.norm2.weight"] = 1 + 0.2 * torch.randn(hidden)
        linear(tensors, f"{block}.attn_qkv", hidden, 3 * hidden, bias=False)
        linear(tensors, f"{block}.attn_out", hidden, hidden, bias=False)
        linear(tensors, f"{block}.mlp.0", hidden, 4 * hidden)
        linear(tensors, f"{block}.mlp.2", 4 * hidden, hidden)
        linear(tensors, f"{block}.adaLN_modulation", cond, 6 * hidden)
    return tensors


def student(vocab: int, hidden: int, blocks: int, cond: int) -> dict[str, Tensor]:
    """Return the tensors of `model.safetensors`."""
    tensors = trunk(vocab, hidden, blocks, cond)
    tensors["output_layer.norm_final.weight"] = 1 + 0.2 * torch.randn(hidden)
    linear(tensors, "output_layer.linear", hidden, vocab)
    linear(tensors, "output_layer.adaLN_modulation", cond, 2 * hidden)
    return tensors


def discriminator(vocab: int, hidden: int, blocks: int, cond: int) -> dict[str, Tensor]:
    """Return the tensors of `discriminator.safetensors`; spectral norm stores singular vectors as well."""
    tensors = trunk(vocab, hidden, blocks, cond)
    for layer, outputs in ((0, hidden), (2, 1)):
        name = f"output_layer.main.{layer}"
        weight = torch.randn(outputs, hidden) / math.sqrt(hidden)
        u = torch.randn(outputs)
        for _ in range(5):
            v = torch.nn.functional.normalize(weight.T @ u, dim=0)
            u = torch.nn.functional.normalize(weight @ v, dim=0)
        tensors |= {f"{name}.weight_orig": weight, f"{name}.weight_u": u, f"{name}.weight_v": v}
        tensors[f"{name}.bias"] = 0.2 * torch.randn(outputs)
    return tensors


def write_checkpoint(folder: Path, *, vocab: int, hidden: int, blocks: int, cond: int, seed: int = 0) -> None:
    """Write both files of a checkpoint in float32, a function of the sizes and the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    for file, make in (("model.safetensors", student), ("discriminator.safetensors", discriminator)):
        tensors = make(vocab, hidden, blocks, cond)
        save_file(tensors, folder / file)
        print(f"{file}: {sum(t.numel() for t in tensors.values()) / 1e6:.1f}M parameters", flush=True)


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the two files")
    parser.add_argument("--vocab", type=int, default=50_258, help="number of ids, the mask included")
    parser.add_argument("--hidden", type=int, default=768, help="width of the networks")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of each network")
    parser.add_argument("--cond", type=int, default=128, help="width of the conditioning vector")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args()
    sizes = {"vocab": args.vocab, "hidden": args.hidden, "blocks": args.blocks, "cond": args.cond}
    write_checkpoint(args.out, **sizes, seed=args.seed)


if __name__ == "__main__":
    main()
