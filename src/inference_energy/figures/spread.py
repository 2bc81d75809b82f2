"""Figures on how far settings spread, under which accounting, and what is noise."""

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
    label_ends,
    log_axis,
    shapes,
    short,
    spread,
    ticks_at,
)
from inference_energy.units import axis_label

ENERGY = "energy_j_per_output_token"
ALL = "all_deployments"


def distribution(runs: pd.DataFrame, summary: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token of every run, a row per model, with median and both fold ranges.

    Parameters
    ----------
    runs : DataFrame
        Table `runs`, those of one study with numbers.
    summary : DataFrame
        Rows of table `energy_summary` of the same study.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY])
    if shown.empty or summary.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.1 + 0.95 * len(summary))
    axes = grid[0, 0]
    palette = colours(shown["model"])
    for place, (_, row) in enumerate(summary.iterrows()):
        points = shown if row["model"] == "all" else shown[shown["model"] == row["model"]]
        _settings(axes, place, row, points, palette.get(row["model"], GREY))
    log_axis(axes.xaxis, shown[ENERGY])
    names = ["all models" if model == "all" else model for model in summary["model"]]
    axes.set_yticks(
        range(len(names)), [f"{name}\n{n} settings" for name, n in zip(names, summary["n_settings"], strict=True)]
    )
    axes.set_ylim(len(names) - 0.45, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(ENERGY) + "; black: median")
    return figure


def _settings(axes: Axes, place: int, row: pd.Series, points: pd.DataFrame, colour: str) -> None:
    """Points, median and both fold ranges of one row of the summary."""
    style: dict[str, Any] = {"color": colour, "alpha": 0.5, "markeredgewidth": 0, "markersize": 5}
    axes.plot(points[ENERGY].astype(float), place + spread(len(points), 0.26), "o", **style)
    settings = points.groupby("setting")[ENERGY].mean()
    folds = f"max/min {_fold(row['max_over_min_fold'])}", f"95/5 {_fold(row['p95_over_p5_fold'])}"
    low, high = row["energy_p05_j_per_output_token"], row["energy_p95_j_per_output_token"]
    _range(axes, place - 0.26, settings.min(), settings.max(), folds[0], colour)
    _range(axes, place + 0.26, low, high, folds[1], colour, below=True)
    quarters = [row["energy_p25_j_per_output_token"], row["energy_p75_j_per_output_token"]]
    axes.plot(quarters, [place, place], color=colour, linewidth=14, alpha=0.2, solid_capstyle="butt", zorder=0)
    median = row["energy_p50_j_per_output_token"]
    axes.plot([median, median], [place - 0.2, place + 0.2], color="black", linewidth=2)


def _range(axes: Axes, height: float, low: float, high: float, text: str, colour: str, below: bool = False) -> None:
    if not low < high:
        return
    axes.annotate(
        "",
        (low, height),
        (high, height),
        arrowprops={"arrowstyle": "|-|,widthA=0.3,widthB=0.3", "color": colour, "shrinkA": 0, "shrinkB": 0},
    )
    middle = (low * high) ** 0.5
    axes.annotate(
        text,
        (middle, height),
        (0, -2 if below else 2),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=9,
    )


def study_spread(points: pd.DataFrame, rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy of every run, a row a study, a colour a model, with median, percentiles and folds.

    Parameters
    ----------
    points : DataFrame
        Runs with energy, once for each study they are shown in.
    rows : DataFrame
        Rows of table `energy_summary`, one a study, in order from the top.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty or points.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.44 * len(rows))
    axes = grid[0, 0]
    palette, marks = colours(points["model"]), shapes(points["model"])
    lines = np.linspace(-0.22, 0.22, len(palette)) if len(palette) > 1 else np.zeros(1)
    for place, (_, row) in enumerate(rows.iterrows()):
        of_study = points[points["study"] == row["study"]]
        for line, model in zip(lines, palette, strict=True):
            shown = of_study[of_study["model"] == model][ENERGY].astype(float)
            height = place + line + spread(len(shown), 0.18)
            axes.plot(shown, height, marks[model][0], color=palette[model], **POINT)
        _median(axes, place, row)
        axes.annotate(
            f"max/min {_fold(row['max_over_min_fold'])}, 95/5 {_fold(row['p95_over_p5_fold'])}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
        )
    log_axis(axes.xaxis, points[ENERGY])
    names = ["all deployments" if study == ALL else str(study).replace("_", " ") for study in rows["study"]]
    axes.set_yticks(range(len(rows)), [f"{name} ({n})" for name, n in zip(names, rows["n_settings"], strict=True)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(ENERGY) + "; black: median")
    key_above(grid, palette, marks)
    return figure


def _median(axes: Axes, place: float, row: pd.Series) -> None:
    median = row["energy_p50_j_per_output_token"]
    axes.plot([median, median], [place - 0.36, place + 0.36], color="black", linewidth=2)


def boundary_spread(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Percentiles of energy under each accounting, a row an accounting and model.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `energy_summary` of all deployments, with ``accounting_words`` and ``whose``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    accountings = list(dict.fromkeys(rows["accounting_words"]))
    figure, grid = canvas(title, caption, height_in=0.9 + 0.42 * len(rows))
    axes = grid[0, 0]
    palette = dict(zip(accountings, COLOURS, strict=False))
    places = np.arange(len(rows)) + 0.35 * np.array([accountings.index(name) for name in rows["accounting_words"]])
    values = []
    for place, (_, row) in zip(places, rows.iterrows(), strict=True):
        p = {percent: float(row[f"energy_p{percent:02d}_j_per_output_token"]) for percent in (5, 25, 50, 75, 95)}
        colour = palette[row["accounting_words"]]
        axes.plot([p[5], p[95]], [place, place], color=colour, linewidth=1.6)
        axes.plot([p[25], p[75]], [place, place], color=colour, linewidth=7, solid_capstyle="butt", alpha=0.45)
        axes.plot(p[50], place, "o", color="black", markersize=6)
        axes.annotate(
            f"median {short(p[50])} J, 95/5 {_fold(row['p95_over_p5_fold'])}, CV {short(row['cv'])}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
        )
        values += list(p.values())
    for name in accountings:
        first = places[list(rows["accounting_words"]).index(name)]
        axes.annotate(name, (0.01, first - 0.55), xycoords=("axes fraction", "data"), fontsize=9, color=palette[name])
    log_axis(axes.xaxis, values)
    axes.set_yticks(places, list(rows["whose"]))
    axes.set_ylim(places[-1] + 0.6, -1.0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(ENERGY) + "; thick: quarter to three quarters, thin: 5th to 95th percentile")
    return figure


def published_spread(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Published folds and CVs beside ours with intervals.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `published_spread` of one study.
    title, caption : str
        The finding and the small print.
    """
    panels = {
        "p95_over_p5_fold": "95th over 5th percentile (×)",
        "max_over_min_fold": "Largest over smallest (×)",
        "cv": "Coefficient of variation",
    }
    if rows.empty:
        return blank(title)
    models = list(dict.fromkeys(rows["model"]))
    figure, grid = canvas(title, caption, height_in=1.1 + 0.45 * len(models), ncols=3, sharey=True)
    for axes, (name, words) in zip(grid[0], panels.items(), strict=True):
        shown = rows[rows["quantity"] == name].set_index("model").reindex(models)
        low = (shown["estimate"] - shown["low"]).clip(lower=0).fillna(0)
        high = (shown["high"] - shown["estimate"]).clip(lower=0).fillna(0)
        for place, (_, row) in enumerate(shown.iterrows()):
            bars = [[low.iloc[place]], [high.iloc[place]]]
            axes.errorbar(row["estimate"], place, xerr=bars, fmt="o", color=COLOURS[0], capsize=4, markersize=7)
            axes.plot(row["value"], place, "D", color=COLOURS[1], markerfacecolor="white", markersize=8, zorder=5)
            axes.annotate(short(row["estimate"]), (row["estimate"], place), (0, 8), **_LABEL, color=COLOURS[0])
            axes.annotate(short(row["value"]), (row["value"], place), (0, -17), **_LABEL, color=COLOURS[1])
        log_axis(axes.xaxis, [*shown["estimate"], *shown["value"], *shown["low"], *shown["high"]])
        axes.set_xlabel(words, fontsize=9)
        axes.grid(visible=False, axis="y")
    grid[0, 0].set_yticks(range(len(models)), models)
    grid[0, 0].set_ylim(len(models) - 0.45, -0.55)
    grid[0, 0].set_title("filled: this campaign", loc="left", fontsize=9, color=COLOURS[0])
    grid[0, 1].set_title("open: published", loc="left", fontsize=9, color=COLOURS[1])
    return figure


_LABEL: dict[str, object] = {"textcoords": "offset points", "ha": "center", "fontsize": 8.5}


def variance_split(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """The size of each source of spread, a panel a group of settings.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `variance_split` with numbers, with ``component_words``.
    title, caption : str
        The finding and the small print.
    """
    groups = [name for name in rows["settings"].unique() if (rows["settings"] == name).sum() > 1]
    if not groups:
        return blank(title)
    words = list(dict.fromkeys(rows["component_words"]))
    figure, grid = canvas(
        title, caption, height_in=0.9 + 0.42 * len(words), ncols=len(groups), sharex=True, sharey=True
    )
    every = pd.concat([rows["cv"], rows["cv_high"]]).astype(float) * 100
    least = max(every[every > 0].min() / 4, 0.05)  # where a component of 0 is drawn
    for axes, group in zip(grid[0], groups, strict=True):
        shown = rows[rows["settings"] == group]
        bars = error_bars(shown, "cv") * 100
        for index, (_, row) in enumerate(shown.iterrows()):
            place, value = words.index(row["component_words"]), float(row["cv"]) * 100
            colour = COLOURS[0] if row["component"] == "setting" else COLOURS[1]
            at = max(value, least)
            ends = [[max(min(bars[0, index], at - least), 0)], [max(bars[1, index] - (at - value), 0)]]
            axes.errorbar(at, place, xerr=ends, fmt="o", color=colour, capsize=3, markersize=7)
            axes.annotate(f"{short(value)} %" if value > 1e-3 else "none", (at, place), (0, 7), **_LABEL)
        axes.set_title(group, fontsize=9.5, loc="left")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("CV (%)", fontsize=9)
    log_axis(grid[0, 0].xaxis, [least, every.max()])
    grid[0, 0].set_xlim(least / 1.6, every.max() * 2)
    grid[0, 0].set_yticks(range(len(words)), words)
    grid[0, 0].set_ylim(len(words) - 0.5, -0.7)
    return figure


def smallest_effects(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """The smallest detectable effect against the number of pairs of runs, a line a group of settings.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `smallest_effects` with numbers, of one way of matching.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.0)
    axes = grid[0, 0]
    palette, marks = colours(rows["settings"]), shapes(rows["settings"])
    ends = []
    for name, of_group in rows.groupby("settings", sort=True):
        ordered = of_group.sort_values("n_pairs")
        percent = ordered["smallest_effect_fraction"].astype(float) * 100
        marker, line = marks[str(name)]
        axes.plot(ordered["n_pairs"], percent, marker + line, color=palette[str(name)])
        ends.append((float(ordered["n_pairs"].iloc[-1]), float(percent.iloc[-1]), str(name), palette[str(name)]))
    ticks_at(axes.xaxis, rows["n_pairs"].astype(float))
    log_axis(axes.yaxis, rows["smallest_effect_fraction"].astype(float) * 100)
    axes.set_xlabel("Pairs of runs compared within a sitting (settings × cycles)")
    axes.set_ylabel("Smallest detectable effect (%)")
    label_ends(axes, ends)
    axes.spines["left"].set_color(GREY)
    return figure


def _fold(value: float) -> str:
    return f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×"
