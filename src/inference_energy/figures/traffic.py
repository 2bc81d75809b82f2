"""What simulated waiting costs."""

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
    colours,
    error_bars,
    geometric_mean,
    key_above,
    log_axis,
    shapes,
    spread,
)
from inference_energy.models.traffic import ALL, ENERGY, OVER_IDLE, OVER_NONE, PER_SECOND, POWER
from inference_energy.units import axis_label

N_PANELS_MAX = 6
_CELL = ["model", "precision", "batch_size"]


def waiting(runs: pd.DataFrame, rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against the mean waiting before a batch, a panel a model and batch size.

    Parameters
    ----------
    runs : DataFrame
        Runs with numbers and the columns ``wait_s`` and ``series``. The panels are the models,
        precisions and batch sizes with most runs that wait.
    rows : DataFrame
        Table `traffic`: its slope is drawn from the runs without waiting.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY, "wait_s"])
    counts = shown[shown["wait_s"] > 0].groupby(_CELL).size().sort_values(ascending=False, kind="stable")
    if counts.empty:
        return blank(title)
    cells = sorted(counts.index[:N_PANELS_MAX])
    n_columns = min(2, len(cells))
    n_rows = -(-len(cells) // n_columns)
    figure, grid = canvas(title, caption, height_in=0.5 + 2.4 * n_rows, nrows=n_rows, ncols=n_columns)
    palette, marks = colours(shown["series"]), shapes(shown["series"])
    slopes = rows[(rows["quantity"] == PER_SECOND) & rows["estimate"].notna()].set_index(_CELL)["estimate"]
    for axes in grid.ravel()[len(cells) :]:
        axes.set_axis_off()
    for axes, (model, precision, batch) in zip(grid.ravel(), cells, strict=False):
        of_cell = shown[(shown["model"] == model) & (shown["precision"] == precision) & (shown["batch_size"] == batch)]
        longest = 1.1 * float(of_cell["wait_s"].max())
        for series, of_series in of_cell.groupby("series"):
            axes.plot(
                of_series["wait_s"], of_series[ENERGY].astype(float), marks[series][0], color=palette[series], **POINT
            )
        start = of_cell.loc[of_cell["wait_s"] == 0, ENERGY]
        if len(start) and (model, precision, batch) in slopes.index:
            level = geometric_mean(start)
            slope = float(slopes[model, precision, batch])
            axes.plot([0, longest], [level, level + slope * longest], color=GREY, linewidth=1)
            axes.annotate(
                f"{slope * 1000:.3g} mJ per token\nfor each second",
                (0.5 * longest, level + 0.5 * slope * longest),
                (8, -4),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=GREY,
            )
        axes.set_xlim(-0.05 * longest, longest)
        axes.set_ylim(0, 1.15 * float(of_cell[ENERGY].max()))
        axes.set(xlabel="Mean waiting before a batch (s)", ylabel=axis_label(ENERGY))
        axes.set_title(f"{model} {precision}, batch {batch}", fontsize=10, loc="left")
    key_above(grid, palette, marks)
    return figure


def waiting_power(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy over no waiting, and the power of waiting beside that of the idle GPU.

    Parameters
    ----------
    rows : DataFrame
        Table `traffic`; lines are kinds of waiting, then models and batch sizes.
    title, caption : str
        The finding and the small print.
    """
    named = rows.assign(
        label=[
            row["waiting"] if row["model"] == "all" else f"{row['model']} {row['precision']}, batch {row['batch_size']}"
            for _, row in rows.iterrows()
        ]
    )
    pooled = named[(named["setting"] == "all") & named["estimate"].notna()]
    labels = list(dict.fromkeys(pooled.loc[pooled["quantity"].isin([OVER_NONE, POWER]), "label"]))
    if not labels:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.0 + 0.34 * len(labels), ncols=2, sharey=True)
    for axes, quantity in zip(grid[0], (OVER_NONE, POWER), strict=True):
        for place, label in enumerate(labels):
            of_label = pooled[pooled["label"] == label].set_index("quantity")
            if quantity == OVER_NONE:
                _settings(axes, named[(named["quantity"] == OVER_NONE) & (named["setting"] != "all")], label, place)
            if quantity not in of_label.index:
                continue
            colour = COLOURS[0] if (of_label["model"] == "all").all() else COLOURS[1]
            one = of_label.loc[[quantity]]
            bar = error_bars(one, "estimate")
            axes.errorbar(one["estimate"], [place], xerr=bar, fmt="D", color=colour, capsize=3, markersize=5)
            if quantity == POWER and OVER_IDLE in of_label.index:
                idle = float(one["estimate"].iloc[0]) / float(of_label.loc[OVER_IDLE, "estimate"])
                axes.plot(idle, place, "|", color="black", markersize=14, markeredgewidth=2)
        axes.grid(visible=False, axis="y")
    left, right = grid[0]
    left.axvline(1, color=GREY, linewidth=1)
    log_axis(left.xaxis, [0.9, *named.loc[named["quantity"] == OVER_NONE, "estimate"].dropna()])
    left.set_yticks(range(len(labels)), labels, fontsize=8.5)
    left.set_ylim(len(labels) - 0.5, -0.6)
    left.set_xlabel("Energy per token over no waiting (ratio)", fontsize=9)
    right.set_xlim(left=0)
    right.set_xlabel("Power of waiting (W); bar: idle, model loaded", fontsize=9)
    return figure


def _settings(axes: Axes, single: pd.DataFrame, label: str, place: int) -> None:
    """The settings behind one line."""
    cell = single["model"] + " " + single["precision"] + ", batch " + single["batch_size"].astype("string")
    kind = single["waiting"].eq(label) | (label == ALL)
    values = single.loc[cell.eq(label) | kind, "estimate"].astype(float)
    axes.plot(values, place + spread(len(values), 0.4), "o", color=GREY, **{**POINT, "alpha": 0.4})
