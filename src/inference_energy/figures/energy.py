"""Figures on energy per token: distribution, batch size, throughput, variance."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    blank,
    canvas,
    colours,
    curves,
    error_bars,
    label_ends,
    log_axis,
    shapes,
    short,
    spread,
    ticks_at,
)
from inference_energy.units import axis_label

ENERGY, THROUGHPUT = "energy_j_per_output_token", "throughput_tokens_per_s"


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


def batch_curve(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against batch size, by model and precision.

    Parameters
    ----------
    curve : DataFrame
        Table `batch_curve`.
    runs : DataFrame
        The runs behind it; each is drawn as a faint point.
    title, caption : str
        The finding and the small print.
    """
    return _against_batch(curve, runs, ENERGY, title, caption)


def throughput(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Throughput against batch size, by model and precision; arguments as of :func:`batch_curve`."""
    return _against_batch(curve, runs, THROUGHPUT, title, caption)


def energy_against_throughput(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against throughput; arguments as of :func:`batch_curve`."""
    return _curves(curve, runs, (THROUGHPUT, ENERGY), title, caption)


def _against_batch(curve: pd.DataFrame, runs: pd.DataFrame, name: str, title: str, caption: str) -> Figure:
    return _curves(curve, runs, ("batch_size", name), title, caption)


def _curves(curve: pd.DataFrame, runs: pd.DataFrame, names: tuple[str, str], title: str, caption: str) -> Figure:
    """A panel a model, a line a precision, along which the batch size grows."""
    x, y = names
    shown = curve.dropna(subset=list(names))
    if shown.empty:
        return blank(title)
    models = sorted(shown["model"].unique())
    figure, grid = canvas(title, caption, height_in=4.2, ncols=len(models), sharex=True, sharey=True)
    palette, marks = colours(shown["precision"]), shapes(shown["precision"])
    every: list[list[tuple[float, float, str, str]]] = [[] for _ in models]
    for model, precision, rows in curves(shown):
        place, colour, (marker, line) = models.index(model), palette[precision], marks[precision]
        axes = grid[0, place]
        _points(axes, runs, model, precision, names, colour, marker)
        axes.errorbar(
            rows[x].astype(float),
            rows[y].astype(float),
            error_bars(rows, y),
            color=colour,
            fmt=marker + line,
            markerfacecolor="white",
            markersize=8,
            capsize=3,
        )
        every[place].append((rows[x].iloc[-1], rows[y].iloc[-1], precision, colour))
    for axes, model, ends in zip(grid[0], models, every, strict=True):  # once all points are there: panels share axes
        axes.set_title(model, fontsize=10, loc="left")
        if x == "batch_size":
            ticks_at(axes.xaxis, shown[x].astype(float))
        else:
            log_axis(axes.xaxis, shown[x])
        log_axis(axes.yaxis, shown[y])
        axes.set_xlabel("Batch size (prompts together)" if x == "batch_size" else axis_label(x))
        label_ends(axes, ends)
    grid[0, 0].set_ylabel(axis_label(y))
    return figure


def _points(
    axes: Axes, runs: pd.DataFrame, model: str, precision: str, names: tuple[str, str], colour: str, marker: str
) -> None:
    chosen = runs[(runs["model"] == model) & (runs["precision"] == precision)].dropna(subset=list(names))
    axes.plot(
        chosen[names[0]].astype(float),
        chosen[names[1]].astype(float),
        marker,
        color=colour,
        alpha=0.8,
        markersize=2.5,
        markeredgewidth=0,
        zorder=4,
    )


def variance(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """The size of each source of spread as a coefficient of variation.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `variability` of one study.
    title, caption : str
        The finding and the small print.
    """
    words = {
        "setting": "between settings",
        "cycle": "between cycles\nof one setting",
        "window": "between windows\nof one run",
    }
    shown = rows[rows["component"].isin(list(words))].dropna(subset=["cv"])
    if shown.empty:
        return blank(title)
    shown = shown.set_index("component").reindex([key for key in words if key in set(shown["component"])]).reset_index()
    figure, grid = canvas(title, caption, height_in=2.5)
    axes = grid[0, 0]
    places = list(range(len(shown)))
    positive = shown["cv"].astype(float).clip(lower=1e-4) * 100
    for place in places:
        axes.errorbar(
            positive[place],
            place,
            xerr=error_bars(shown, "cv")[:, [place]] * 100,
            fmt="o",
            markersize=8,
            color=COLOURS[place % len(COLOURS)],
            capsize=4,
        )
        percent = shown["variance_fraction"].iloc[place] * 100
        share = f"{percent:.2f} %" if percent >= 0.01 else "less than 0.01 %"
        axes.annotate(
            f"CV {short(positive[place])} %; {share} of the variance",
            (positive[place], place),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    log_axis(axes.xaxis, [*positive, positive.min() / 20, positive.max() * 8])
    axes.set_xlim(positive.min() / 20, positive.max() * 8)
    axes.set_yticks(places, [words[key] for key in shown["component"]])
    axes.set_ylim(len(places) - 0.6, -0.7)
    axes.set_xlabel("Coefficient of variation of energy per output token (%)")
    return figure


def _fold(value: float) -> str:
    return f"{value:.0f}×" if value >= 10 else f"{value:.1f}×"
