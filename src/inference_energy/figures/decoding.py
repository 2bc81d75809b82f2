"""Figures on decoding: sampling over greedy decoding with the margin, along temperature, and trends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    POINT,
    blank,
    canvas,
    colours,
    error_bars,
    key_above,
    shapes,
    spread,
)

RATIO, STEP = "sampling_over_greedy_ratio", "per_step_ratio"


def decoding_ratio(rows: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Sampling over greedy decoding, a row per family with its interval, single runs as points, the margin as a band.

    Parameters
    ----------
    rows : DataFrame
        Families of table `decoding_equivalence` of one quantity, with ``label``.
    runs : DataFrame
        Its single runs, with the ``label`` of the family each belongs to.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=[RATIO]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.33 * len(shown))
    axes, margin = grid[0, 0], float(shown["margin_fraction"].iloc[0])
    axes.axvspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
    axes.axvline(1, color=COLOURS[2], linewidth=1)
    for place, (_, row) in enumerate(shown.iterrows()):
        own = runs[runs["label"] == row["label"]][RATIO].to_numpy(float)
        axes.plot(
            own,
            place + 0.18 + spread(len(own), 0.24),
            "o",
            color="black",
            **(POINT | {"alpha": 0.35, "markersize": 3.5}),
        )
        colour = {"equivalent": COLOURS[2], "different": COLOURS[1]}.get(str(row["verdict"]), GREY)
        bar = error_bars(shown.iloc[[place]], RATIO)
        axes.errorbar(row[RATIO], place - 0.12, xerr=bar, fmt="D", color=colour, capsize=3, markersize=5)
        words = f"{row['verdict']} (n = {row['n_pairs']})"
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(words, (1, place), (5, 0), va="center", color=colour, fontsize=8.5, **where)
    _ticks(axes, list(shown["label"]))
    values = np.concatenate([runs[RATIO].to_numpy(float), shown[RATIO].to_numpy(float)])
    furthest = max(2.5 * margin, 1.15 * float(np.abs(values - 1).max()))
    axes.set_xlim(1 - furthest, 1 + furthest)  # an interval of two runs may reach beyond: it ends at the frame
    axes.set_xlabel(f"Energy per output token over greedy decoding (ratio); band: ± {margin * 100:g} %")
    return figure


def decoding_temperature(runs: pd.DataFrame, margin_fraction: float, title: str, caption: str) -> Figure:
    """Every sampling run over greedy decoding against its temperature, a panel per model, colours tell methods.

    Parameters
    ----------
    runs : DataFrame
        Single runs of table `decoding_equivalence` of one quantity, with ``series``.
    margin_fraction : float
        Half the height of the band.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[RATIO, "sampling_temperature"])
    if shown.empty:
        return blank(title)
    models = sorted(shown["model"].unique())
    figure, grid = canvas(title, caption, height_in=3.6, ncols=len(models), sharey=True, sharex=True)
    palette, marks = colours(shown["series"]), shapes(shown["series"])
    for axes, model in zip(grid[0], models, strict=True):
        axes.axhspan(1 - margin_fraction, 1 + margin_fraction, color=COLOURS[2], alpha=0.14, linewidth=0)
        axes.axhline(1, color=COLOURS[2], linewidth=1)
        of_model = shown[shown["model"] == model]
        for place, (series, colour) in enumerate(palette.items()):
            own = of_model[of_model["series"] == series]
            x = own["sampling_temperature"].to_numpy(float) + 0.02 * (place - (len(palette) - 1) / 2)
            axes.plot(x, own[RATIO].to_numpy(float), marks[series][0], color=colour, **POINT)
        axes.set_xlabel("Sampling temperature")
        axes.set_title(model, fontsize=10, loc="left")
    grid[0, 0].set_ylabel("Energy per output token\nover greedy decoding (ratio)")
    key_above(grid, palette, marks)
    return figure


def decoding_trend(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Change of energy per token after one step of each trend, with its interval.

    Parameters
    ----------
    rows : DataFrame
        Table `decoding_trend`.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=[STEP]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.5 * len(shown))
    axes = grid[0, 0]
    axes.axvline(0, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(shown.iterrows()):
        colour = {"rises": COLOURS[1], "falls": COLOURS[0]}.get(str(row["verdict"]), GREY)
        bar = error_bars(shown.iloc[[place]], STEP) * 100
        axes.errorbar((row[STEP] - 1) * 100, place, xerr=bar, fmt="D", color=colour, capsize=4)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(
            f"{row['verdict']} (n = {row['n_runs']})",
            (1, place),
            (5, 0),
            va="center",
            color=colour,
            fontsize=9,
            **where,
        )
    _ticks(
        axes,
        [f"{row['trend']}:\n{row['step']}".replace(" of greedy, ", "\nof greedy, ") for _, row in shown.iterrows()],
    )
    axes.set_xlabel("Change of energy per output token after a step (%)")
    return figure


def _ticks(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
