"""Figures on static batches of prompts of mixed lengths."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    POINT,
    blank,
    canvas,
    error_bars,
    label_ends,
    log_axis,
    ticks_at,
)
from inference_energy.models.phases import (
    BY_LENGTH,
    COMPUTED_INPUT,
    COMPUTED_OUTPUT,
    DECODE,
    DRAWN,
    EFFECTIVE_INPUT,
    GENERATION,
    PER_OUTPUT,
    PREFILL,
)

BATCH = "Batch size (prompts generated together)"
Lines = dict[str, tuple[str, str]]

#: Curves of a figure: words for each phase and quantity.
PROMPTS: Lines = {
    "per token of the prompts": (PREFILL, EFFECTIVE_INPUT),
    "per token computed": (PREFILL, COMPUTED_INPUT),
}
BEST: Lines = {
    "prefill": (PREFILL, EFFECTIVE_INPUT),
    "decoding": (DECODE, EFFECTIVE_INPUT),
    "both": (GENERATION, EFFECTIVE_INPUT),
}
ANSWERS: Lines = {
    "per token asked for": (GENERATION, PER_OUTPUT),
    "per token computed": (GENERATION, COMPUTED_OUTPUT),
}


def curves(runs: pd.DataFrame, rows: pd.DataFrame, lines: Lines, title: str, caption: str, ylabel: str) -> Figure:
    """Energy of a token against batch size: a colour a curve, open diamonds for prompts sorted by length.

    Parameters
    ----------
    runs : DataFrame
        Table `padding_runs`: points.
    rows : DataFrame
        Table `padding`: levels with intervals, joined by lines.
    lines : dict of str to (phase, quantity)
        What is drawn, such as :data:`PROMPTS`.
    title, caption, ylabel : str
        The finding, the small print, and what is drawn.
    """
    levels = rows[rows["factor"].isna()].dropna(subset=["estimate"])
    drawn = {
        words: levels[(levels["phase"] == phase) & (levels["quantity"] == quantity)]
        for words, (phase, quantity) in lines.items()
    }
    drawn = {words: found for words, found in drawn.items() if len(found)}
    if not drawn:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.2)
    axes: Axes = grid[0, 0]
    ends = []
    for (words, found), colour in zip(drawn.items(), COLOURS, strict=False):
        phase, quantity = lines[words]
        raw = runs[runs["phase"] == phase].dropna(subset=[quantity])
        for order, part in found.groupby("batch_order"):
            ordered = part.sort_values("batch_size")
            look: dict[str, Any] = {"fmt": "o"} if order == DRAWN else {"fmt": "D", "markerfacecolor": "white"}
            bars = error_bars(ordered, "estimate")
            x, y = ordered["batch_size"].astype(float), ordered["estimate"].astype(float)
            axes.errorbar(x, y, yerr=bars, color=colour, capsize=3, markersize=6, **look)
            if order == DRAWN:
                axes.plot(x, y, "-", color=colour, linewidth=1.4)
                ends.append((float(x.iloc[-1]), float(y.iloc[-1]), words, colour))
        single = raw["batch_size"].astype(float) * 1.06
        axes.plot(single, raw[quantity].astype(float), ".", color=colour, **POINT)
    ticks_at(axes.xaxis, levels["batch_size"].astype(float))
    log_axis(axes.yaxis, pd.concat(drawn.values())["estimate"])
    axes.set(xlabel=BATCH, ylabel=ylabel)
    label_ends(axes, ends)
    if (pd.concat(drawn.values())["batch_order"] == BY_LENGTH).any():
        _key(axes)
    return figure


def sorting(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy with prompts sorted into batches over that in the order drawn, against batch size.

    Parameters
    ----------
    rows : DataFrame
        Table `padding`.
    title, caption : str
        The finding and the small print.
    """
    ratios = rows[(rows["factor"] == "batch_order") & (rows["quantity"] == EFFECTIVE_INPUT)].dropna(subset=["estimate"])
    if ratios.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.6)
    axes: Axes = grid[0, 0]
    axes.axhline(1, color=GREY, linewidth=1)
    ends = []
    for place, (words, (phase, _)) in enumerate(BEST.items()):
        part = ratios[ratios["phase"] == phase].sort_values("batch_size")
        if part.empty:
            continue
        x, y = part["batch_size"].astype(float) * 1.05 ** (place - 1), part["estimate"].astype(float)
        colour, bars = COLOURS[place], error_bars(part, "estimate")
        axes.errorbar(x, y, yerr=bars, fmt="D-", color=colour, markerfacecolor="white", capsize=3)
        ends.append((float(x.iloc[-1]), float(y.iloc[-1]), words, colour))
    ticks_at(axes.xaxis, ratios["batch_size"].astype(float))
    axes.set(xlabel=BATCH, ylabel="Energy, sorted over drawn (ratio)")
    label_ends(axes, ends)
    return figure


def _key(axes: Axes) -> None:
    """What the marks mean, where prompts were sorted too."""
    look: dict[str, Any] = {"color": GREY, "label": "prompts in the order drawn"}
    drawn = axes.plot([], [], "o-", **look)[0]
    by_length = axes.plot([], [], "D", **(look | {"label": "sorted by length", "markerfacecolor": "white"}))[0]
    axes.legend(handles=[drawn, by_length], frameon=False, fontsize=8.5, loc="best")
