"""Measure the held-out figures of a model card: `python -m didi.tools.card --run DIR --model FOLDER`.

Writes `results.json` (figures of the test split, by source) and the run's `log.csv` into the folder of a
denoiser or a causal model. A denoiser also gets `curve.svg`, and the run's folder `samples.md`.
"""

import argparse
import csv
import json
import math
import textwrap
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ..backbone import Backbone, load_backbone
from ..causal import load_causal
from ..command import command_parser
from ..corpus import SEPARATOR, SPLITS, Stream, evaluation_windows, load_streams
from ..diffusion import low_discrepancy_times, nelbo
from ..learn.objectives import Causal, evaluate
from .picture import plt, save_svg
from .oracle import sample

LABELS = {
    "1-tinystories.txt.xz": "simple stories",
    "2-children.txt.xz": "children's books",
    "3-fairytales.txt.xz": "fairy tales",
    "5-tinystories-more.txt.xz": "more simple stories",
    "6-storybooks.txt.xz": "picture books",
}
PROMPT = "Once upon a time"
SAMPLE_LENGTH = 100


@torch.no_grad()
def held_out(model: Backbone, stream: Stream, tokenizer: Tokenizer, draws: int, batch: int = 16) -> dict:
    """Measure the NELBO over all windows of a stream, at `draws` noise levels each.

    Return nats a token, with its standard error over windows, and nats a character of the windows' text.
    """
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
    """Return the nats a token of a stream under the unigram frequencies of the training text."""
    counts = np.bincount(training.ids, minlength=vocab_size) + 1.0
    return round(float(-np.log(counts / counts.sum())[stream.ids].mean()), 4)


def draw_curve(rows: list[dict], path: Path) -> None:
    """Draw training and validation NELBO against tokens seen."""
    figure, axes = plt.subplots(figsize=(7, 4))
    seen = [int(row["tokens"]) / 1e6 for row in rows]
    training = [float(row["train_nats"]) for row in rows]
    axes.plot(seen, training, color="0.65", label="training (as mixed, noisy)")
    for (name, label), style in zip(LABELS.items(), ("-", "--", ":", "-.", (0, (1, 5)))):
        if (column := f"validation_{name[0]}") in rows[0]:  # a log may be older than the file
            values = [float(row[column]) for row in rows]
            axes.plot(seen, values, linestyle=style, color="black", label=f"validation: {label}")
    axes.set(xlabel="training tokens seen (millions)", ylabel="NELBO (nats a token)")
    axes.legend()
    axes.grid(alpha=0.3)
    save_svg(figure, path)


def quoted(text: str) -> str:
    """Return a text as a quotation in Markdown, in lines of at most 110 columns."""
    lines = text.strip().replace("\n\n", "\n").split("\n")
    return "\n".join(textwrap.fill(line, 110, initial_indent="> ", subsequent_indent="> ") for line in lines)


def write_samples(model: Backbone, tokenizer: Tokenizer) -> str:
    """Return samples of the plain sampler at three step counts, as Markdown."""
    prompt, end = tokenizer.encode(PROMPT).ids, tokenizer.token_to_id(SEPARATOR)
    settings = {"prompt": prompt, "length": SAMPLE_LENGTH, "mask_id": model.config.mask_id}
    sections = []
    for steps in (8, 32, 128):
        sections.append(f"#### {steps} steps\n")
        for seed in (1, 2, 3):
            ids = sample(model, **settings, steps=steps, seed=seed).tokens
            ids = ids[: ids.index(end)] if end in ids else ids
            sections.append(f"Seed {seed}:\n\n{quoted(tokenizer.decode(ids))}\n")
            print(f"\r  samples: {steps} steps, seed {seed} ", end="", flush=True)
    print()
    return "\n".join(sections)


def denoiser_figures(args: argparse.Namespace, tokenizer: Tokenizer, rows: list[dict]) -> dict:
    """Return the figures of a denoiser; draw its curve and write its samples."""
    model = load_backbone(args.model / "weights.fp16.safetensors")
    streams = {split: load_streams(split, tokenizer) for split in SPLITS}
    figures = {}
    for name, test in streams["test"].items():
        print(f"{LABELS[name]}, test split")
        training = streams["train"][name]
        entry = held_out(model, test, tokenizer, args.draws)
        entry["unigram_nats_per_token"] = unigram_nats(test, training, model.config.vocab_size)
        figures[LABELS[name]] = entry
    draw_curve(rows, args.model / "curve.svg")
    (args.run / "samples.md").write_text(write_samples(model, tokenizer))
    return {"held_out": figures, "training_set_tokens": sum(len(s.ids) for s in streams["train"].values())}


def causal_figures(args: argparse.Namespace, tokenizer: Tokenizer) -> dict:
    """Return the figures of a causal model."""
    model = load_causal(args.model)
    objective, figures = Causal(tokenizer.token_to_id(SEPARATOR)), {}
    for name, stream in load_streams("test", tokenizer).items():
        (nats,) = evaluate(objective, model, {name: stream}, None).values()
        figures[LABELS[name]] = {
            "windows": len(evaluation_windows(stream, model.config.context)),
            "nats_per_token": round(nats, 4),
            "perplexity": round(math.exp(nats), 3),
        }
    return {"held_out": figures, "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--model", type=Path, required=True, help="exported folder, with tokenizer.json")
    parser.add_argument("--draws", type=int, default=8, help="noise levels of each window, for a denoiser")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    log = (args.run / "log.csv").read_text()
    rows = list(csv.DictReader(log.splitlines()))
    results = {"training": {k: float(rows[-1][k]) for k in ("step", "tokens", "cpu_seconds")}}
    causal = (args.model / "config.json").exists()
    results |= causal_figures(args, tokenizer) if causal else denoiser_figures(args, tokenizer, rows)
    (args.model / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.model / "log.csv").write_text(log)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
