"""Exports a checkpoint as a model folder: `python -m didi.export --checkpoint FILE --out DIR`.

Writes the graphs, and `model.json` with the sha256 of every file.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import Backbone, BackboneConfig
from .calibration import WINDOWS, calibration_windows
from .corpus import SEPARATOR
from .diffusion import ALPHA_MIN, T_MIN
from .discriminator import Discriminator, load_published_state, published_state
from .graphs import Denoise, halve
from .guided import Score, Tilt
from .quantize import activation_ranges, calibrate, quantise
from .stored import StoredTensors, origins, store_once
from .to_onnx import CUDA_OPSET, OPSET, export_onnx

PRECISIONS = ("fp32", "fp16", "int8")

# What weights are stored in.
STORED = {"fp16": torch.float16, "fp32": torch.float32}

# Settings of the published sampler (arXiv 2509.25035).
PUBLISHED_GUIDANCE = {"candidates": 4, "scale_start": 30, "scale_end": 40, "rerank_ratio": 0.5}


def load_backbone(path: Path) -> Backbone:
    """The averaged weights of a training checkpoint (.pt) or of a model folder (.safetensors), in evaluation mode."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}
    else:
        state = torch.load(path, weights_only=True)
        config, weights = state["config"], state["ema"]
    model = Backbone(BackboneConfig(**config))
    model.load_state_dict(weights)
    return model.eval()


def weight_files(source: Path) -> tuple[Path, Path | None]:
    """Where a model folder, or a checkpoint, has its backbone and its discriminator (None where there is none)."""
    if source.is_dir():
        discriminator = source / "discriminator.fp16.safetensors"
        return source / "weights.fp16.safetensors", discriminator if discriminator.exists() else None
    return source, source if "discriminator" in torch.load(source, weights_only=True) else None


def save_weights(backbone: Backbone, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """The weights under the published names: what graphs, further training and distillation start from."""
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(weights, path, {"config": json.dumps(backbone.config.to_dict())})
    path.chmod(0o644)


def save_discriminator(discriminator: Discriminator, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """As `save_weights`, for the discriminator."""
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in published_state(discriminator).items()}
    save_file(weights, path, {"config": json.dumps(discriminator.trunk.config.to_dict())})
    path.chmod(0o644)


def load_discriminator(path: Path, trainable_blocks: int = 4) -> Discriminator:
    """A discriminator from a model folder's file (.safetensors) or a distillation's checkpoint (.pt), in evaluation mode."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}
        discriminator = Discriminator(Backbone(BackboneConfig(**config)), trainable_blocks)
        load_published_state(discriminator, weights)
    else:
        state = torch.load(path, weights_only=True)
        discriminator = Discriminator(Backbone(BackboneConfig(**state["config"])), trainable_blocks)
        discriminator.load_state_dict(state["discriminator"])
    return discriminator.eval()


def example_inputs() -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
    """For each input of a graph: an example to trace with, and which of its axes vary."""
    return {
        "tokens": (torch.zeros(2, 16, dtype=torch.int64), {0: "B", 1: "L"}),
        "length": (torch.tensor([16, 12]), {0: "B"}),
        "picks": (torch.tensor([[0, 1], [0, 2], [0, 7], [1, 0], [1, 11]]), {0: "P"}),
        "draws": (torch.tensor([0, 1, 2, 3, 4, 4, 3]), {0: "S"}),
        "uniform": (torch.full((7,), 0.5), {0: "S"}),
        "temperature": (torch.ones(7), {0: "S"}),
        "top_k": (torch.zeros(7, dtype=torch.int64), {0: "S"}),
        "top_p": (torch.ones(7), {0: "S"}),
        "scale": (torch.ones(2), {0: "B"}),
        "sigma": (torch.ones(2), {0: "B"}),
        "mask_bias": (torch.zeros(2), {0: "B"}),
    }


def to_model(graph: nn.Module, opset: int = OPSET) -> onnx.ModelProto:
    """A graph module (`inputs`, `OUTPUTS`; see graphs.py and guided.py) as ONNX."""
    examples = example_inputs()
    axes = {name: torch.export.Dim(name) for name in ("B", "L", "P", "S")}
    return export_onnx(
        graph,
        example={name: examples[name][0] for name in graph.inputs},
        outputs=graph.OUTPUTS,
        opset=opset,
        dynamic_shapes={name: {i: axes[a] for i, a in examples[name][1].items()} for name in graph.inputs},
    )


def export_graph(graph: nn.Module, path: Path) -> None:
    """Writes a graph module as one self-contained ONNX file."""
    onnx.save(to_model(graph), str(path))


def file_entry(path: Path) -> dict:
    """A file of a model folder as its manifest names it."""
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
) -> None:
    """Writes weights, graphs and `model.json` into `folder`, which must hold `tokenizer.json` (models/model.schema.json).

    With a discriminator the folder gets the guidance graphs, and `guidance` (its default: PUBLISHED_GUIDANCE).
    `weights` is what the weights are stored in, "fp16" or "fp32"; in float16 they are rounded, in place. Graphs in
    int8 are calibrated on `windows` [N, L] of text. Prints a line for each graph. Raises ValueError for an unknown
    precision or setting, a tokenizer that does not fit the vocabulary, or int8 without windows.
    """
    unknown = set(precisions) - set(PRECISIONS)
    if unknown or not precisions:
        raise ValueError(f"precisions must be some of {', '.join(PRECISIONS)}, not {', '.join(precisions) or 'none'}")
    if "int8" in precisions and windows is None:
        raise ValueError("int8 needs text to calibrate on")
    config = backbone.config
    tokenizer_file = folder / "tokenizer.json"
    end_of_text = end_of_text_id(tokenizer_file, config)
    files = {"student": f"weights.{weights}.safetensors", "discriminator": f"discriminator.{weights}.safetensors"}
    dtype = STORED[weights]
    if dtype == torch.float16:
        round_to_half(backbone)
    save_weights(backbone, folder / files["student"], dtype)
    build: dict[str, Callable[[], nn.Module]] = {"denoise": lambda: Denoise(backbone, conditioning, mask_logit)}
    if discriminator is not None:
        if dtype == torch.float16:
            round_to_half(discriminator)
        save_discriminator(discriminator, folder / files["discriminator"], dtype)
        build["tilt"] = lambda: Tilt(backbone, discriminator, conditioning, mask_logit)
        build["score"] = lambda: Score(discriminator, conditioning)
    stored, calibration = StoredTensors(folder), None
    graphs: dict[str, dict] = {name: {} for name in build}
    for graph_name, make in build.items():
        module = make()
        sources = origins(module, files)
        whole = to_model(module)
        ranges = None
        if "int8" in precisions:
            matrices = [name for name, origin in sources.items() if origin.transposed]
            calibration = calibration or calibrate(whole, matrices, windows, config.mask_id)
            ranges = activation_ranges(whole, matrices, windows, config.mask_id)[calibration.percentile]
        # Last what changes the module itself.
        for precision in sorted(precisions, key=lambda precision: precision == "fp16"):
            started = time.perf_counter()
            path = folder / f"{graph_name}.{precision}.onnx"
            print(f"{path.name} ...", end=" ", flush=True)
            if precision == "fp16":
                model = to_model(halve(module), CUDA_OPSET)
            else:
                model = quantise(whole, matrices, ranges) if precision == "int8" else copy_of(whole)
            onnx.save(store_once(model, sources, stored), str(path))
            graphs[graph_name][precision] = file_entry(path)
            print(f"{time.perf_counter() - started:.0f} s", flush=True)
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
    if discriminator is not None:
        manifest["discriminator_weights"] = file_entry(folder / files["discriminator"])
        manifest["guidance"] = guidance or PUBLISHED_GUIDANCE
    if calibration is not None:
        manifest["calibration"] = calibration.to_dict()
    if quality is not None:
        manifest["quality"] = quality
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def end_of_text_id(tokenizer_file: Path, config: BackboneConfig) -> int:
    """The separator's id in `tokenizer.json`. Raises ValueError if it has none, or ids outside the vocabulary."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise ValueError(f"{tokenizer_file.name} has id {largest}, outside the model's vocabulary of {config.vocab_size}")
    end_of_text = tokenizer.token_to_id(SEPARATOR)
    if end_of_text is None:
        raise ValueError(f"{tokenizer_file.name} has no token {SEPARATOR}")
    return end_of_text


def round_to_half(module: nn.Module) -> nn.Module:
    """Rounds every weight to what float16 holds, in place: graphs and weight files then hold the same model."""
    for tensor in module.state_dict().values():
        tensor.copy_(tensor.half())
    return module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run or a distillation, or a model folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder; must hold tokenizer.json")
    parser.add_argument("--name", help="the model's name, if not the folder's")
    parser.add_argument("--description", help="default: that of the model folder the weights come from")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="of the graphs")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="text to calibrate int8 on (default: the corpus' validation split)")
    parser.add_argument("--calibration-windows", type=int, default=WINDOWS, help="windows of that text")
    parser.add_argument("--temperature", type=float, default=1.0, help="to divide the logits by, once and for all")
    parser.add_argument("--guidance", type=json.loads, help="guidance defaults as JSON, where there is a discriminator")
    args = parser.parse_args()
    weights, discriminator = weight_files(args.checkpoint)
    backbone = load_backbone(weights).sharpen(args.temperature)
    known = args.checkpoint / "model.json"
    about = json.loads(known.read_text()) if known.is_file() else {}
    windows = None
    if "int8" in args.precision:
        windows = calibration_windows(args.out / "tokenizer.json", backbone.config, args.calibration_windows, args.calibration)
    write_model_folder(
        args.out,
        name=args.name or args.out.name,
        description=args.description or about.get("description", "Masked-diffusion language model of children's stories."),
        licence="MIT",
        backbone=backbone,
        discriminator=load_discriminator(discriminator) if discriminator else None,
        precisions=args.precision,
        guidance=args.guidance or about.get("guidance"),
        quality=about.get("quality") if args.temperature == 1 else None,
        windows=windows,
    )
    print(f"wrote {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
