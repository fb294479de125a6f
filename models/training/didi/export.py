"""Exports a checkpoint as a model folder: `python -m didi.export --checkpoint FILE --out DIR`.

Writes the graphs, and `model.json` with the sha256 of every file.
"""

import argparse
import hashlib
import json
import warnings
from pathlib import Path

import onnx
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from .backbone import Backbone, BackboneConfig
from .corpus import SEPARATOR
from .diffusion import ALPHA_MIN, T_MIN
from .graphs import Denoise

OPSET = 20  # the first with a Gelu of its own


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


def save_weights(backbone: Backbone, path: Path) -> None:
    """The weights under the published names, in float16: what further training and distillation start from."""
    weights = {name: tensor.half().contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(weights, path, {"config": json.dumps(backbone.config.to_dict())})


def example_inputs() -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
    """For each input of a graph: an example to trace with, and which of its axes vary."""
    return {
        "tokens": (torch.zeros(2, 16, dtype=torch.int64), {0: "B", 1: "L"}),
        "length": (torch.tensor([16, 12]), {0: "B"}),
        "picks": (torch.tensor([[0, 1], [0, 2], [0, 7], [1, 0], [1, 11]]), {0: "P"}),
        "draws": (torch.tensor([0, 1, 2, 3, 4, 4, 3]), {0: "S"}),
        "uniform": (torch.full((7,), 0.5), {0: "S"}),
        "temperature": (torch.ones(7), {0: "S"}),
        "scale": (torch.ones(2), {0: "B"}),
    }


def export_graph(graph: nn.Module, path: Path) -> None:
    """Writes a graph module (`INPUTS`, `OUTPUTS`; see graphs.py and guided.py) as ONNX, and checks it."""
    inputs = example_inputs()
    axes = {name: torch.export.Dim(name) for name in ("B", "L", "P", "S")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            tuple(inputs[name][0] for name in graph.INPUTS),
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(graph.INPUTS),
            output_names=list(graph.OUTPUTS),
            dynamic_shapes=tuple({i: axes[a] for i, a in inputs[name][1].items()} for name in graph.INPUTS),
            verbose=False,
        )
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)


def file_entry(path: Path) -> dict:
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def write_manifest(folder: Path, *, name: str, description: str, config: BackboneConfig, parameters: int) -> None:
    """Writes `model.json` for the files that lie in `folder` (its schema: models/model.schema.json)."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    manifest = {
        "format_version": 1,
        "name": name,
        "description": description,
        "licence": "MIT",
        "parameters": parameters,
        "vocab_size": config.vocab_size,
        "mask_token_id": config.mask_id,
        "end_of_text_token_id": tokenizer.token_to_id(SEPARATOR),
        "context_length": config.context,
        "schedule": {"kind": "log-linear", "alpha_min": ALPHA_MIN, "t_min": T_MIN},
        "conditioning": "none",
        "tokenizer": file_entry(folder / "tokenizer.json"),
        "graphs": {"denoise": {"fp32": file_entry(folder / "denoise.fp32.onnx")}},
        "weights": file_entry(folder / "weights.fp16.safetensors"),
    }
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run")
    parser.add_argument("--out", type=Path, required=True, help="model folder; must hold tokenizer.json")
    parser.add_argument("--name", help="the model's name (default: the folder's)")
    parser.add_argument("--description", default="Masked-diffusion language model of children's stories.")
    args = parser.parse_args()
    backbone = load_backbone(args.checkpoint)
    export_graph(Denoise(backbone), args.out / "denoise.fp32.onnx")
    save_weights(backbone, args.out / "weights.fp16.safetensors")
    write_manifest(
        args.out,
        name=args.name or args.out.name,
        description=args.description,
        config=backbone.config,
        parameters=backbone.parameter_count(),
    )
    print(f"wrote {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
