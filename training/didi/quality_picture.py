"""The quality table as a picture, perplexity and entropy against steps, and as Markdown."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

SHARPENED_TEACHER = "sharpened teacher"

STYLES = {
    "teacher": {"color": "0.55", "marker": "s", "linestyle": "--"},
    SHARPENED_TEACHER: {"color": "0.75", "marker": "v", "linestyle": ":"},
    "student": {"color": "black", "marker": "o", "linestyle": "-"},
    "student with RGAS": {"color": "tab:red", "marker": "^", "linestyle": "-"},
}
LEVELS = {"autoregressive peer": "-.", "real text": ":"}


def quality_markdown(cells: list[dict]) -> str:
    """A row for each budget, each cell "perplexity (95% interval), entropy"; then what has no budget."""

    def show(cell: dict) -> str:
        low, high = cell["generative_perplexity_interval"]
        digits = 0 if cell["generative_perplexity"] >= 100 else 1
        return f"{cell['generative_perplexity']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}), {cell['entropy']:.3f}"

    by_name = {(cell["sampler"], cell["steps"]): show(cell) for cell in cells}
    steps = sorted({cell["steps"] for cell in cells if cell["sampler"] in STYLES})
    lines = [f"| steps | {' | '.join(STYLES)} |", f"| --- |{' --- |' * len(STYLES)}"]
    lines += [f"| {n} | {' | '.join(by_name.get((name, n), '') for name in STYLES)} |" for n in steps]
    others = [cell for cell in cells if cell["sampler"] not in STYLES]
    lines += ["", *(f"- {cell['sampler']}: {show(cell)}" for cell in others)]
    return "\n".join(lines) + "\n"


def save_svg(figure, path: Path) -> None:
    """Writes the same bytes for the same figure."""
    plt.rcParams["svg.hashsalt"] = "didi"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_quality(cells: list[dict], path: Path) -> None:
    """Both measures side by side, with 95% intervals; samplers without a step budget as levels."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for axes, measure in ((left, "generative_perplexity"), (right, "entropy")):
        for name, style in STYLES.items():
            rows = sorted((c for c in cells if c["sampler"] == name), key=lambda c: c["steps"])
            values = [row[measure] for row in rows]
            reach = [[abs(row[f"{measure}_interval"][i] - row[measure]) for row in rows] for i in (0, 1)]
            axes.errorbar([row["steps"] for row in rows], values, yerr=reach, label=name, capsize=2, markersize=4, **style)
        for name, line in LEVELS.items():
            for row in (c for c in cells if c["sampler"] == name):
                axes.axhline(row[measure], color="tab:blue", linestyle=line, linewidth=1, label=name)
        axes.set_xscale("log", base=2)
        steps = sorted({c["steps"] for c in cells if c["sampler"] in STYLES})
        axes.set_xticks(steps, [str(s) for s in steps])
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    left.set_ylabel("generative perplexity (judge)")
    right.set_ylabel("entropy of a sample (nats)")
    left.legend()
    save_svg(figure, path)
