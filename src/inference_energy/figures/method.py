"""Figures on method: warm-up and launcher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from inference_energy.figures.style import COLOURS, GREY, blank, canvas, error_bars, log_axis
from inference_energy.units import level_words

PROTOCOLS = {"forward_passes": "three forward passes", "steady": "until iterations agree"}
STATES = {True: ("measured", COLOURS[0], COLOURS[0]), False: ("warm-up", COLOURS[1], "white")}
VERDICTS = {"equivalent": COLOURS[2], "different": COLOURS[1], "undecided": GREY}
STEP = "duration_s_per_step"


def warm_up(iterations: pd.DataFrame, title: str, caption: str) -> Figure:
    """Milliseconds a decoding step of every iteration in the order it ran.

    One column per attention kernel, one row per protocol. Open points are warm-up, filled points
    were measured: after three forward passes, measuring starts with the run's first iteration.

    Parameters
    ----------
    iterations : DataFrame
        Table `iterations`, those of the study on warm-up.
    title, caption : str
        The finding and the small print.
    """
    shown = iterations.dropna(subset=[STEP])
    if shown.empty:
        return blank(title)
    kernels = sorted(shown["attention"].unique())
    protocols = [name for name in PROTOCOLS if name in set(shown["warmup"])]
    figure, grid = canvas(
        title,
        caption,
        height_in=0.5 + 2.5 * len(protocols),
        nrows=len(protocols),
        ncols=len(kernels),
        sharex=True,
        sharey=True,
    )
    for row, protocol in zip(grid, protocols, strict=True):
        row[0].set_ylabel("Duration per decoding step (ms)")
        for axes, kernel in zip(row, kernels, strict=True):
            chosen = shown[(shown["attention"] == kernel) & (shown["warmup"] == protocol)]
            for _, run in chosen.groupby(["setting", "cycle"]):
                _iterations(axes, run.sort_values("index"))
            log_axis(axes.yaxis, shown[STEP].astype(float) * 1e3)
            axes.set_title(f"{level_words(kernel)}, {PROTOCOLS[protocol]}", fontsize=9, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("Iteration, as it ran")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color=edge, marker="o", linewidth=0, markerfacecolor=face, label=word)
        for word, edge, face in STATES.values()
    ]
    grid[0, -1].legend(handles=handles, frameon=False, loc="upper right", handletextpad=0.1)
    return figure


def _iterations(axes: Axes, run: pd.DataFrame) -> None:
    number, step = run["index"].astype(float) + 1, run[STEP].astype(float) * 1e3
    axes.plot(number, step, color=GREY, linewidth=0.6, alpha=0.6)
    measured = (run["phase"] == "window").to_numpy(bool)
    for state, (_, edge, face) in STATES.items():
        chosen = measured == state
        axes.plot(number[chosen], step[chosen], "o", color=edge, markerfacecolor=face, markersize=4.5)


def equivalence(rows: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Ratio of two levels of a factor with its interval, beside the margin that counts as equal.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `equivalence` of one factor and quantity.
    runs : DataFrame
        Table `runs`; the ratio of each cycle is drawn as a faint point.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["level_over_baseline_ratio"]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.2 + 0.5 * len(shown))
    axes = grid[0, 0]
    margin = float(shown["margin_fraction"].iloc[0])
    axes.axvspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
    axes.axvline(1, color=COLOURS[2], linewidth=1)
    axes.annotate(
        f"counts as equal: ± {margin * 100:g} %",
        (1, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        color=COLOURS[2],
        fontsize=9,
    )
    for place, (_, row) in enumerate(shown.iterrows()):
        _comparison(axes, place, row, error_bars(shown.iloc[[place]], "level_over_baseline_ratio"), _ratios(runs, row))
    axes.set_yticks(
        range(len(shown)),
        [f"{row['model']} {row['precision']}\nbatch {row['batch_size']}" for _, row in shown.iterrows()],
    )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    first = shown.iloc[0]
    axes.set_xlabel(
        f"Energy per output token: {first['level']} over {first['baseline']} (ratio); small points: single cycles"
    )
    return figure


def _comparison(axes: Axes, place: int, row: pd.Series, bar: np.ndarray, per_cycle: list[float]) -> None:
    colour = VERDICTS.get(row["verdict"], GREY)
    style: dict[str, Any] = {"color": "black", "alpha": 0.4, "markersize": 4, "markeredgewidth": 0}
    axes.plot(per_cycle, [place + 0.22] * len(per_cycle), "o", **style)
    axes.errorbar(row["level_over_baseline_ratio"], place, xerr=bar, fmt="D", color=colour, capsize=4)
    where: dict[str, Any] = {
        "xy": (1, place),
        "xytext": (5, 0),
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
    }
    axes.annotate(row["verdict"], **where, va="center", color=colour, fontsize=9)


def _ratios(runs: pd.DataFrame, row: pd.Series) -> list[float]:
    chosen = runs[(runs["study"] == row["study"]) & runs[row["quantity"]].notna()]
    for name in ("model", "precision", "batch_size", "attention"):
        chosen = chosen[(chosen[name] == row[name]).fillna(value=False).astype(bool)]
    by_cycle = chosen.pivot_table(index="cycle", columns=row["factor"], values=row["quantity"], aggfunc="mean")
    if not {row["level"], row["baseline"]} <= set(by_cycle.columns):
        return []
    return [float(ratio) for ratio in (by_cycle[row["level"]] / by_cycle[row["baseline"]]).dropna()]
