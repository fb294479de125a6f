"""Pictures as SVG, by matplotlib."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def save_svg(figure: plt.Figure, path: Path) -> None:
    """Write a figure so that equal figures are equal files."""
    plt.rcParams["svg.hashsalt"] = "didi"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
