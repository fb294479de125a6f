"""Is int8 worth it? `python -m didi.int8 --model FOLDER --judge FOLDER`.

Quantises the matrix products of `denoise` dynamically (weights to int8 for each column, activations to uint8 for each
call), and measures speed and generative perplexity against float32 in one run. ONNX Runtime takes one activation
scale for a whole call, so a row's result would depend on its company: rows are run alone here, as a server that
promises the same tokens in any company has to.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from torch import Tensor

from .causal_export import load_causal
from .corpus import SEPARATOR
from .diffusion import grid, in_batches, stay_probability
from .measure import measure


def quantise(source: Path, target: Path) -> None:
    """Writes `source` with its products by constant matrices in int8."""
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"MatMulConstBOnly": True},
    )


def feeds(z: np.ndarray, rows: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of `denoise` that draw a token at each (row, position) of canvases z [B, L]."""
    count = len(rows)
    return {
        "tokens": z,
        "length": np.full(len(z), z.shape[1]),
        "picks": np.stack((rows, positions), axis=1),
        "draws": np.arange(count),
        "uniform": rng.random(count, dtype=np.float32),
        "temperature": np.ones(count, dtype=np.float32),
        "top_k": np.zeros(count, dtype=np.int64),
        "top_p": np.ones(count, dtype=np.float32),
    }


def sample_graph(session: onnxruntime.InferenceSession, canvases: Tensor, steps: int, mask_id: int, seed: int) -> Tensor:
    """Fills canvases [B, L] by ancestral sampling with a `denoise` graph, one row a call."""
    rng, times = np.random.default_rng(seed), grid(steps)
    z = canvases.numpy().copy()
    for row in z:
        for step in range(steps + 1):
            masked = np.flatnonzero(row == mask_id)
            shown = masked[rng.random(len(masked)) >= stay_probability(times, step)]
            if len(shown):
                row[shown] = session.run(["token"], feeds(row[None], np.zeros_like(shown), shown, rng))[0]
    return torch.from_numpy(z)


def time_calls(sessions: dict[str, onnxruntime.InferenceSession], rows: int, length: int, mask_id: int, repeats: int) -> dict:
    """Median milliseconds of a call that reveals an eighth of half-masked canvases, interleaved."""
    rng = np.random.default_rng(0)
    z = rng.integers(0, mask_id, (rows, length))
    z[rng.random(z.shape) < 0.5] = mask_id
    masked = np.argwhere(z == mask_id)[:: 4]
    inputs = feeds(z, masked[:, 0], masked[:, 1], rng)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(repeats):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, inputs)
            seconds[name].append(time.perf_counter() - started)
    return {name: round(1e3 * statistics.median(values[1:]), 2) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder; takes denoise.int8.onnx and int8.json")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=50, help="timed calls of each graph")
    args = parser.parse_args()

    quantise(args.model / "denoise.fp32.onnx", args.model / "denoise.int8.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    sessions = {
        name: onnxruntime.InferenceSession(args.model / f"denoise.{name}.onnx", options) for name in ("fp32", "int8")
    }
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    end, mask_id = tokenizer.token_to_id(SEPARATOR), tokenizer.token_to_id("[MASK]")
    judge = load_causal(args.judge)
    result: dict = {"milliseconds": [], "quality": []}
    for rows in (1, 8):
        timed = time_calls(sessions, rows, args.length, mask_id, args.repeats)
        result["milliseconds"].append({"rows": rows, "length": args.length, **timed, "ratio": round(timed["fp32"] / timed["int8"], 2)})
        print(result["milliseconds"][-1])
    for steps in args.steps:
        for name, session in sessions.items():
            fill = lambda z: sample_graph(session, z, steps, mask_id, args.seed)  # noqa: B023, E731
            x = in_batches(fill, args.samples, args.length, mask_id, f"{name}, {steps} steps", batch=args.samples)
            result["quality"].append({"precision": name, "steps": steps, **measure(x, judge, end).to_dict()})
            print(result["quality"][-1])
    (args.model / "int8.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
