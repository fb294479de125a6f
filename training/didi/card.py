"""What the model card shows: `python -m didi.card --run DIR --model FOLDER`.

Measures the held-out NELBO on the test split and draws the loss curve into the model folder, and lets
the reference sampler write samples into the run's. Every figure of the card comes from here or from
the run's log.
"""

import argparse
import csv
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
from tokenizers import Tokenizer

from .backbone import Backbone
from .corpus import SOURCES, SPLITS, Stream, evaluation_windows, load_stream
from .diffusion import low_discrepancy_times, nelbo, sample
from .export import load_backbone

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

LABELS = {
    "1-tinystories.txt.xz": "simple stories",
    "2-children.txt.xz": "children's books",
    "3-fairytales.txt.xz": "fairy tales",
}
PROMPT = "Once upon a time"
SAMPLE_LENGTH = 100


@torch.no_grad()
def held_out(model: Backbone, stream: Stream, tokenizer: Tokenizer, draws: int, batch: int = 16) -> dict:
    """NELBO over all windows of a stream, `draws` noise levels each: nats a token (with its standard
    error over windows) and nats a character of the text behind the windows."""
    windows = torch.from_numpy(evaluation_windows(stream, model.config.context))
    generator = torch.Generator().manual_seed(2)
    per_window = torch.zeros(len(windows), dtype=torch.float64)
    for start in range(0, len(windows), batch):
        x = windows[start : start + batch].repeat_interleave(draws, dim=0)
        t = low_discrepancy_times(len(x), float(torch.rand((), generator=generator)))
        # Each window gets one noise level from each stratum.
        t = t.view(draws, -1).T.reshape(-1)
        loss = nelbo(model, x, t, torch.rand(x.shape, generator=generator), model.config.mask_id)
        per_window[start : start + batch] = loss.view(-1, draws).double().mean(dim=1)
        print(f"\r  {start + len(x) // draws}/{len(windows)} windows ", end="", flush=True)
    print()
    text = "".join(tokenizer.decode_batch([w.tolist() for w in windows], skip_special_tokens=True))
    tokens = windows.numel()
    return {
        "windows": len(windows),
        "tokens": tokens,
        "nats_per_token": round(float(per_window.sum()) / tokens, 4),
        "standard_error": round(float(per_window.std()) / len(windows) ** 0.5 / windows.shape[1], 4),
        "nats_per_character": round(float(per_window.sum()) / len(text), 4),
    }


def unigram_nats(stream: Stream, training: Stream, vocab_size: int) -> float:
    """Nats a token of the held-out stream under the training unigrams: what knowing no context costs."""
    counts = np.bincount(training.ids, minlength=vocab_size) + 1.0
    return round(float(-np.log(counts / counts.sum())[stream.ids].mean()), 4)


def draw_curve(rows: list[dict], path: Path) -> None:
    """Training and validation NELBO against tokens seen."""
    figure, axes = plt.subplots(figsize=(7, 4))
    seen = [int(row["tokens"]) / 1e6 for row in rows]
    axes.plot(seen, [float(row["train_nats"]) for row in rows], color="0.65", label="training (as mixed, noisy)")
    for (name, label), style in zip(LABELS.items(), ("-", "--", ":")):
        axes.plot(seen, [float(row[f"validation_{name[0]}"]) for row in rows], style, color="black", label=f"validation: {label}")
    axes.set(xlabel="training tokens seen (millions)", ylabel="NELBO (nats a token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "didi"
    figure.savefig(path, metadata={"Date": None})


def write_samples(model: Backbone, tokenizer: Tokenizer, end: int) -> str:
    prompt = tokenizer.encode(PROMPT).ids
    sections = []
    for steps in (8, 32, 128):
        sections.append(f"#### {steps} steps\n")
        for seed in range(1, 6):
            ids = sample(model, prompt=prompt, length=SAMPLE_LENGTH, steps=steps, seed=seed, mask_id=model.config.mask_id).tokens
            ids = ids[: ids.index(end)] if end in ids else ids
            text = tokenizer.decode(ids).strip().replace("\n\n", "\n")
            sections.append(f"Seed {seed}:\n\n" + "\n".join(f"> {line}" for line in text.split("\n")) + "\n")
            print(f"\r  samples: {steps} steps, seed {seed} ", end="", flush=True)
    print()
    return "\n".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--model", type=Path, required=True, help="model folder with tokenizer.json and model.json")
    parser.add_argument("--draws", type=int, default=8, help="noise levels a window (default %(default)s)")
    args = parser.parse_args()

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    manifest = json.loads((args.model / "model.json").read_text())
    model = load_backbone(args.model / "weights.fp16.safetensors")
    with (args.run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    end = manifest["end_of_text_token_id"]

    results = {"training": {k: float(rows[-1][k]) for k in ("step", "tokens", "cpu_seconds")}, "held_out": {}}
    streams = {split: {name: load_stream(name, split, tokenizer) for name in SOURCES} for split in SPLITS}
    for name in SOURCES:
        print(f"{LABELS[name]}, test split")
        entry = held_out(model, streams["test"][name], tokenizer, args.draws)
        entry["unigram_nats_per_token"] = unigram_nats(streams["test"][name], streams["train"][name], model.config.vocab_size)
        results["held_out"][LABELS[name]] = entry
    results["training_set_tokens"] = sum(len(s.ids) for s in streams["train"].values())
    (args.model / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw_curve(rows, args.model / "curve.svg")
    (args.model / "log.csv").write_text((args.run / "log.csv").read_text())
    (args.run / "samples.md").write_text(write_samples(model, tokenizer, end))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
