"""Draw some series of every synthetic family: docs/pictures/synthetic.png.

    python benchmarks/gallery.py
    python benchmarks/gallery.py --seed 7 --output other.png

A row for each family of `llamacast.data.synthetic.FAMILIES`. Mixtures are of the pedestrian counts of
examples/data.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from llamacast.data.frame import read_panel
from llamacast.data.synthetic import FAMILIES, SyntheticSeries, synthesise

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "pictures" / "synthetic.png"
REAL = ROOT / "examples" / "data" / "pedestrians.csv"
COLUMNS = 6
MOST_SHOWN = 240
"""Steps drawn of a series: of longer ones, the last."""
COLOURS = ("#1d3f73", "#3f8f5b", "#c2452d", "#7b4ea3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    series = synthesise(COLUMNS * len(FAMILIES), arguments.seed, real=real_series())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save(draw(series), arguments.output)
    print(arguments.output)


def real_series() -> list[npt.NDArray[np.float64]]:
    return list(read_panel(REAL).values)


def save(figure: Figure, path: Path) -> None:
    """As PNG of few colours: a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    Image.open(buffer).convert("RGB").quantize(48).save(path, optimize=True)


def draw(series: list[SyntheticSeries]) -> Figure:
    """A grid of small plots: families downwards, series of each across."""
    figure = Figure(figsize=(13, 1.15 * len(FAMILIES)), layout="constrained")
    grid = figure.subplots(len(FAMILIES), COLUMNS)
    for row, (family, places) in enumerate(zip(FAMILIES, grid, strict=True)):
        chosen = [one for one in series if one.family == family]
        for place, one in zip(places, chosen, strict=True):
            _draw_one(place, one, COLOURS[row % len(COLOURS)])
        places[0].set_ylabel(family.replace("_", "\n"), rotation=0, ha="right", va="center")
    return figure


def _draw_one(place: Axes, one: SyntheticSeries, colour: str) -> None:
    values = one.values[-MOST_SHOWN:]
    place.plot(values, color=colour, linewidth=0.7)
    place.set_xticks([])
    place.set_yticks([])
    place.spines[["top", "right"]].set_visible(False)
    label = f"{one.frequency.name} · {len(values)} of {len(one.values)} steps"
    place.set_title(label, fontsize=6.5, color="#666666", loc="left", pad=2)


if __name__ == "__main__":
    main()
