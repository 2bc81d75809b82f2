"""Figures on precision: number formats over a baseline, by batch size and model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from inference_energy.figures.batch import FORMATS
from inference_energy.figures.style import (
    GREY,
    blank,
    canvas,
    colours,
    error_bars,
    label_ends,
    log_axis,
    shapes,
    ticks_at,
)

RATIO = "level_over_baseline_ratio"


def precision_ratio(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per token over that of the baseline format against batch size, a panel per model.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `level_ratio` of factor ``precision``, scope ``setting`` and one baseline.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=[RATIO])
    if shown.empty:
        return blank(title)
    models, baseline = sorted(shown["model"].unique()), str(shown["baseline"].iloc[0])
    figure, grid = canvas(title, caption, height_in=4.4, ncols=len(models), sharex=True, sharey=True)
    names = {*FORMATS, *shown["level"]}
    palette, marks = colours(names), shapes(names)
    levels = sorted(shown["level"].unique())
    shift = dict(zip(levels, np.linspace(-0.08, 0.08, len(levels)), strict=True))
    every = []
    for axes, model in zip(grid[0], models, strict=True):
        ends: list[tuple[float, float, str, str]] = []
        axes.axhline(1, color=GREY, linewidth=1)
        for level, of_level in shown[shown["model"] == model].groupby("level"):
            ordered = of_level.sort_values("batch_size")
            x = ordered["batch_size"].to_numpy(float) * np.exp(shift[str(level)])
            y, (marker, line), colour = ordered[RATIO].to_numpy(float), marks[str(level)], palette[str(level)]
            axes.plot(x, y, line, color=colour, linewidth=1)
            axes.errorbar(x, y, yerr=error_bars(ordered, RATIO), fmt=marker, color=colour, elinewidth=0.9, capsize=2)
            ends.append((float(x[-1]), float(y[-1]), str(level), colour))
        ticks_at(axes.xaxis, shown["batch_size"].astype(float))
        ends_of = shown[[RATIO, f"{RATIO}_low", f"{RATIO}_high"]].to_numpy(float).ravel()
        log_axis(axes.yaxis, [1.0, *ends_of])
        axes.set_xlabel("Batch size (prompts generated together)", fontsize=9)
        axes.set_title(f"{model} (line at 1: {baseline})", fontsize=10, loc="left")
        every.append(ends)
    for axes, ends in zip(grid[0], every, strict=True):
        label_ends(axes, ends)
    grid[0, 0].set_ylabel(f"Energy per output token\nover that in {baseline} (ratio)")
    return figure
