"""How every figure looks: its frame with finding and small print, colours, ticks, direct labels, files."""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

#: Okabe and Ito's colours, which readers with any colour vision tell apart, darkest contrast first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY, LIGHT = "#5a5a5a", "#d9d9d9"
MARKERS, LINES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
#: A raw run beside means and intervals.
POINT: dict[str, Any] = {"alpha": 0.75, "markersize": 4.5, "markeredgewidth": 0}
WIDTH_IN, TITLE_IN, CAPTION_IN = 8.0, 0.235, 0.155

mpl.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "grid.color": "#ececec",
        "axes.axisbelow": True,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": "black",
        "ytick.labelcolor": "black",
        "svg.hashsalt": "inference-energy",
        "svg.fonttype": "path",
        "lines.linewidth": 1.6,
        "lines.markersize": 6,
    }
)


@dataclass(frozen=True)
class Saved:
    """A figure on disk, which a notebook shows with its finding as the text for screen readers."""

    path: Path
    finding: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.path.read_bytes()).decode("ascii")
        # its name is an anchor, so that other pages can lead here
        words = html.escape(self.finding)
        return f'<img class="figure" id="fig-{self.path.stem}" alt="{words}" src="data:image/svg+xml;base64,{data}">'


def canvas(title: str, caption: str, height_in: float = 3.9, **grid: Any) -> tuple[Figure, np.ndarray]:
    """A figure with its finding on top and its small print below.

    Parameters
    ----------
    title, caption : str
        The finding and the small print; both are wrapped.
    height_in : float
        Height of the plot between them.
    **grid
        Arguments of ``Figure.subplots``.

    Returns
    -------
    Figure, numpy.ndarray of Axes
        Axes as rows x columns.
    """
    title_lines, caption_lines = _lines(title, 76), _lines(caption, 120)
    above, below = TITLE_IN * len(title_lines) + 0.2, CAPTION_IN * len(caption_lines) + 0.15
    total = height_in + above + below
    figure = Figure(figsize=(WIDTH_IN, total))
    figure.set_layout_engine("constrained", rect=(0.008, below / total, 0.984, height_in / total))
    figure.text(
        0.012,
        1 - 0.1 / total,
        "\n".join(title_lines),
        ha="left",
        va="top",
        fontsize=12,
        fontweight="bold",
        linespacing=1.25,
    )
    figure.text(
        0.012, 0.08 / total, "\n".join(caption_lines), ha="left", va="bottom", fontsize=7.8, color=GREY, linespacing=1.3
    )
    figure.finding = title  # type: ignore[attr-defined]  # read by save()
    return figure, figure.subplots(squeeze=False, **grid)


def _lines(text: str, width: int) -> list[str]:
    """`text` wrapped; a number keeps its unit beside it, and names with hyphens stay whole."""
    tied = re.sub(r"(\d) (?=%|[mkM]?[JWs]\b|kWh\b|min\b|h\b|runs?\b)", "\\1\u00a0", text)
    return textwrap.wrap(tied, width, break_on_hyphens=False)


def blank(title: str) -> Figure:
    """A figure that says why there is none."""
    figure, axes = canvas(title, "", height_in=0.15)
    axes[0, 0].set_axis_off()
    return figure


def save(figure: Figure, frame: pd.DataFrame, folder: Path, name: str) -> Saved:
    """Write ``<folder>/<name>.svg`` and the table it was drawn from, ``<name>.csv``; same input, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    # The layout's solver gives the last digits of a position by chance, and names in the file are hashes of positions.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(tuple(round(each, 6) for each in axes.get_position().bounds))
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Title": figure.finding})  # type: ignore[attr-defined]
    frame.to_csv(folder / f"{name}.csv", index=False)
    return Saved(path, figure.finding)  # type: ignore[attr-defined]


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each of the sorted `names`."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(sorted(set(names)))}


def shapes(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A marker and a line for each of the sorted `names`."""
    return {
        name: (MARKERS[index % len(MARKERS)], LINES[index % len(LINES)])
        for index, name in enumerate(sorted(set(names)))
    }


def log_axis(axis: Any, values: Sequence[float] | pd.Series) -> None:
    """A logarithmic axis with ticks at 1, 2, 5 (or decades), written as plain numbers."""
    finite = np.asarray([value for value in values if np.isfinite(value) and value > 0], dtype=float)
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = np.log10(finite.max() / finite.min()) if len(finite) else 1.0
    fine_to_coarse = {0.6: (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), 1.1: (1.0, 2.0, 3.0, 5.0), 2.6: (1.0, 2.0, 5.0)}
    steps = next((steps for limit, steps in fine_to_coarse.items() if decades < limit), (1.0,))
    axis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(plain_tick))


def ticks_at(axis: Any, values: Iterable[float]) -> None:
    """A logarithmic axis with a tick at every measured value, such as batch sizes."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(FixedLocator(sorted(set(values))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain_tick))


def plain_tick(value: float, _position: int | None = None) -> str:
    """``0.05``, ``20``, ``5,000``."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def joule_tick(value: float, _position: int | None = None) -> str:
    """``50 J``, ``10 kJ``, ``1 MJ``, for axes over many decades."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:g} {prefix}J"
    return f"{value:g} J"


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]], gap: float = 0.075) -> None:
    """Write the names of curves beside their last points, apart from one another.

    Parameters
    ----------
    axes : Axes
        With its scales and limits already set.
    ends : list of (x, y, text, colour)
        Last points in data coordinates.
    gap : float
        Least distance of two labels as a fraction of the height.
    """
    if not ends:
        return
    axes.autoscale_view()
    axes.set_ylim(axes.get_ylim())  # hold: labels are placed by it
    to_fraction = axes.transScale + axes.transLimits
    placed = sorted(((to_fraction.transform((x, y))[1], x, y, text, colour) for x, y, text, colour in ends))
    heights = [max(0.0, min(1.0, item[0])) for item in placed]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    shift = max(0.0, heights[-1] - 1.0)
    heights = [height - shift for height in heights]
    for index in range(len(heights) - 2, -1, -1):
        heights[index] = min(heights[index], heights[index + 1] - gap)
    for height, (_, x, y, text, colour) in zip(heights, placed, strict=True):
        axes.annotate(
            text,
            (x, y),
            (1.02, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def short(value: float) -> str:
    """Two significant digits without an exponent: ``124``, ``1.6``, ``0.03``."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.2g}"


def curves(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Model, precision and rows by batch size of every curve in `frame`."""
    pairs = sorted(
        {(str(model), str(precision)) for model, precision in zip(frame["model"], frame["precision"], strict=True)}
    )
    return [
        (
            model,
            precision,
            frame[(frame["model"] == model) & (frame["precision"] == precision)].sort_values("batch_size"),
        )
        for model, precision in pairs
    ]


def error_bars(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Lengths of error bars (2 x n) from the interval's ends; zero where there is none."""
    low = (frame[name] - frame[f"{name}_low"]).clip(lower=0).fillna(0)
    high = (frame[f"{name}_high"] - frame[name]).clip(lower=0).fillna(0)
    return np.vstack([low.to_numpy(float), high.to_numpy(float)])


def spread(n: int, width: float) -> np.ndarray:
    """Offsets that lay `n` points side by side without chance."""
    return np.zeros(n) if n < 2 else (np.arange(n) * 0.618034 % 1.0 - 0.5) * width


def geometric_mean(values: pd.Series) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(values.astype(float)).mean()))


def key_above(grid: np.ndarray, palette: dict[str, str], marks: dict[str, tuple[str, str]]) -> None:
    """Names of the series above the first panel; none where there is one series."""
    if len(palette) < 2:
        return
    handles = [grid.ravel()[0].plot([], [], marks[name][0], color=palette[name], label=name)[0] for name in palette]
    n_columns = 6 if max(map(len, palette)) < 14 else 4
    room = "\n" * -(-len(palette) // n_columns)  # empty lines above the panels' names
    for axes in grid[0]:
        axes.set_title(room + axes.get_title(loc="left"), fontsize=10, loc="left")
    key = grid.ravel()[0].legend(
        handles=handles,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=1.9,
        ncols=n_columns,
        fontsize=8.5,
        columnspacing=1.2,
        handletextpad=0.2,
    )
    key.set_in_layout(False)
