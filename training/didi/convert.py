"""Convert a published checkpoint to a model folder: `python -m didi.convert --from DIR --out DIR`.

The family says what the network is; `--family auto` asks `config.json`. didi-instruct is
`model.safetensors` (the student) and `discriminator.safetensors`; mdlm and idlm are `model.safetensors`
alone. The others are in `families/tables.py`. `tokenizer.json` is in the same folder unless `--tokenizer`
names another file. A chat template in the folder (`chat_template.jinja`, or in `tokenizer_config.json`)
comes along.
"""

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
from .command import command_parser
from .corpus import CALIBRATION_WINDOWS, calibration_windows
from .export import PRECISIONS, STORED, chat_format, write_model_folder
from .families.build import LONGEST, detect, write_family_folder
from .families.errors import ConversionError
from .families.tables import FAMILIES
from .families.tokens import read_json
from .guidance import Discriminator, load_published_state, published_state

# Of the published model; neither follows from the shapes of its tensors.
HEAD_DIM = 64
CONTEXT = 1024
# Families whose network is `Backbone`.
OWN = {
    "didi-instruct": "Few-step student distilled with DiDi-Instruct (arXiv 2509.25035).",
    "mdlm": "Masked-diffusion language model (MDLM, arXiv 2406.07524).",
    "idlm": "Few-step masked-diffusion language model (IDLM, arXiv 2602.19066).",
}
# The same families by the architecture in config.json.
OWN_ARCHITECTURES = {"MDLM": "mdlm", "DIT": "mdlm", "DiDiInstruct": "didi-instruct"}
# A buffer that some checkpoints contain; it follows from the sizes.
ROTARY = "rotary_emb.inv_freq"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file in float32, without a `backbone.` prefix. Raise ConversionError."""
    if not path.is_file():
        raise ConversionError(f"{path} does not exist")
    try:
        with safe_open(path, "pt") as file:
            return {name.removeprefix("backbone."): file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise ConversionError(f"{path} is not a safetensors file: {error}") from error


def infer_config(tensors: dict[str, Tensor], file: str, heads: int | None, context: int) -> BackboneConfig:
    """Return the sizes that follow from the tensors' shapes. Raise ConversionError if none do."""

    def size(name: str, axis: int) -> int:
        if name not in tensors or tensors[name].ndim != 2:
            found = shape_text(tensors[name]) if name in tensors else "missing"
            raise ConversionError(f"{file}: sizes are read from {name}, a matrix, which is {found}")
        return tensors[name].shape[axis]

    vocab_size, hidden = size("vocab_embed.embedding", 0), size("vocab_embed.embedding", 1)
    tally = Counter(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name)))
    numbers = [n for n, count in tally.items() if count > 3]  # fewer are strays, which `faults` names
    if not numbers:
        raise ConversionError(f"{file} has no tensor named blocks.N.*: not a checkpoint of this architecture")
    asked, heads = heads, heads or max(1, hidden // HEAD_DIM)
    if hidden % heads or (hidden // heads) % 2:
        possible = ", ".join(str(n) for n in range(1, hidden // 2 + 1) if hidden % (2 * n) == 0)
        rule = (
            f"the hidden width of {file} is {hidden}, which must be an even multiple of the number of heads"
        )
        advice = f"give --heads with one of {possible}, the number that the model was trained with"
        raise ConversionError(f"{'--heads ' if asked else ''}{heads}: {rule}: {advice}")
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


Tensors = dict[str, Tensor]


def faults(file: str, expected: Tensors, tensors: Tensors, config: BackboneConfig) -> list[str]:
    """Return a line for each tensor of `file` that is missing, unknown, or of another shape."""
    found = []
    for name, tensor in expected.items():
        if name not in tensors:
            found.append(f"{name} is missing; expected {shape_text(tensor)}")
        elif tensors[name].shape != tensor.shape:
            found.append(f"{name} is {shape_text(tensors[name])}; expected {shape_text(tensor)}")
    for name in sorted(tensors.keys() - expected.keys()):
        shape, head_dim = shape_text(tensors[name]), config.hidden // config.heads
        frequencies = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        if name != ROTARY:
            found.append(f"{name} {shape} is not part of the architecture")
        elif tensors[name].shape != frequencies.shape:
            wanted = f"{shape_text(frequencies)} for {config.heads} heads"
            found.append(f"{name} is {shape}; expected {wanted}: give --heads")
        elif not torch.allclose(tensors[name], frequencies, rtol=5e-3):  # it may come from bfloat16
            found.append(f"{name} differs from 10000^(-2i/{head_dim}), the architecture's frequencies")
    return [f"{file}: {fault}" for fault in found]


def load_checkpoint(
    source: Path, family: str, heads: int | None = None, context: int = CONTEXT
) -> tuple[Backbone, Discriminator | None]:
    """Load the networks of a checkpoint folder. Raise ConversionError that names every bad tensor."""
    student = read_tensors(source / "model.safetensors")
    judge = read_tensors(source / "discriminator.safetensors") if family == "didi-instruct" else None
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


def family_of(source: Path) -> str:
    """Return the family of a checkpoint folder. Raise ConversionError if nothing tells it."""
    config = read_json(source / "config.json")
    if family := detect(config):
        return family
    names = config.get("architectures") or []
    if own := next((OWN_ARCHITECTURES[name] for name in names if name in OWN_ARCHITECTURES), None):
        return own
    if names:
        known = ", ".join(sorted([*OWN, *FAMILIES]))
        raise ConversionError(f"config.json says that it is a {names[0]}; --family may be one of {known}")
    return "didi-instruct" if (source / "discriminator.safetensors").is_file() else "mdlm"


def convert(
    source: Path,
    out: Path,
    *,
    family: str = "auto",
    precisions: tuple[str, ...] = ("fp32",),
    true_sigma: bool = False,
    keep_mask_logit: bool = False,
    name: str | None = None,
    licence: str = "unknown",
    heads: int | None = None,
    context: int | None = None,
    tokenizer: Path | None = None,
    weights: str = "fp32",
    calibration: Path | None = None,
) -> None:
    """Write the model folder `out` from the checkpoint folder `source`, or nothing if an error occurs.

    Raise ConversionError if `out` exists, or if the checkpoint or its tokenizer cannot be used.
    """
    if out.exists():
        raise ConversionError(f"{out} exists already: remove it or choose another --out")
    name = name or out.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        rule = "letters, digits, dots, underscores and dashes, a letter or digit first"
        raise ConversionError(f"{name!r} cannot be a model's name ({rule}): give --name")
    family = family_of(source) if family == "auto" else family
    tokenizer = tokenizer or source / "tokenizer.json"
    if not tokenizer.is_file():
        advice = "; `didi-serve model convert` writes GPT-2's if it is missing" if family in OWN else ""
        raise ConversionError(f"{tokenizer} does not exist{advice}")
    given = {"--true-sigma": true_sigma, "--keep-mask-logit": keep_mask_logit, "--heads": heads}
    given |= {"--calibration": calibration, "--weights fp16": weights != "fp32"}
    useless = [flag for flag, value in given.items() if value]
    if family in FAMILIES and useless:
        raise ConversionError(f"{useless[0]} has no effect on the family {family}: leave it out")
    if family in OWN and "int8" in precisions and calibration is None:
        raise ConversionError(f"--precision int8 of a checkpoint of the family {family} needs --calibration")
    print(f"reading {source} ...", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        about = {"name": name, "licence": licence, "precisions": precisions}
        try:
            if family in FAMILIES:
                about |= {"tokenizer": tokenizer, "context": context}
                write_family_folder(folder, source, family, **about)
            else:
                shutil.copyfile(tokenizer, folder / "tokenizer.json")
                backbone, discriminator = load_checkpoint(source, family, heads, context or CONTEXT)
                config = backbone.config
                sizes = f"hidden {config.hidden}, {config.blocks} blocks, {config.heads} heads"
                vocabulary = f"vocabulary {config.vocab_size}, context {config.context}"
                parameters = f"{backbone.parameter_count() / 1e6:.1f}M parameters"
                print(f"{family}: {parameters}, {sizes}, {vocabulary}", flush=True)
                windows = None
                if calibration is not None and "int8" in precisions:
                    fitting = (folder / "tokenizer.json", config.context, config.mask_id)
                    windows = calibration_windows(*fitting, CALIBRATION_WINDOWS, calibration)
                write_model_folder(
                    folder,
                    **about,
                    description=OWN[family],
                    backbone=backbone,
                    discriminator=discriminator,
                    windows=windows,
                    conditioning="sigma" if true_sigma else "none",
                    mask_logit="kept" if keep_mask_logit else "removed",
                    weights=weights,
                    chat=chat_format(source, folder / "tokenizer.json", config.mask_id),
                )
        except ValueError as error:
            raise ConversionError(str(error)) from error
        folder.rename(out)
    print(f"wrote {out}", flush=True)


def main() -> None:
    parser = command_parser(__doc__, prog="didi.convert")
    add = parser.add_argument
    add("--from", dest="source", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    add("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    known = ["auto", *OWN, *FAMILIES]
    add("--family", choices=known, default="auto", help="what the network is (default: by config.json)")
    several = {"dest": "precisions", "nargs": "+", "choices": PRECISIONS, "default": ["fp32"]}
    add("--precision", **several, help="precisions of the graphs")
    reference = "as the reference's guided sampler does"
    add("--true-sigma", action="store_true", help=f"let graphs take sigma, {reference}")
    add("--keep-mask-logit", action="store_true", help=f"keep the mask's logit, {reference}")
    add("--name", help="the model's name (default: the folder's)")
    add("--licence", default="unknown", help="licence of the weights, for the manifest")
    add("--heads", type=int, help=f"attention heads (default: hidden / {HEAD_DIM})")
    longest = f"longest canvas, in tokens (default: {CONTEXT}, or by config.json at most {LONGEST})"
    add("--context", type=int, help=longest)
    add("--weights", choices=STORED, default="fp32", help="what weights are stored in; fp16 rounds them")
    add("--calibration", type=Path, metavar="FILE", help="text to calibrate int8 on")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, if not in the checkpoint folder")
    args = parser.parse_args()
    if args.calibration is not None and not args.calibration.is_file():
        parser.error(f"--calibration: {args.calibration} is not a file")
    if any(value is not None and value < 1 for value in (args.heads, args.context)):
        parser.error("--heads and --context must be at least 1")
    try:
        convert(**vars(args) | {"precisions": tuple(dict.fromkeys(args.precisions))})
    except ConversionError as error:
        sys.exit(f"didi.convert: {error}")
    except KeyboardInterrupt:
        print("didi.convert: interrupted, nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
