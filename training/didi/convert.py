"""Turns a published checkpoint into a model folder: `python -m didi.convert --from DIR --out DIR`.

`--kind didi-instruct` reads `model.safetensors` (the student) and `discriminator.safetensors`;
`--kind mdlm` reads `model.safetensors` alone. `tokenizer.json` lies beside them unless `--tokenizer` says otherwise.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .backbone import Backbone, BackboneConfig
from .calibration import WINDOWS, calibration_windows
from .discriminator import Discriminator, load_published_state, published_state
from .export import PRECISIONS, STORED, write_model_folder

HEAD_DIM = 64  # of the published model: the heads cannot be told from the shapes
CONTEXT = 1024
KINDS = ("didi-instruct", "mdlm")
DESCRIPTIONS = {
    "didi-instruct": "Few-step student distilled with DiDi-Instruct (arXiv 2509.25035).",
    "mdlm": "Masked-diffusion language model (MDLM, arXiv 2406.07524).",
}
# A buffer that some checkpoints keep; it follows from the sizes.
ROTARY = "rotary_emb.inv_freq"


class ConversionError(Exception):
    """The checkpoint or the command line cannot be used; the message says why, in full."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file in float32, without a `backbone.` prefix. Raises ConversionError."""
    if not path.is_file():
        raise ConversionError(f"{path} does not exist")
    try:
        with safe_open(path, "pt") as file:
            return {name.removeprefix("backbone."): file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise ConversionError(f"{path} is not a safetensors file: {error}") from error


def infer_config(tensors: dict[str, Tensor], file: str, heads: int | None, context: int) -> BackboneConfig:
    """Sizes from the shapes of the trunk's tensors. Raises ConversionError where they cannot be told."""

    def size(name: str, axis: int) -> int:
        if name not in tensors or tensors[name].ndim != 2:
            found = shape_text(tensors[name]) if name in tensors else "missing"
            raise ConversionError(f"{file}: the model's sizes are read from {name}, a matrix, which is {found}")
        return tensors[name].shape[axis]

    vocab_size, hidden = size("vocab_embed.embedding", 0), size("vocab_embed.embedding", 1)
    tally = Counter(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name)))
    numbers = [n for n, count in tally.items() if count > 3]  # fewer are strays, to be named as such
    if not numbers:
        raise ConversionError(f"{file} has no tensor named blocks.N.*: it is not a checkpoint of this architecture")
    asked, heads = heads, heads or max(1, hidden // HEAD_DIM)
    if hidden % heads or (hidden // heads) % 2:
        possible = ", ".join(str(n) for n in range(1, hidden // 2 + 1) if hidden % n == 0 and (hidden // n) % 2 == 0)
        raise ConversionError(
            f"{'--heads ' if asked else ''}{heads}: the hidden width of {file} is {hidden}, which must be an even multiple of "
            f"the number of heads: give --heads with one of {possible}, the number that the model was trained with"
        )
    return BackboneConfig(
        vocab_size=vocab_size,
        hidden=hidden,
        blocks=max(numbers) + 1,
        heads=heads,
        cond=size("sigma_map.mlp.2.weight", 0),
        context=context,
        mlp_ratio=size("blocks.0.mlp.0.weight", 0) // hidden or 1,
    )


def shape_text(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def faults(file: str, expected: dict[str, Tensor], tensors: dict[str, Tensor], config: BackboneConfig) -> list[str]:
    """A line for each tensor of `file` that is missing, not known, or of another shape."""
    lines = []
    for name, tensor in expected.items():
        if name not in tensors:
            lines.append(f"{file}: {name} is missing; expected {shape_text(tensor)}")
        elif tensors[name].shape != tensor.shape:
            lines.append(f"{file}: {name} is {shape_text(tensors[name])}; expected {shape_text(tensor)}")
    for name in sorted(tensors.keys() - expected.keys()):
        if name != ROTARY:
            lines.append(f"{file}: {name} {shape_text(tensors[name])} is not part of the architecture")
            continue
        head_dim = config.hidden // config.heads
        frequencies = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        if tensors[name].shape != frequencies.shape:
            lines.append(
                f"{file}: {name} is {shape_text(tensors[name])}; expected {shape_text(frequencies)}"
                f" for {config.heads} heads: give --heads"
            )
        elif not torch.allclose(tensors[name], frequencies, rtol=5e-3):  # it may come from bfloat16
            lines.append(f"{file}: {name} differs from 10000^(-2i/{head_dim}), the architecture's frequencies")
    return lines


def load_checkpoint(
    source: Path, kind: str, heads: int | None = None, context: int = CONTEXT
) -> tuple[Backbone, Discriminator | None]:
    """The networks of a checkpoint folder, in evaluation mode. Raises ConversionError naming every bad tensor."""
    student = read_tensors(source / "model.safetensors")
    judge = read_tensors(source / "discriminator.safetensors") if kind == "didi-instruct" else None
    config = infer_config(student, "model.safetensors", heads, context)
    backbone = Backbone(config)
    lines = faults("model.safetensors", backbone.state_dict(), student, config)
    discriminator = None
    if judge is not None:
        discriminator = Discriminator(backbone)
        lines += faults("discriminator.safetensors", published_state(discriminator), judge, config)
    if lines:
        raise ConversionError("\n  ".join([f"{len(lines)} tensors do not fit the architecture", *lines]))
    student.pop(ROTARY, None)
    backbone.load_state_dict(student)
    if discriminator is not None:
        load_published_state(discriminator, judge)
        discriminator.eval()
    return backbone.eval(), discriminator


def convert(
    source: Path,
    out: Path,
    *,
    kind: str = "didi-instruct",
    precisions: tuple[str, ...] = ("fp32",),
    true_sigma: bool = False,
    keep_mask_logit: bool = False,
    name: str | None = None,
    licence: str = "unknown",
    heads: int | None = None,
    context: int = CONTEXT,
    tokenizer: Path | None = None,
    weights: str = "fp32",
    calibration: Path | None = None,
) -> None:
    """Writes the model folder `out` from the checkpoint folder `source`; all or nothing.

    Raises ConversionError if `out` exists, or if the checkpoint or its tokenizer cannot be used.
    """
    if out.exists():
        raise ConversionError(f"{out} exists already: remove it or choose another --out")
    name = name or out.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConversionError(f"{name!r} cannot be a model's name (letters, digits, dots, dashes): give --name")
    tokenizer = tokenizer or source / "tokenizer.json"
    if not tokenizer.is_file():
        raise ConversionError(f"{tokenizer} does not exist; `didi-serve model convert` makes GPT-2's where it is missing")
    print(f"reading {source} ...", flush=True)
    backbone, discriminator = load_checkpoint(source, kind, heads, context)
    config = backbone.config
    print(
        f"{kind}: {backbone.parameter_count() / 1e6:.1f}M parameters, hidden {config.hidden}, {config.blocks} blocks, "
        f"{config.heads} heads, vocabulary {config.vocab_size}, context {config.context}",
        flush=True,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
        try:
            windows = None
            if calibration is not None and "int8" in precisions:
                windows = calibration_windows(folder / "tokenizer.json", config, WINDOWS, calibration)
            write_model_folder(
                folder,
                name=name,
                description=DESCRIPTIONS[kind],
                licence=licence,
                backbone=backbone,
                discriminator=discriminator,
                precisions=precisions,
                windows=windows,
                conditioning="sigma" if true_sigma else "none",
                mask_logit="kept" if keep_mask_logit else "removed",
                weights=weights,
            )
        except ValueError as error:
            raise ConversionError(str(error)) from error
        folder.rename(out)
    print(f"wrote {out}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="didi.convert", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to make")
    parser.add_argument("--kind", choices=KINDS, default="didi-instruct", help="default: %(default)s")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="default: fp32")
    parser.add_argument(
        "--true-sigma", action="store_true", help="graphs take the noise level, as the reference's guided sampler gives it"
    )
    parser.add_argument(
        "--keep-mask-logit", action="store_true", help="keep the mask's logit, as the reference's guided sampler does"
    )
    parser.add_argument("--name", help="the model's name (default: that of the folder)")
    parser.add_argument("--licence", default="unknown", help="licence of the weights, for the manifest")
    parser.add_argument("--heads", type=int, help=f"attention heads (default: hidden / {HEAD_DIM})")
    parser.add_argument("--context", type=int, default=CONTEXT, help="longest canvas (default: %(default)s)")
    parser.add_argument(
        "--weights", choices=STORED, default="fp32", help="what the weights are stored in; fp16 rounds them (default: %(default)s)"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="text to take the scales of int8 from")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, if not in the checkpoint folder")
    args = parser.parse_args()
    if "int8" in args.precision and args.calibration is None:
        parser.error("--precision int8 needs --calibration")
    if args.calibration is not None and not args.calibration.is_file():
        parser.error(f"--calibration: {args.calibration} is not a file")
    if args.context < 1 or (args.heads is not None and args.heads < 1):
        parser.error("--heads and --context must be at least 1")
    try:
        convert(
            args.source,
            args.out,
            kind=args.kind,
            precisions=tuple(dict.fromkeys(args.precision)),
            true_sigma=args.true_sigma,
            keep_mask_logit=args.keep_mask_logit,
            name=args.name,
            licence=args.licence,
            heads=args.heads,
            context=args.context,
            tokenizer=args.tokenizer,
            weights=args.weights,
            calibration=args.calibration,
        )
    except ConversionError as error:
        sys.exit(f"didi.convert: {error}")
    except KeyboardInterrupt:
        print("didi.convert: interrupted, nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
