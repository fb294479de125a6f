"""Weights stored once."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_export import folder_with_tokenizer

from conftest import make_inputs
from didi.backbone import save_backbone
from didi.export import write_model_folder
from didi.graphs.denoise import Denoise
from didi.graphs.guided import Score, Tilt
from didi.graphs.stored import StoredTensors, origins, store_once
from didi.graphs.trace import export_graph, to_model
from didi.guidance import Discriminator


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_graphs_make_their_matrices_of_the_weights_to_the_bit(backbone, tmp_path, weights):
    about = folder_with_tokenizer(tmp_path)
    torch.manual_seed(8)
    network, discriminator = copy.deepcopy(backbone), Discriminator(backbone).eval()
    write_model_folder(tmp_path, **about, backbone=network, discriminator=discriminator, weights=weights)
    # Rounded in place, if the weights are stored in half.
    whole = {"denoise": Denoise(network), "score": Score(discriminator), "tilt": Tilt(network, discriminator)}
    for name, graph in whole.items():
        export_graph(graph, tmp_path / "whole.onnx")
        feeds = make_inputs(backbone.config.mask_id, 1.0) | {"scale": np.full(3, 20, dtype=np.float32)}
        feeds = {key: feeds[key] for key in graph.inputs}
        expected = onnxruntime.InferenceSession(tmp_path / "whole.onnx").run(None, feeds)
        answer = onnxruntime.InferenceSession(tmp_path / f"{name}.fp32.onnx").run(None, feeds)
        for a, b in zip(expected, answer):
            assert (a == b).all()
        # No matrix is in the graph's own file.
        made = onnx.load(tmp_path / f"{name}.fp32.onnx", load_external_data=False)
        held = {tensor.name: tensor for tensor in made.graph.initializer}
        assert not any(
            "/" not in name
            and name.rpartition(".")[2] in ("qkv", "out", "up", "down", "head", "first", "embedding")
            for name in held
        )
        outside = {entry.value for t in held.values() for entry in t.external_data if entry.key == "location"}
        files = {f"{network}.{weights}.safetensors" for network in ("weights", "discriminator")}
        assert outside <= files and outside


def test_a_matrix_that_does_not_follow_from_the_weights_is_named(backbone, tmp_path):
    save_backbone(backbone, tmp_path / "weights.safetensors")  # rounded, and the network is not
    graph = Denoise(backbone)
    sources = origins(graph, {"student": "weights.safetensors", "discriminator": ""})
    message = "does not follow from .* of weights.safetensors: were its weights rounded"
    with pytest.raises(ValueError, match=message):
        store_once(to_model(graph), sources, StoredTensors(tmp_path))
