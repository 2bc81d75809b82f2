"""Figures on lengths of prompts and answers, and on prompts given at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    POINT,
    blank,
    canvas,
    colours,
    error_bars,
    geometric_mean,
    label_ends,
    log_axis,
    plain_tick,
    shapes,
    ticks_at,
)
from inference_energy.units import axis_label

Floats = NDArray[np.float64]

ENERGY, RATIO = "energy_j_per_prompt", "level_over_baseline_ratio"
_LENGTH = {"input": "Length of prompts (tokens)", "output": "Length of answers (tokens)"}


def growth(runs: pd.DataFrame, fits: pd.DataFrame, varied: str, title: str, caption: str) -> Figure:
    """Energy per prompt against length, and the same over the straight line: what bends leaves the 1.

    Parameters
    ----------
    runs : DataFrame
        Runs with an energy per prompt that vary this length.
    fits : DataFrame
        Rows of table `length_fits` measured here, of this length.
    varied : str
        ``input`` or ``output``.
    title, caption : str
        The finding and the small print.
    """
    length, ends, bent = f"n_{varied}_tokens", [], []
    if runs.empty or runs[length].nunique() < 2:
        return blank(title)
    fits = fits[fits["square_part_fraction"].notna()]
    figure, grid = canvas(title, caption, height_in=4.0, ncols=2 if len(fits) else 1)
    left, right = grid[0, 0], grid[0, -1]
    palette, marks = colours(runs["model"]), shapes(runs["model"])
    for model, of_model in runs.groupby("model"):
        name = str(model)
        colour, mark = palette[name], marks[name][0]
        x, energy = of_model[length].to_numpy(float), of_model[ENERGY].to_numpy(float)
        left.plot(x, energy, mark, color=colour, **POINT)
        ends.append((float(x.max()), float(energy[x == x.max()].mean()), name, colour))
        fit = fits[fits["model"] == model]
        if fit.empty:
            continue
        along = np.geomspace(x.min(), x.max(), 120)
        square, line = (_law(fit.iloc[0], law, along) for law in ("quadratic", "linear"))
        left.plot(along, square, "-", color=colour, linewidth=1.3)
        left.plot(along, line, ":", color=colour, linewidth=1.3)
        right.plot(x, energy / _law(fit.iloc[0], "linear", x), mark, color=colour, **POINT)
        right.plot(along, square / line, "-", color=colour, linewidth=1.3)
        bent.append((float(x.max()), float(square[-1] / line[-1]), name, colour))
    for axes in grid[0]:
        ticks_at(axes.xaxis, runs[length].astype(float))
        axes.tick_params(axis="x", labelrotation=40)
        axes.set_xlabel(_LENGTH[varied], fontsize=9)
    log_axis(left.yaxis, runs[ENERGY])
    left.set_ylabel(axis_label(ENERGY))
    label_ends(left, ends)
    if fits.empty:
        return figure
    right.axhline(1, color=GREY, linestyle=":", linewidth=1.3)
    right.set_ylabel("Energy over that of the straight line (ratio)")
    label_ends(right, bent)
    left.set_title("dotted: a line; drawn: with a square", fontsize=9, loc="left")
    right.set_title("the same over the line", fontsize=9, loc="left")
    return figure


def _law(fit: pd.Series, law: str, tokens: Floats) -> Floats:
    """Energy (J) that a law gives at some lengths."""
    names = ("fixed", "slope", "square")[: 3 if law == "quadratic" else 2]
    parts = [float(fit[f"{law}_{name}_energy_j_per_prompt"]) for name in names]
    return np.asarray(np.polynomial.polynomial.polyval(tokens / 1000, parts), dtype=float)


def ratios(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Workloads over their baseline, a row a model, a colour a workload, all models as a diamond below.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `length_ratios`.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=[RATIO])
    if shown.empty:
        return blank(title)
    words = shown["level"].astype(str) + " over " + shown["baseline"].astype(str)
    series = list(dict.fromkeys(words))
    models = list(dict.fromkeys(shown.loc[shown["setting"] != "all", "model"]))
    names = [*models, *(["all models"] if (shown["setting"] == "all").any() else [])]
    figure, grid = canvas(title, caption, height_in=1.2 + 0.4 * len(names) + 0.2 * len(series))
    axes = grid[0, 0]
    axes.axvline(1, color=GREY, linewidth=1)
    for place, word in enumerate(series):
        colour, of_series = COLOURS[place], shown[words == word]
        for index in range(len(of_series)):
            row, bar = of_series.iloc[index], error_bars(of_series.iloc[[index]], RATIO)
            overall = row["setting"] == "all"
            y = len(models) if overall else models.index(row["model"])
            look: dict[str, Any] = {"fmt": "D" if overall else MARKERS[place], "color": colour, "capsize": 3}
            axes.errorbar(row[RATIO], y, xerr=bar, label=None if index else word, **look)
            where: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": colour}
            axes.annotate(f"{plain_tick(float(f'{row[RATIO]:.3g}'))}×", (row[RATIO], y), (0, 6), **where)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    log_axis(axes.xaxis, [1.0, *shown[RATIO]])
    axes.set_xlabel("Energy per prompt over that of the baseline (ratio)")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def context(rows: pd.DataFrame, shortest: float, title: str, caption: str) -> Figure:
    """Energy of a single request over that with the shortest prompt, beside what as many tokens more would take.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `length_ratios` of the long context.
    shortest : float
        Input tokens of the baseline.
    title, caption : str
        The finding and the small print.
    """
    shown = rows[(rows["setting"] != "all") & rows[RATIO].notna()].sort_values("n_input_tokens")
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.6)
    axes = grid[0, 0]
    tokens = [shortest, *shown["n_input_tokens"].astype(float)]
    palette, ends = colours(shown["model"]), []
    for model, of_model in shown.groupby("model"):
        colour, x = palette[str(model)], of_model["n_input_tokens"].astype(float)
        axes.plot([shortest, *x], [1.0, *of_model[RATIO]], "-", color=colour, linewidth=1)
        axes.errorbar(x, of_model[RATIO], yerr=error_bars(of_model, RATIO), fmt="o", color=colour, capsize=4)
        for at, ratio in zip(x, of_model[RATIO], strict=True):
            axes.annotate(f"{ratio:.3g}×", (at, ratio), (-6, 7), textcoords="offset points", ha="right", color=colour)
        ends.append((float(x.iloc[-1]), float(of_model[RATIO].iloc[-1]), str(model), colour))
    line = np.geomspace(min(tokens), max(tokens), 50)
    axes.plot(line, line / shortest, ":", color=GREY)
    ends.append((float(line[-1]), float(line[-1] / shortest), "input tokens", GREY))
    ticks_at(axes.xaxis, tokens)
    log_axis(axes.yaxis, [1.0, line[-1] / shortest])
    axes.set(xlabel=_LENGTH["input"], ylabel=f"Energy per request over that\nwith {shortest:g} input tokens (ratio)")
    label_ends(axes, ends)
    return figure


def at_once(runs: pd.DataFrame, curves: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per prompt against the prompts given at once, with the law of a shared cost and its plateau.

    Parameters
    ----------
    runs : DataFrame
        Runs with an energy per prompt of the study.
    curves : DataFrame
        Table `prompts_curve`.
    title, caption : str
        The finding and the small print.
    """
    if runs.empty or runs["batch_size"].nunique() < 2:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.9)
    axes, ends = grid[0, 0], []
    palette, marks = colours(runs["model"]), shapes(runs["model"])
    for model, of_model in runs.groupby("model"):
        name = str(model)
        colour, sizes, energy = palette[name], of_model["batch_size"].astype(float), of_model[ENERGY].astype(float)
        axes.plot(sizes, energy, marks[name][0], color=colour, **POINT)
        means = energy.groupby(sizes).apply(geometric_mean)
        axes.plot(means.index, means.to_numpy(float), "-", color=colour, linewidth=1.2)
        curve = curves[(curves["model"] == model) & curves["plateau_energy_j_per_prompt"].notna()]
        if len(curve):
            _shared(axes, curve.iloc[0], np.geomspace(sizes.min(), sizes.max(), 80), colour)
        ends.append((float(means.index[-1]), float(means.iloc[-1]), name, colour))
    ticks_at(axes.xaxis, runs["batch_size"].astype(float))
    log_axis(axes.yaxis, runs[ENERGY])
    axes.set(xlabel="Prompts given at once", ylabel=axis_label(ENERGY))
    label_ends(axes, ends)
    return figure


def _shared(axes: Axes, curve: pd.Series, sizes: Floats, colour: str) -> None:
    """The law E = a + b / n, dashed, and where it comes within a tenth of its plateau."""
    plateau, shared = float(curve["plateau_energy_j_per_prompt"]), float(curve["shared_energy_j"])
    axes.plot(sizes, plateau + shared / sizes, "--", color=colour, linewidth=1)
    near = float(curve["n_prompts_near_plateau"])
    if near <= sizes[-1]:
        axes.plot(near, 1.1 * plateau, "D", color=colour, markerfacecolor="white", markersize=8)
