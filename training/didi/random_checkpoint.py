"""Random weights in the published checkpoint's files, names and shapes: `python -m didi.random_checkpoint --out DIR`.

For tests and measurements where the real weights are not at hand. The sizes default to the published ones
(169M parameters); names and shapes are spelled out here, apart from the modules that load them.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

SIGMA_WIDTH = 256  # sinusoids of the noise level


def linear(tensors: dict[str, Tensor], name: str, inputs: int, outputs: int, bias: bool = True) -> None:
    tensors[f"{name}.weight"] = torch.randn(outputs, inputs) / math.sqrt(inputs)
    if bias:
        tensors[f"{name}.bias"] = 0.2 * torch.randn(outputs)


def trunk(vocab: int, hidden: int, blocks: int, cond: int) -> dict[str, Tensor]:
    """Embedding, noise-level MLP and blocks. No tensor is left at a value that would hide a mistake, such as 0 or 1."""
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
    """`model.safetensors`."""
    tensors = trunk(vocab, hidden, blocks, cond)
    tensors["output_layer.norm_final.weight"] = 1 + 0.2 * torch.randn(hidden)
    linear(tensors, "output_layer.linear", hidden, vocab)
    linear(tensors, "output_layer.adaLN_modulation", cond, 2 * hidden)
    return tensors


def discriminator(vocab: int, hidden: int, blocks: int, cond: int) -> dict[str, Tensor]:
    """`discriminator.safetensors`: spectral norm keeps a weight with estimates of its singular vectors."""
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
    """Both files of a checkpoint in float32. Makes the folder; a function of the sizes and the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    for file, make in (("model.safetensors", student), ("discriminator.safetensors", discriminator)):
        tensors = make(vocab, hidden, blocks, cond)
        save_file(tensors, folder / file)
        print(f"{file}: {sum(t.numel() for t in tensors.values()) / 1e6:.1f}M parameters", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="didi.random_checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two files go")
    parser.add_argument("--vocab", type=int, default=50_258, help="ids, the mask included (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=768, help="default: %(default)s")
    parser.add_argument("--blocks", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--cond", type=int, default=128, help="width of the conditioning (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    write_checkpoint(
        args.out, vocab=args.vocab, hidden=args.hidden, blocks=args.blocks, cond=args.cond, seed=args.seed
    )


if __name__ == "__main__":
    main()
