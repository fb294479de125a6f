"""The comparison of teachers, held to a model whose figure is known."""

import csv
import math
from pathlib import Path

import pytest
import torch
from didi.backbone import Backbone, BackboneConfig
from didi.compare import measure
from didi.corpus import SOURCES, load_stream
from didi.train import LOG_FIELDS, weighted
from tokenizers import Tokenizer

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"


def test_a_uniform_model_has_the_logarithm_of_the_vocabulary_a_token(tmp_path):
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    vocabulary = tokenizer.get_vocab_size()
    config = BackboneConfig(vocab_size=vocabulary, hidden=16, blocks=1, heads=2, cond=8, context=256)
    model = Backbone(config)  # its output layer is zero at first
    torch.save({"config": config.to_dict(), "ema": model.state_dict()}, tmp_path / "checkpoint.pt")
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        writer.writeheader()
        writer.writerows([{field: step for field in LOG_FIELDS} for step in (1, 7)])
    row = measure("uniform", tmp_path, str(TOKENIZER), draws=1)
    streams = {source: load_stream(source, "validation", tokenizer) for source in SOURCES}
    expected = {source: math.log(vocabulary - 1) * len(stream.ids) / stream.characters for source, stream in streams.items()}
    assert row["nats_per_character"] == pytest.approx(weighted(expected), rel=0.01)
    for source, value in expected.items():
        assert row[f"nats_per_character_{source[0]}"] == pytest.approx(value, rel=0.02)
    assert row["cpu_seconds"] == "7"
    assert row["vocabulary"] == vocabulary
