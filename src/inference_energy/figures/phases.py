"""Figures on prefill and decoding apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.batch import FORMATS
from inference_energy.figures.style import (
    COLOURS,
    GREY,
    blank,
    canvas,
    colours,
    error_bars,
    key_above,
    log_axis,
    shapes,
)
from inference_energy.models.phases import DECODE, DURATION, ENERGY, MAIN, PREFILL

#: Each phase keeps its colour.
PHASES = {PREFILL: COLOURS[0], DECODE: COLOURS[1]}
_WORDS = {PREFILL: "prefill", DECODE: "decoding"}
_RAW: dict[str, Any] = {"marker": "|", "linestyle": "", "alpha": 0.75, "markersize": 9}
_NARROW = 1.6  # ratios that lie closer have round ticks on a linear axis only
_OF_LENGTH = ("o", "D", "^", "v", "P")  # no squares: the key shows colours with them
_LINE_IN = 0.42  # height of a line of text with its points


def tokens(runs: pd.DataFrame, rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy of an input token in prefill and of an output token in decoding, a panel a model, a line a format.

    Parameters
    ----------
    runs : DataFrame
        Table `phase_runs` with ``label``: format and engine.
    rows : DataFrame
        Levels of table `phases`, alike.
    title, caption : str
        The finding and the small print.
    """
    shown = rows[rows["quantity"].isin(ENERGY.values()) & (rows["method"] == rows["phase"].map(MAIN))]
    shown = shown.dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    models, labels = sorted(shown["model"].unique()), list(dict.fromkeys(shown["label"]))
    marks, apart = _lengths(shown)
    height_in = 1.2 + _LINE_IN * len(labels)
    figure, grid = canvas(title, caption, height_in=height_in, ncols=len(models), sharex=True, sharey=True)
    for axes, model in zip(grid[0], models, strict=True):
        for (phase, n_input), part in shown[shown["model"] == model].groupby(["phase", "n_input_tokens"]):
            colour, words = PHASES[str(phase)], f"{n_input:,} tokens in"
            same = (runs["model"] == model) & (runs["phase"] == phase) & (runs["n_input_tokens"] == n_input)
            raw = runs[same & (runs["method"] == MAIN[str(phase)])]
            for frame, column in ((raw, ENERGY[str(phase)]), (part, "estimate")):
                y = frame["label"].map({label: place + apart[words] for place, label in enumerate(labels)})
                if frame is raw:
                    axes.plot(frame[column], y, color=colour, **_RAW)
                else:
                    bars = error_bars(frame, column)
                    axes.errorbar(frame[column], y, xerr=bars, fmt=marks[words], color=colour, markersize=5)
        log_axis(axes.xaxis, shown["estimate"])
        axes.set_title(model, fontsize=10, loc="left")
        axes.set_xlabel("Energy of a token (J)", fontsize=9)
    _lines(grid[0, 0], labels)
    palette = {"input token": PHASES[PREFILL], "output token": PHASES[DECODE]}
    key = dict.fromkeys(palette, ("s", "")) | {name: (mark, "") for name, mark in marks.items()}
    key_above(grid, palette | dict.fromkeys(marks, GREY), key)
    return figure


def formats(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy over that of the baseline format, a panel a phase, a line a format.

    Parameters
    ----------
    rows : DataFrame
        Ratios of table `phases` of factor ``precision`` and one baseline.
    title, caption : str
        The finding and the small print.
    """
    shown = rows[rows["quantity"].isin(ENERGY.values()) & (rows["method"] == rows["phase"].map(MAIN))]
    shown = shown.dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    labels = list(dict.fromkeys(shown["precision"]))
    cells = shown[shown["model"] != "all"]
    marks, apart = _lengths(cells)
    palette = colours(cells["model"])
    height_in = 1.4 + 1.6 * _LINE_IN * len(labels)
    figure, grid = canvas(title, caption, height_in=height_in, ncols=2, sharex=True, sharey=True)
    models = sorted(palette)
    for axes, phase in zip(grid[0], PHASES, strict=True):
        axes.axvline(1, color=GREY, linewidth=1)
        for (name, n_input), part in cells[cells["phase"] == phase].groupby(["model", "n_input_tokens"]):
            model, words = str(name), f"{n_input:,} tokens in"
            aside = apart[words] * 0.6 + 0.32 * (models.index(model) - (len(models) - 1) / 2)
            y = part["precision"].map(labels.index) + aside
            bars = error_bars(part, "estimate")
            axes.errorbar(part["estimate"], y, xerr=bars, fmt=marks[words], color=palette[model], markersize=5)
        log_axis(axes.xaxis, [1.0, *shown["estimate"]])
        axes.set_title(_WORDS[phase].capitalize(), fontsize=10, loc="left")
        axes.set_xlabel(f"Energy over {shown['baseline'].iloc[0]} (ratio)", fontsize=9)
    _lines(grid[0, 0], labels)
    key = dict.fromkeys(palette, ("s", "")) | {name: (mark, "") for name, mark in marks.items()}
    key_above(grid, palette | dict.fromkeys(marks, GREY), key)
    return figure


def energy_and_time(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy over the baseline format's against time over the baseline format's, a panel a phase.

    Parameters
    ----------
    rows : DataFrame
        Ratios of table `phases` of factor ``precision`` and one baseline.
    title, caption : str
        The finding and the small print.
    """
    cells = rows[(rows["model"] != "all") & (rows["method"] == rows["phase"].map(MAIN))]
    keys = ["phase", "model", "precision", "n_input_tokens"]
    energy = cells[cells["quantity"].isin(ENERGY.values())].dropna(subset=["estimate"])
    both = energy.merge(cells[cells["quantity"].isin(DURATION.values())], on=keys, suffixes=("", "_time"))
    if both.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.2, ncols=2, sharex=True, sharey=True)
    palette, marks = colours({*FORMATS, *both["precision"]}), shapes(both["model"])
    sizes = dict(zip(sorted(both["n_input_tokens"].unique()), (4.0, 8.0, 10.0, 12.0), strict=False))
    ends = both[["estimate", "estimate_time"]].to_numpy(float).ravel()
    limits = [0.8 * min(ends.min(), 1), 1.25 * max(ends.max(), 1)]
    for axes, phase in zip(grid[0], PHASES, strict=True):
        axes.plot(limits, limits, "-", color=GREY, linewidth=1)
        axes.text(0.03, 0.97, "above the line: more power", transform=axes.transAxes, va="top", fontsize=8, color=GREY)
        for _, row in both[both["phase"] == phase].iterrows():
            look = {"color": palette[row["precision"]], "markersize": sizes[row["n_input_tokens"]], "alpha": 0.8}
            axes.plot(row["estimate_time"], row["estimate"], marks[row["model"]][0], **look)
        log_axis(axes.xaxis, limits)
        log_axis(axes.yaxis, limits)
        axes.set(xlim=limits, ylim=limits)
        axes.set_title(_WORDS[phase].capitalize(), fontsize=10, loc="left")
        axes.set_xlabel(f"Time over {both['baseline'].iloc[0]} (ratio)", fontsize=9)
    grid[0, 0].set_ylabel(f"Energy over {both['baseline'].iloc[0]} (ratio)")
    used = {name: colour for name, colour in palette.items() if name in set(both["precision"])}
    key = dict.fromkeys(used, ("s", "")) | marks
    key_above(grid, used | dict.fromkeys(marks, GREY), key)
    return figure


def ratio_list(rows: pd.DataFrame, title: str, caption: str, xlabel: str) -> Figure:
    """Ratios with intervals, a line each, coloured by phase.

    Parameters
    ----------
    rows : DataFrame
        Ratios of table `phases` with ``label`` (text of a line); both phases of a label share a line.
    title, caption : str
        The finding and the small print.
    xlabel : str
        What the ratio is of.
    """
    shown = rows.dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    labels = list(dict.fromkeys(shown["label"]))
    figure, grid = canvas(title, caption, height_in=1.1 + _LINE_IN * len(labels))
    axes: Axes = grid[0, 0]
    axes.axvline(1, color=GREY, linewidth=1)
    for phase, part in shown.groupby("phase"):
        y = part["label"].map(labels.index).to_numpy(float) + (0.12 if phase == DECODE else -0.12)
        bars = error_bars(part, "estimate")
        axes.errorbar(part["estimate"], y, xerr=bars, fmt="o", color=PHASES[str(phase)], capsize=3, markersize=5)
    if shown["estimate"].max() > _NARROW * shown["estimate"].min():
        log_axis(axes.xaxis, [1.0, *shown["estimate"]])
    axes.set_xlabel(xlabel, fontsize=9)
    _lines(axes, labels)
    key_above(
        grid, {_WORDS[phase]: colour for phase, colour in PHASES.items()}, dict.fromkeys(_WORDS.values(), ("o", ""))
    )
    return figure


def _lengths(rows: pd.DataFrame) -> tuple[dict[str, str], dict[str, float]]:
    """Marker and offset of each prompt length, by its words."""
    lengths = sorted(rows["n_input_tokens"].dropna().unique())
    names = [f"{length:,} tokens in" for length in lengths]
    offsets = np.linspace(-0.16, 0.16, len(names)) if len(names) > 1 else np.zeros(1)
    return dict(zip(names, _OF_LENGTH, strict=False)), dict(zip(names, offsets.tolist(), strict=True))


def _lines(axes: Axes, labels: list[str]) -> None:
    """A line of text for each label, from top to bottom."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
