"""PyTorch to ONNX: the one place that knows the exporter."""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

OPSET = 20  # the first with a Gelu of its own


def export_onnx(module: nn.Module, example: tuple, path: Path, *, inputs: list[str], outputs: list[str], dynamic_shapes) -> None:
    """Traces `module` on an example, writes one self-contained file, and checks it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)
