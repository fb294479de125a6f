"""Export a checkpoint as a model folder: `python -m didi.export --checkpoint FILE --out DIR`.

Writes the weights, the graphs, and `model.json` with the sha256 of every file.
"""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import Backbone, BackboneConfig, load_backbone, save_backbone
from .command import add_corpus_flag, command_parser
from .corpus import CALIBRATION_WINDOWS, SEPARATOR, calibration_windows
from .diffusion import ALPHA_MIN, T_MIN
from .graphs.calibration import Calibration, activation_ranges, calibrate
from .graphs.denoise import Denoise, halve
from .graphs.guided import Score, Tilt
from .graphs.int8 import quantise
from .graphs.stored import StoredTensors, origins, store_once
from .graphs.trace import CUDA_OPSET, to_model
from .guidance import Discriminator, load_discriminator, save_discriminator, weight_files

PRECISIONS = ("fp32", "fp16", "int8")

# Types that weights are stored in.
STORED = {"fp16": torch.float16, "fp32": torch.float32}

# Settings of the published sampler (arXiv 2509.25035).
PUBLISHED_GUIDANCE = {"candidates": 4, "scale_start": 30, "scale_end": 40, "rerank_ratio": 0.5}


def file_entry(path: Path) -> dict:
    """Return the manifest's entry of a file: its name, sha256 and size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}


def write_model_folder(
    folder: Path,
    *,
    name: str,
    description: str,
    licence: str,
    backbone: Backbone,
    discriminator: Discriminator | None = None,
    precisions: Sequence[str] = ("fp32",),
    weights: str = "fp16",
    windows: Tensor | None = None,
    conditioning: str = "none",
    mask_logit: str = "removed",
    guidance: dict | None = None,
    quality: list[dict] | None = None,
    chat: tuple[str, dict] | None = None,
    rewards: list[dict] | None = None,
    alphabet: str | None = None,
    defaults: dict | None = None,
) -> None:
    """Write weights, graphs and `model.json` (models/model.schema.json) into `folder`, which holds
    `tokenizer.json`.

    A discriminator adds the guidance graphs, and `guidance` (default: PUBLISHED_GUIDANCE). `weights` is the
    type that weights are stored in, "fp16" or "fp32"; "fp16" rounds the networks' weights in place. int8
    graphs are calibrated on `windows` [N, L] of text. `defaults` is what requests take that do not say
    otherwise. `chat` is what `chat_format` returns; a text then ends at its eos_token. Print a line for each
    graph. Raise ValueError for an unknown precision or setting, a tokenizer that does not fit the vocabulary,
    or int8 without windows.
    """
    if not precisions or set(precisions) - set(PRECISIONS):
        given = ", ".join(precisions) or "none"
        raise ValueError(f"precisions must be some of {', '.join(PRECISIONS)}, not {given}")
    if "int8" in precisions and windows is None:
        raise ValueError("int8 needs text to calibrate on")
    config = backbone.config
    tokenizer_file = folder / "tokenizer.json"
    end_of_text = end_of_text_id(tokenizer_file, config)
    names = {"student": "weights", "discriminator": "discriminator"}
    files = {network: f"{name}.{weights}.safetensors" for network, name in names.items()}
    dtype = STORED[weights]
    if dtype == torch.float16:
        round_to_half(backbone)
    save_backbone(backbone, folder / files["student"], dtype)
    build = {"denoise": lambda: Denoise(backbone, conditioning, mask_logit)}
    if discriminator is not None:
        if dtype == torch.float16:
            round_to_half(discriminator)
        save_discriminator(discriminator, folder / files["discriminator"], dtype)
        build["tilt"] = lambda: Tilt(backbone, discriminator, conditioning, mask_logit)
        build["score"] = lambda: Score(discriminator, conditioning)
    graphs, calibration = write_graphs(folder, build, files, precisions, windows, config.mask_id)
    manifest = {
        "format_version": 1,
        "name": name,
        "description": description,
        "licence": licence,
        "parameters": backbone.parameter_count(),
        "vocab_size": config.vocab_size,
        "mask_token_id": config.mask_id,
        "end_of_text_token_id": end_of_text,
        "context_length": config.context,
        "schedule": {"kind": "log-linear", "alpha_min": ALPHA_MIN, "t_min": T_MIN},
        "conditioning": conditioning,
        "mask_logit": mask_logit,
        "tokenizer": file_entry(tokenizer_file),
        "weights": file_entry(folder / files["student"]),
        "graphs": graphs,
    }
    if alphabet is not None:
        manifest["alphabet"] = alphabet
    if discriminator is not None:
        manifest["discriminator_weights"] = file_entry(folder / files["discriminator"])
        manifest["guidance"] = guidance or PUBLISHED_GUIDANCE
    if calibration is not None:
        manifest["calibration"] = asdict(calibration)
    if defaults is not None:
        manifest["defaults"] = defaults
    if quality is not None:
        manifest["quality"] = quality
    if rewards is not None:
        manifest["rewards"] = rewards
    if chat is not None:
        template, fields = chat
        template_file = folder / "chat_template.jinja"
        template_file.write_text(template, encoding="utf-8")
        manifest["chat"] = {"template": file_entry(template_file), **fields}
        if "eos_token" in fields:
            manifest["end_of_text_token_id"] = fields["special_tokens"][fields["eos_token"]]
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")


def write_graphs(
    folder: Path,
    build: dict[str, Callable[[], nn.Module]],
    files: dict[str, str],
    precisions: Sequence[str],
    windows: Tensor | None,
    mask_id: int,
) -> tuple[dict[str, dict], Calibration | None]:
    """Write each graph in each precision; return their manifest entries, and the calibration if there is
    int8.

    The first graph must be `denoise`, on which int8 is calibrated.
    """
    stored, calibration = StoredTensors(folder), None
    graphs: dict[str, dict] = {name: {} for name in build}
    for name, make in build.items():
        module = make()
        sources = origins(module, files)
        whole = to_model(module)
        matrices, ranges = [], None
        if "int8" in precisions:
            calibration = calibration or calibrate(whole, sources, windows, mask_id)
            matrices = calibration.int8(sources)
            ranges = activation_ranges(whole, matrices, windows, mask_id)[calibration.percentile]
        # fp16 is last, because it changes the module.
        for precision in sorted(precisions, key=lambda precision: precision == "fp16"):
            started = time.perf_counter()
            path = folder / f"{name}.{precision}.onnx"
            print(f"{path.name} ...", end=" ", flush=True)
            if precision == "fp16":
                model = to_model(halve(module), CUDA_OPSET)
            else:
                model = quantise(whole, matrices, ranges) if precision == "int8" else copy.deepcopy(whole)
            onnx.save(store_once(model, sources, stored), str(path))
            graphs[name][precision] = file_entry(path)
            print(f"{time.perf_counter() - started:.0f} s", flush=True)
    return graphs, calibration


def end_of_text_id(tokenizer_file: Path, config: BackboneConfig) -> int:
    """Return the separator's id in `tokenizer.json`.

    Raise ValueError if the tokenizer has no separator, or an id outside the vocabulary.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        vocabulary = f"the model's vocabulary of {config.vocab_size}"
        raise ValueError(f"{tokenizer_file.name} has id {largest}, outside {vocabulary}")
    end_of_text = tokenizer.token_to_id(SEPARATOR)
    if end_of_text is None:
        raise ValueError(f"{tokenizer_file.name} has no token {SEPARATOR}")
    return end_of_text


def find_template(source: Path, settings: dict) -> str | None:
    """Return the text of `chat_template.jinja`, or of the (default) `chat_template` of the settings."""
    file = source / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {one["name"]: one["template"] for one in template}.get("default")
    return template


def chat_format(source: Path, tokenizer_file: Path, below: int) -> tuple[str, dict] | None:
    """Return the chat template of a checkpoint and the other fields of `chat` in `model.json`.

    `special_tokens` has the special tokens of `tokenizer_file` with an id below `below`, the mask's. None if
    there is no template. Raise ValueError if it needs a token that is not one of them.
    """
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    template = find_template(source, settings)
    if template is None:
        return None
    added = json.loads(tokenizer_file.read_text(encoding="utf-8")).get("added_tokens", [])
    special = {one["content"]: one["id"] for one in added if one["special"] and one["id"] < below}
    fields: dict = {"special_tokens": {text: i for text, i in special.items() if len(text) > 1}}
    for name in ("bos_token", "eos_token"):
        token = settings.get(name)
        text = token["content"] if isinstance(token, dict) else token
        if text is None:
            continue
        if text not in fields["special_tokens"]:
            where = f"which is no special token of {tokenizer_file.name}"
            raise ValueError(f"{file.name}: {name} is {text}, {where}")
        fields[name] = text
    if not fields["special_tokens"]:
        raise ValueError(f"{tokenizer_file.name} has no special tokens, and there is a chat template")
    return template, fields


def round_to_half(module: nn.Module) -> nn.Module:
    """Round every weight to a float16 value, in place: graphs and weight files then hold the same model."""
    for tensor in module.state_dict().values():
        tensor.copy_(tensor.half())
    return module


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="checkpoint.pt of a run, or a model folder")
    add("--out", type=Path, required=True, help="model folder; must hold tokenizer.json")
    add("--name", help="the model's name (default: the folder's)")
    add("--description", help="default: that of the model folder that the weights come from")
    add("--alphabet", help="what a token is one letter of (default: as for --description)")
    add("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="precisions of the graphs")
    add("--calibration", type=Path, metavar="FILE", help="text for int8 (default: the validation split)")
    add_corpus_flag(parser)
    add("--calibration-windows", type=int, default=CALIBRATION_WINDOWS, help="windows of that text")
    add("--temperature", type=float, default=1.0, help="divide the logits by this, in the weights")
    add("--defaults", type=json.loads, help="what requests take by default, as JSON (default: as --alphabet)")
    add("--guidance", type=json.loads, help="guidance defaults as JSON, for a model with a discriminator")
    args = parser.parse_args()
    weights, discriminator = weight_files(args.checkpoint)
    backbone = load_backbone(weights).sharpen(args.temperature)
    known = args.checkpoint / "model.json"
    about = json.loads(known.read_text()) if known.is_file() else {}
    windows = None
    if "int8" in args.precision:
        fitting = (args.out / "tokenizer.json", backbone.config.context, backbone.config.mask_id)
        windows = calibration_windows(
            *fitting, args.calibration_windows, args.calibration, args.corpus
        )
    description = about.get("description", "Masked-diffusion language model of children's stories.")
    write_model_folder(
        args.out,
        name=args.name or args.out.name,
        description=args.description or description,
        licence="MIT",
        backbone=backbone,
        discriminator=load_discriminator(discriminator) if discriminator else None,
        precisions=args.precision,
        guidance=args.guidance or about.get("guidance"),
        alphabet=args.alphabet or about.get("alphabet"),
        defaults=args.defaults or about.get("defaults"),
        quality=about.get("quality") if args.temperature == 1 else None,
        # Their files stay as they are.
        rewards=about.get("rewards") if args.checkpoint.resolve() == args.out.resolve() else None,
        windows=windows,
    )
    print(f"wrote {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
