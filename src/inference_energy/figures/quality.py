"""Figures on the quality of a campaign: time, instrument, ledger, spread, one trace."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from inference_energy.figures.style import COLOURS, GREY, LIGHT, blank, canvas, colours, spread, ticks_at
from inference_energy.units import axis_label

PHASES: dict[str, tuple[str, str]] = {
    "measured": ("measured windows", COLOURS[0]),
    "warmup": ("warm-up", COLOURS[4]),
    "load": ("loading", COLOURS[3]),
    "idle": ("idle", COLOURS[5]),
    "rest": ("rest of runs", "#a8a8a8"),
    "between_runs": ("between runs", LIGHT),
}
SHADES = {"idle": COLOURS[5], "load": COLOURS[3], "warmup": COLOURS[4], "window": COLOURS[0], "idle_loaded": COLOURS[2]}
PHASE_WORDS = {"idle": "idle", "load": "load", "warmup": "warm-up", "window": "window", "idle_loaded": "idle, loaded"}


def time_use(quality: pd.DataFrame, title: str, caption: str) -> Figure:
    """Where the wall seconds of each sitting went, as stacked bars in GPU minutes.

    Parameters
    ----------
    quality : DataFrame
        Table `campaign_quality`.
    title, caption : str
        The finding and the small print.
    """
    rows = _sittings(quality)
    if rows.empty or rows["measured_fraction"].isna().all():
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.1 + 0.42 * len(rows))
    axes = grid[0, 0]
    left = np.zeros(len(rows))
    minutes = rows["gpu_wall_s"].to_numpy(float) / 60
    for phase, (_, colour) in PHASES.items():
        width = rows[f"{phase}_fraction"].fillna(0).to_numpy(float) * minutes
        axes.barh(range(len(rows)), width, left=left, color=colour, edgecolor="white", linewidth=0.8)
        if phase == "measured":
            for index, share in enumerate(rows["measured_fraction"]):
                axes.text(width[index] / 2, index, f"R = {share:.2f}", ha="center", va="center", color="white")
        left += width
    _sittings_down(axes, rows, "Time at the machine, summed over its GPUs (minutes)", list(PHASES.values()))
    return figure


def counter_against_power(windows: pd.DataFrame, title: str, caption: str) -> Figure:
    """The counter's energy over integrated instant power in every window, by mean power.

    Parameters
    ----------
    windows : DataFrame
        Table `windows`.
    title, caption : str
        The finding and the small print.
    """
    shown = windows.dropna(subset=["counter_over_power_ratio", "power_mean_w"])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.6, ncols=2, sharey=True, width_ratios=(4, 1))
    points, distribution = grid[0]
    ratios = shown["counter_over_power_ratio"].to_numpy(float)
    for axes in (points, distribution):
        axes.axhspan(0.99, 1.01, color=COLOURS[2], alpha=0.14, linewidth=0)
        axes.axhline(1.0, color=COLOURS[2], linewidth=1)
    points.plot(
        shown["power_mean_w"].astype(float), ratios, "o", color=COLOURS[0], alpha=0.45, markersize=4, markeredgewidth=0
    )
    points.set(xlabel=axis_label("power_mean_w"), ylabel="Counter over integrated power (ratio)")
    points.text(
        1, 1.0, "band: ± 1 %", color=COLOURS[2], va="bottom", ha="right", fontsize=9, transform=points.transAxes
    )
    distribution.hist(ratios, bins=40, orientation="horizontal", color=COLOURS[0])
    distribution.axhline(float(np.median(ratios)), color="black", linewidth=1.2)
    distribution.set_title(f"median {np.median(ratios):.4f}", fontsize=9)
    distribution.set_xlabel("Number of windows")
    furthest = max(0.013, float(np.abs(ratios - 1).max()) * 1.1)
    points.set_ylim(1 - furthest, 1 + furthest)
    return figure


def ledger(quality: pd.DataFrame, title: str, caption: str) -> Figure:
    """The parts of each sitting's energy against the counter's difference (black line), kJ.

    Parameters
    ----------
    quality : DataFrame
        Table `campaign_quality`.
    title, caption : str
        The finding and the small print.
    """
    rows = _sittings(quality)
    rows = rows.dropna(subset=["counter_energy_j", "ledger_closure_fraction"])
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.3 + 0.5 * len(rows))
    axes = grid[0, 0]
    left = np.zeros(len(rows))
    names = {"window": PHASES["measured"], **{phase: PHASES[phase] for phase in ("warmup", "load", "idle")}}
    names["rest"] = ("rest", LIGHT)
    for phase, (_, colour) in names.items():
        width = rows[f"{phase}_energy_j"].fillna(0).to_numpy(float) / 1e3
        axes.barh(range(len(rows)), width, left=left, height=0.6, color=colour, edgecolor="white", linewidth=0.8)
        left += width
    for index, (_, row) in enumerate(rows.iterrows()):
        counter = row["counter_energy_j"] / 1e3
        axes.plot([counter, counter], [index - 0.4, index + 0.4], color="black", linewidth=2)
        whole, within = (_percent(row[f"{name}_closure_fraction"]) for name in ("ledger", "runs"))
        axes.annotate(
            f"parts − counter: {whole}\nwithin runs: {within}",
            (max(counter, left[index]), index),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(0, max(left.max(), rows["counter_energy_j"].max() / 1e3) * 1.36)
    _sittings_down(
        axes, rows, "Energy of all metered devices (kJ); black line: difference of the counter", list(names.values())
    )
    return figure


def window_spread(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """The CV between the windows of each run, against batch size and by model.

    Parameters
    ----------
    runs : DataFrame
        Table `runs`, those with numbers, a steady warm-up and no simulated waiting.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=["window_cv"])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.4)
    axes = grid[0, 0]
    palette = colours(shown["model"])
    for index, model in enumerate(palette):
        rows = shown[shown["model"] == model]
        offset = 1 + 0.05 * (index - (len(palette) - 1) / 2) * 2
        batch = rows["batch_size"].to_numpy(float) * offset * (1 + spread(len(rows), 0.05))
        axes.plot(
            batch,
            rows["window_cv"].to_numpy(float) * 100,
            "o",
            color=palette[model],
            alpha=0.6,
            label=model,
            markersize=5,
            markeredgewidth=0,
        )
    median = float(shown["window_cv"].median()) * 100
    axes.axhline(median, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        f"median {median:.2g} %",
        (1, median),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=GREY,
    )
    ticks_at(axes.xaxis, shown["batch_size"].astype(float))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="Batch size", ylabel="CV between windows of a run (%)")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handletextpad=0.1, borderaxespad=0)
    return figure


def trace(samples: pd.DataFrame, intervals: pd.DataFrame, title: str, caption: str) -> Figure:
    """Power over one run with its intervals shaded.

    Parameters
    ----------
    samples, intervals : DataFrame
        Tables `samples` and `intervals`, the rows of one run.
    title, caption : str
        The finding and the small print.
    """
    if samples.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.3)
    axes = grid[0, 0]
    ordered = samples.sort_values("time_s")
    time = ordered["time_s"].to_numpy(float)
    axes.plot(time, ordered["power_w"].to_numpy(float), color="black", linewidth=1.1)
    length, top = time[-1] - time[0], float(ordered["power_w"].max()) * 1.3
    for _, row in intervals[intervals["phase"].isin(list(SHADES))].iterrows():
        axes.axvspan(row["opened_s"], row["closed_s"], color=SHADES[row["phase"]], alpha=0.22, linewidth=0)
        name = PHASE_WORDS[row["phase"]] + (f" {row['index'] + 1}" if row["phase"] == "window" else "")
        wide = row["closed_s"] - row["opened_s"] > 0.011 * length * len(name)
        axes.text(
            (row["opened_s"] + row["closed_s"]) / 2,
            top * 0.985,
            name,
            ha="center",
            va="top",
            fontsize=9,
            rotation=0 if wide else 90,
        )
    axes.set_ylim(0, top)
    axes.set_xlim(min(time[0], 0), time[-1])
    axes.set(xlabel="Time since the run started (s)", ylabel=axis_label("power_w"))
    return figure


def _percent(fraction: float) -> str:
    """``+0.25 %``; never ``-0.00 %``."""
    return f"{round(fraction * 100, 2) + 0.0:+.2f} %" if np.isfinite(fraction) else "unknown"


def _sittings(quality: pd.DataFrame) -> pd.DataFrame:
    rows = quality[quality["sitting"] != "all"]
    return rows if len(rows) else quality


def _sitting_names(rows: pd.DataFrame) -> list[str]:
    return [f"{sitting}\n{n} runs" for sitting, n in zip(rows["sitting"], rows["n_runs"], strict=True)]


def _sittings_down(axes: Axes, rows: pd.DataFrame, xlabel: str, entries: list[tuple[str, str]]) -> None:
    """One bar a sitting, the first on top, with the key of its parts above."""
    axes.set_yticks(range(len(rows)), _sitting_names(rows))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(xlabel)
    _key_above(axes, entries)


def _key_above(axes: Axes, entries: list[tuple[str, str]]) -> None:
    handles = [Patch(color=colour, label=name) for name, colour in entries]
    axes.legend(
        handles=handles,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(entries),
        fontsize=9,
        handlelength=1,
        handleheight=1,
        handletextpad=0.5,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
