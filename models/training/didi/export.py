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
from tokenizers import Tokenizer

from .backbone import Backbone, BackboneConfig
from .corpus import SEPARATOR
from .diffusion import ALPHA_MIN, T_MIN
from .graphs import Denoise

OPSET = 20  # the first with a Gelu of its own


def load_backbone(checkpoint: Path) -> Backbone:
    """The averaged weights of a training checkpoint, in evaluation mode."""
    state = torch.load(checkpoint, weights_only=True)
    model = Backbone(BackboneConfig(**state["config"]))
    model.load_state_dict(state["ema"])
    return model.eval()


def export_denoise(backbone: Backbone, path: Path) -> None:
    """Writes the `denoise` graph (see graphs.Denoise for inputs and outputs) and checks it."""
    picks = torch.tensor([[0, 1], [0, 2], [0, 7], [1, 0], [1, 15]])
    example = (
        torch.zeros(2, 16, dtype=torch.int64),
        torch.tensor([16, 12]),
        picks,
        torch.tensor([0, 1, 2, 3, 4, 4, 3]),
        torch.full((7,), 0.5),
        torch.ones(7),
    )
    B, L, P, S = (torch.export.Dim(name) for name in ("B", "L", "P", "S"))
    shapes = ({0: B, 1: L}, {0: B}, {0: P}, {0: S}, {0: S}, {0: S})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Denoise(backbone).eval(),
            example,
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(Denoise.INPUTS),
            output_names=list(Denoise.OUTPUTS),
            dynamic_shapes=shapes,
            verbose=False,
        )
    graph = onnx.load(str(path))
    graph.doc_string = ""
    for node in graph.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def file_entry(path: Path) -> dict:
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def write_manifest(folder: Path, *, name: str, description: str, config: BackboneConfig, parameters: int) -> None:
    """Writes `model.json` for the files that lie in `folder` (its schema: schemas/model.schema.json)."""
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
    export_denoise(backbone, args.out / "denoise.fp32.onnx")
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
