"""What trackers of published records read, and what their way of counting makes of a token's energy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import COLOURS, GREY, blank, canvas, error_bars, label_ends, log_axis

#: Accountings of `audit_energy` that are drawn: name, colour, marker, line.
ENERGIES = {
    "published": ("as published", COLOURS[1], "s", "--"),
    "once_per_counted": ("machine once,\ntokens of one", COLOURS[3], "D", ":"),
    "once_per_generated": ("machine once,\ntokens of all", COLOURS[0], "o", "-"),
    "working_gpus_per_generated": ("GPUs that work,\ntokens of all", COLOURS[2], "^", "-."),
}
#: The same of `audit_beside_rows`.
BESIDE = {
    "published": ("as published", COLOURS[1], "s", "--"),
    "answered": ("GPUs that work,\ntokens of one", COLOURS[3], "D", ":"),
    "generated": ("GPUs that work,\ntokens of all", COLOURS[2], "^", "-."),
}
_ENERGY = "energy_j_per_output_token"


def audit_power(trackers: pd.DataFrame, title: str, caption: str) -> Figure:
    """What one process's tracker read against the number of processes, with what cards can draw.

    Parameters
    ----------
    trackers : DataFrame
        Table `audit_trackers`.
    title, caption : str
        The finding and the small print.
    """
    if trackers.empty:
        return blank(title)
    groups = sorted(trackers["group"].unique())
    figure, grid = canvas(title, caption, height_in=4.4, ncols=len(groups), sharex=True, sharey=True)
    for axes, group in zip(grid[0], groups, strict=True):
        rows = trackers[trackers["group"] == group].sort_values("n_processes")
        n_gpus, limit = int(rows["n_gpus"].iloc[0]), float(rows["power_limit_w"].iloc[0])
        n = rows["n_processes"].to_numpy(float)
        axes.axhline(limit, color=GREY, linestyle="--", linewidth=1)
        axes.plot([1, n_gpus], [limit, n_gpus * limit], color=GREY, linestyle="--", linewidth=1)
        axes.axhline(n_gpus * limit, color=GREY, linestyle="--", linewidth=1)
        line = np.array([0.0, n.max()])
        fit = rows[["base_power_w", "added_power_w"]].iloc[0]
        axes.plot(line, fit["base_power_w"] + fit["added_power_w"] * line, color=COLOURS[0], linewidth=1)
        axes.vlines(n, rows["power_least_w"], rows["power_most_w"], color=COLOURS[0], linewidth=1.2, alpha=0.6)
        axes.errorbar(
            n, rows["power_w"], error_bars(rows, "power_w"), fmt="o", color=COLOURS[0], markersize=8, capsize=4
        )
        for _, row in rows.iterrows():
            axes.annotate(
                f"{row['power_w']:.0f} W",
                (row["n_processes"], row["power_w"]),
                (7, -13),
                textcoords="offset points",
                fontsize=9,
                color=COLOURS[0],
            )
        axes.set_title(
            f"{group.rpartition('/')[2]} ({', '.join(str(k) for k in rows['n_runs'])} runs)", fontsize=10, loc="left"
        )
        axes.set_xlim(-0.15, n_gpus + 0.7)
        axes.set_ylim(0, n_gpus * limit * 1.12)
        axes.set_xticks(range(n_gpus + 1))
        axes.set_xlabel("Processes, each on a GPU of its own")
    first, rows = grid[0, 0], trackers.iloc[0]
    n_gpus, limit = int(rows["n_gpus"]), float(rows["power_limit_w"])
    for height, place, words in (
        (limit, 2.6, "limit of one card"),
        (n_gpus * limit, 0.0, f"limit of all {n_gpus} cards"),
    ):
        first.annotate(words, (place, height), (0, 3), textcoords="offset points", fontsize=8.5, color=GREY)
    first.annotate(
        "limit of as many cards\nas processes",
        (2.3, 2.3 * limit),
        (-6, 6),
        textcoords="offset points",
        fontsize=8.5,
        color=GREY,
        ha="right",
    )
    first.set_ylabel("GPU power that one tracker read (W)")
    return figure


def audit_energy(energy: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against the number of processes under four accountings.

    Parameters
    ----------
    energy : DataFrame
        Table `audit_energy`.
    title, caption : str
        The finding and the small print.
    """
    shown = energy[energy["accounting"].isin(list(ENERGIES))]
    if shown.empty:
        return blank(title)
    groups = sorted(shown["group"].unique())
    figure, grid = canvas(title, caption, height_in=4.6, ncols=len(groups), sharex=True, sharey=True)
    every = []
    for axes, group in zip(grid[0], groups, strict=True):
        rows = shown[shown["group"] == group]
        every.append((axes, _lines(axes, rows, ENERGIES, _ENERGY, " J")))
        axes.set_title(group.rpartition("/")[2], fontsize=10, loc="left")
    _finish(every, "Energy per output token (J)", shown[_ENERGY], shown["n_processes"])
    return figure


def audit_beside(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per token over that of one process: published records and this campaign, a panel each.

    Parameters
    ----------
    rows : DataFrame
        From ``policy.audit_beside_rows``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    panels = list(dict.fromkeys(sorted(rows["records"], key=lambda name: name.startswith("campaign"))))
    figure, grid = canvas(title, caption, height_in=4.6, ncols=len(panels), sharex=True, sharey=True)
    every = []
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.axhline(1, color=GREY, linewidth=1)
        every.append((axes, _lines(axes, rows[rows["records"] == panel], BESIDE, "ratio", "×")))
        axes.set_title(panel[0].upper() + panel[1:], fontsize=10, loc="left")
    _finish(every, "Energy per token over that of one process (ratio)", rows["ratio"], rows["n_processes"])
    return figure


def _lines(
    axes: Axes, rows: pd.DataFrame, styles: dict[str, tuple[str, str, str, str]], y: str, unit: str
) -> list[tuple[float, float, str, str]]:
    """Draw a line for each accounting, and say where each ends and what it is."""
    ends = []
    for name, (words, colour, marker, line) in styles.items():
        of_line = rows[rows["accounting"] == name].dropna(subset=[y]).sort_values("n_processes")
        if of_line.empty:
            continue
        places, values = of_line["n_processes"].to_numpy(float), of_line[y].to_numpy(float)
        axes.errorbar(places, values, error_bars(of_line, y), fmt=marker + line, color=colour, markersize=7, capsize=3)
        ends.append((places[-1], values[-1], f"{_two_digits(values[-1])}{unit}: {words}", colour))
    return ends


def _finish(
    every: list[tuple[Axes, list[tuple[float, float, str, str]]]], label: str, values: pd.Series, processes: pd.Series
) -> None:
    """Axes and labels, once all points are there: panels share them."""
    for axes, _ in every:
        log_axis(axes.yaxis, values)
        axes.set_xticks(sorted({1, *(int(n) for n in processes)}))
        axes.set_xlabel("Processes, each answering all prompts")
    every[0][0].set_ylabel(label)
    for axes, ends in every:
        label_ends(axes, ends, gap=0.11)


def _two_digits(value: float) -> str:
    """``0.23``, ``1.0``, ``9.0``, ``10``."""
    return f"{value:#.2g}".rstrip(".")
