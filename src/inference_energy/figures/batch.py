"""Figures on batch size and lengths: curves with their fits, ratios with intervals."""

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
    geometric_mean,
    label_ends,
    log_axis,
    shapes,
    ticks_at,
)
from inference_energy.units import axis_label

#: Each format keeps its colour in all figures.
FORMATS = ("bfloat16", "float16", "float32", "int4", "int8", "tf32")
ENERGY, RATIO = "energy_j_per_output_token", "level_over_baseline_ratio"
BATCH = "Batch size (prompts generated together)"


def levels_by_batch(runs: pd.DataFrame, quantity: str, title: str, caption: str) -> Figure:
    """A quantity of every run against batch size, a line per precision and a panel per model.

    Parameters
    ----------
    runs : DataFrame
        Runs with numbers; lines join the geometric means of a batch size.
    quantity : str
        Column of `runs`.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[quantity])
    return _panels(shown, quantity, None, title, caption) if len(shown) else blank(title)


def batch_fit(runs: pd.DataFrame, fits: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against batch size, with E = a + b / batch as a line and knees as diamonds.

    Parameters
    ----------
    runs : DataFrame
        Runs with numbers; points without a fit are joined by a thin line.
    fits : DataFrame
        Table `batch_knee`.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY])
    return _panels(shown, ENERGY, fits, title, caption) if len(shown) else blank(title)


def _panels(shown: pd.DataFrame, quantity: str, fits: pd.DataFrame | None, title: str, caption: str) -> Figure:
    models = sorted(shown["model"].unique())
    figure, grid = canvas(title, caption, height_in=4.4, ncols=len(models), sharex=True, sharey=True)
    names = {*FORMATS, *shown["precision"]}
    palette, marks = colours(names), shapes(names)
    every: list[list[tuple[float, float, str, str]]] = []
    for axes, model in zip(grid[0], models, strict=True):
        ends = []
        for name, rows in shown[shown["model"] == model].groupby("precision"):
            precision, colour, (marker, line) = str(name), palette[str(name)], marks[str(name)]
            sizes, values = rows["batch_size"].astype(float), rows[quantity].astype(float)
            axes.plot(sizes, values, marker, color=colour, **POINT)
            means = values.groupby(sizes).apply(geometric_mean)
            fit = None if fits is None else fits[(fits["model"] == model) & (fits["precision"] == precision)]
            if fit is None or fit.empty or pd.isna(fit["plateau_energy_j_per_output_token"].iloc[0]):
                axes.plot(
                    means.index, means.to_numpy(float), line, color=colour, linewidth=0.8 if fits is not None else 1.4
                )
                ends.append((float(means.index[-1]), float(means.iloc[-1]), precision, colour))
            else:
                ends.append((*_fitted(axes, fit.iloc[0], means, colour), precision, colour))
        ticks_at(axes.xaxis, shown["batch_size"].astype(float))
        log_axis(axes.yaxis, shown[quantity])
        axes.set_xlabel(BATCH, fontsize=9)
        axes.set_title(model, fontsize=10, loc="left")
        every.append(ends)
    for axes, ends in zip(grid[0], every, strict=True):  # once all points are there: panels share an axis
        label_ends(axes, ends)
    grid[0, 0].set_ylabel(axis_label(quantity))
    return figure


def _fitted(axes: Axes, fit: pd.Series, means: pd.Series, colour: str) -> tuple[float, float]:
    """The law of the shared cost, its plateau, the knee with its interval; where the law's line ends."""
    a, b = fit["plateau_energy_j_per_output_token"], fit["shared_energy_j_per_step"]
    x = np.geomspace(float(means.index[0]), float(means.index[-1]), 60)
    axes.plot(x, a + b / x, "-", color=colour, linewidth=1.5)
    if pd.notna(fit["n_prompts_at_knee"]):
        bars = error_bars(fit.to_frame().T.infer_objects(), "n_prompts_at_knee")
        knee = float(fit["n_prompts_at_knee"])
        look: dict[str, Any] = {"markerfacecolor": "white", "markersize": 8, "capsize": 3, "zorder": 5}
        axes.errorbar(knee, a + b / knee, xerr=bars, fmt="D", color=colour, **look)
    return float(x[-1]), float(a + b / x[-1])


def batch_ratio(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per token over that at the baseline batch, every model and precision with its interval.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `level_ratio` of factor ``batch_size``.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=[RATIO])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.3)
    axes, sizes = grid[0, 0], shown["level"].astype(float)
    settings = shown[shown["scope"] == "setting"]
    palette, marks = colours({*FORMATS, *settings["precision"]}), shapes(settings["model"].dropna())
    names = [f"{row.model} {row.precision}" for row in settings.itertuples()]
    shift = dict(zip(sorted(set(names)), np.linspace(-0.09, 0.09, len(set(names))), strict=True))
    for place, (name, (_, row)) in enumerate(zip(names, settings.iterrows(), strict=True)):
        colour, marker = palette[row["precision"]], marks[row["model"]][0]
        bar = error_bars(settings.iloc[[place]], RATIO)
        look: dict[str, Any] = {"elinewidth": 0.7, "markersize": 5, "alpha": 0.8}
        axes.errorbar(float(row["level"]) * np.exp(shift[name]), row[RATIO], yerr=bar, fmt=marker, color=colour, **look)
    everywhere = shown[shown["scope"] == "all"].sort_values("level", key=lambda level: level.astype(float))
    axes.plot(sizes[everywhere.index], everywhere[RATIO], "-", color="black", linewidth=1.4)
    baseline = float(shown["baseline"].iloc[0])
    ticks = sorted({baseline, *sizes})
    axes.plot(ticks, baseline / np.array(ticks), ":", color=GREY)
    ticks_at(axes.xaxis, ticks)
    log_axis(axes.yaxis, shown[RATIO])
    last = everywhere.iloc[-1]
    ends = [
        (float(last["level"]), float(last[RATIO]), "mean of all", "black"),
        (ticks[-1], baseline / ticks[-1], "cost shared in full", GREY),
    ]
    label_ends(axes, ends, gap=0.06)
    axes.set(xlabel=BATCH, ylabel=f"Energy per output token\nover that at batch {baseline:g} (ratio)")
    drawn = set(settings["precision"])
    colour_key = [
        axes.plot([], [], "s", color=colour, label=name)[0] for name, colour in palette.items() if name in drawn
    ]
    shape_key = [axes.plot([], [], mark, color=GREY, label=name)[0] for name, (mark, _) in marks.items()]
    axes.legend(handles=colour_key + shape_key, frameon=False, fontsize=8.5, loc="lower left", ncols=2)
    return figure


def ratios(rows: pd.DataFrame, title: str, caption: str, xlabel: str) -> Figure:
    """Ratios with intervals, a row each, coloured by verdict.

    Parameters
    ----------
    rows : DataFrame
        With ``label`` (text of a row) and the columns of table `level_ratio`.
    title, caption : str
        The finding and the small print.
    xlabel : str
        What the ratio is of.
    """
    shown = rows.dropna(subset=[RATIO]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.42 * len(shown))
    axes = grid[0, 0]
    axes.axvline(1, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(shown.iterrows()):
        colour = {"less": COLOURS[0], "more": COLOURS[1]}.get(str(row["verdict"]), GREY)
        bar = error_bars(shown.iloc[[place]], RATIO)
        axes.errorbar(
            row[RATIO], place, xerr=bar, fmt="o" if row["scope"] == "setting" else "D", color=colour, capsize=4
        )
        words = (
            f"{row['verdict']} (n = {row['n_pairs']})"
            if pd.isna(row["note"])
            else f"no interval (n = {row['n_pairs']})"
        )
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(words, (1, place), (5, 0), va="center", color=colour, fontsize=9, **where)
    axes.set_yticks(range(len(shown)), shown["label"])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(xlabel)
    return figure
