"""Several GPUs beside one, under three accountings."""

from __future__ import annotations

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
from inference_energy.models.parallelism import ENERGY_RATIO, THROUGHPUT_RATIO

KINDS = {
    "replicas": ("replicas", COLOURS[0], "o", "-"),
    "replicas_duplicated": ("duplicated", COLOURS[1], "s", "--"),
    "tensor": ("tensor", COLOURS[2], "^", "-."),
}
COLUMNS = {
    "generated": "per generated token,\neach GPU once",
    "answered": "per answered token,\neach GPU once",
    "published": "as published: machine once\nper process, answers",
}
ROWS = {
    ENERGY_RATIO: "Energy per token over\nthat on one GPU (ratio)",
    THROUGHPUT_RATIO: "Tokens per second over\none GPU's (ratio)",
}


def several_gpus(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy and throughput over those on one GPU against the number of GPUs, a column for each accounting.

    Parameters
    ----------
    rows : DataFrame
        Table `parallelism`. A small mark is a setting, a large one with its interval all settings; a
        cross is what the published study says.
    title, caption : str
        The finding and the small print.
    """
    shown = rows[rows["quantity"].isin(list(ROWS))].dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=6.4, nrows=len(ROWS), ncols=len(COLUMNS), sharex=True, sharey="row")
    labels: list[tuple[Axes, list[tuple[float, float, str, str]]]] = []
    for across, (quantity, y_label) in zip(grid, ROWS.items(), strict=True):
        for axes, (accounting, words) in zip(across, COLUMNS.items(), strict=True):
            of_panel = shown[(shown["quantity"] == quantity) & (shown["accounting"] == accounting)]
            axes.plot([1, 4], [1, 4], color=GREY, linestyle=":", linewidth=1)
            axes.axhline(1, color=GREY, linewidth=1)
            axes.plot(1, 1, "o", color="black", markersize=5)
            ends = _curves(axes, of_panel)
            log_axis(axes.yaxis, [0.5, 1, *shown.loc[shown["quantity"] == quantity, "estimate"]])
            if quantity == ENERGY_RATIO:
                axes.set_title(words, fontsize=9.5, loc="left")
            else:
                axes.set_xlabel("GPUs that take part")
            ticks_at(axes.xaxis, [1, 2, 3, 4])  # both axes logarithmic: growth in proportion is a straight line
            axes.set_xlim(0.9, 4.5)
            labels.append((axes, ends))
        across[0].set_ylabel(y_label)
    for axes, ends in labels:  # once all points are there: panels share an axis
        label_ends(axes, ends, gap=0.09)
    where = {"textcoords": "offset points", "va": "top", "color": GREY, "fontsize": 8}
    grid[1, 1].annotate("in proportion\nto the GPUs", (2.6, 2.6), (6, -4), **where)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> list[tuple[float, float, str, str]]:
    """Settings and their means of one panel; where to write the names."""
    ends = []
    for place, (kind, (words, colour, marker, line)) in enumerate(KINDS.items()):
        of_kind = rows[rows["parallelism"] == kind].sort_values("n_gpus")
        every = of_kind[of_kind["setting"] == "all"]
        if every.empty:
            continue
        aside = 1.03 ** (place - 1)
        single = of_kind[of_kind["setting"] != "all"]
        axes.plot(single["n_gpus"].astype(float) * aside * 1.02, single["estimate"], marker, color=colour, **POINT)
        axes.errorbar(
            every["n_gpus"].astype(float) * aside,
            every["estimate"],
            error_bars(every, "estimate"),
            color=colour,
            fmt=marker + line,
            markerfacecolor="white",
            markersize=7,
            capsize=3,
        )
        ends.append((float(every["n_gpus"].iloc[-1]) * aside, float(every["estimate"].iloc[-1]), words, colour))
        said = every.dropna(subset=["published_ratio"])
        if len(said):
            axes.plot(said["n_gpus"].astype(float) * aside, said["published_ratio"], "x", color="black", markersize=7)
            ends.append((float(said["n_gpus"].iloc[-1]), float(said["published_ratio"].iloc[-1]), "published", "black"))
    return ends
