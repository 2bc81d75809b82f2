"""Requests that arrive: how late they leave, energy and latency against load, what runs meanwhile, and the floor."""

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
    ticks_at,
)
from inference_energy.models.arrivals import LATE_AIM_S, PATTERNS
from inference_energy.units import axis_label

ENERGY = "energy_j_per_request"
LATENCIES = ("time_to_first_token_p95_s", "inter_token_latency_p95_s")
LOAD = "Requests a second: planned, or (all at once) answered"
_PANELS = {"n_running": "Sequences running", "n_waiting": "Sequences waiting", "power_w": "Power (W)"}


def lateness(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Share of requests that left within a time after their planned arrival, a line a pattern.

    Parameters
    ----------
    rows : DataFrame
        Requests with ``late_s`` and ``series``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.2)
    axes, palette, marks = grid[0, 0], colours(PATTERNS.values()), shapes(PATTERNS.values())
    for series in [name for name in PATTERNS.values() if (rows["series"] == name).any()]:
        late_ms = np.sort(1e3 * rows.loc[rows["series"] == series, "late_s"].astype(float).to_numpy())
        share = np.arange(1, len(late_ms) + 1) / len(late_ms)
        axes.step(late_ms.clip(min=0.01), share, marks[series][1], where="post", color=palette[series], label=series)
    log_axis(axes.xaxis, [0.01, 10.0])
    axes.set_xlim(0.01, max(10.0, 1.2e3 * float(rows["late_s"].max())))
    axes.axvline(1e3 * LATE_AIM_S, color=GREY, linewidth=1)
    axes.annotate(
        "aim: median below", (1e3 * LATE_AIM_S, 0.06), (4, 0), textcoords="offset points", fontsize=8, color=GREY
    )
    axes.axhline(0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.set(xlabel="Sent after planned arrival (ms)", ylabel="Share of requests", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def energy(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy of a request against load, a line a pattern; open marks: a limit of the KV cache.

    Parameters
    ----------
    curve, runs : DataFrame
        Tables `arrival_curve` and `arrival_runs` with ``series``, ``load_requests_per_s`` and ``limited``.
    title, caption : str
        The finding and the small print.
    """
    if curve.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.2)
    ends = _against_load(grid[0, 0], curve, runs, ENERGY)
    if len(curve) == 1:  # a single point spans no axis
        grid[0, 0].set_ylim(0.5 * float(curve[ENERGY].iloc[0]), 2 * float(curve[ENERGY].iloc[0]))
    label_ends(grid[0, 0], ends, gap=0.06)
    grid[0, 0].set_xlabel(LOAD)
    return figure


def latency(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Time to the first token and gap between tokens (95th percentiles) against load, with the limits.

    Parameters
    ----------
    curve, runs, title, caption
        As of :func:`energy`.
    """
    if curve.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.9, ncols=2)
    for axes, quantity in zip(grid[0], LATENCIES, strict=True):
        limit = float(curve[quantity.replace("p95", "max")].iloc[0])
        _against_load(axes, curve, runs, quantity, limit)
        axes.axhline(limit, color=COLOURS[6], linewidth=1, linestyle="--")
        axes.annotate("limit", (0.01, limit), (0, 3), xycoords=("axes fraction", "data"), fontsize=8, **_OFFSET)
        axes.set_xlabel("Requests a second", fontsize=9)
    shown = [name for name in PATTERNS.values() if (curve["series"] == name).any()]
    palette, marks = colours(PATTERNS.values()), shapes(PATTERNS.values())
    key_above(grid, {name: palette[name] for name in shown}, marks)
    return figure


_OFFSET: dict[str, Any] = {"textcoords": "offset points"}


def _against_load(
    axes: Axes, curve: pd.DataFrame, runs: pd.DataFrame, quantity: str, limit: float | None = None
) -> list[tuple[float, float, str, str]]:
    """Points, means and intervals of one quantity; the last point of every line, with its name and colour."""
    palette, marks = colours(PATTERNS.values()), shapes(PATTERNS.values())
    ends: dict[str, tuple[float, float, str, str]] = {}
    for (named, limited), points in curve.groupby(["series", "limited"], sort=False):
        series = str(named)
        colour, (marker, line) = palette[series], marks[series]
        points = points.dropna(subset=[quantity]).sort_values("load_requests_per_s")
        if points.empty:
            continue
        of_points = runs[runs["setting"].isin(points["setting"])]
        axes.plot(of_points["load_requests_per_s"], of_points[quantity], marker, color=colour, **POINT)
        look: dict[str, Any] = {"markerfacecolor": "white", "markersize": 8} if limited else {"markersize": 6}
        axes.errorbar(
            points["load_requests_per_s"],
            points[quantity],
            yerr=error_bars(points, quantity),
            fmt=marker + (":" if limited else line),
            color=colour,
            capsize=3,
            linewidth=1.2,
            **look,
        )
        last = points.iloc[-1]
        name = f"{series}, small cache" if limited else series
        ends[name] = (float(last["load_requests_per_s"]), float(last[quantity]), name, colour)
    planned = curve["arrival_requests_per_s"].dropna()
    ticks_at(axes.xaxis, (planned if len(planned) else curve["load_requests_per_s"]).astype(float).round())
    shown = [*curve[quantity].dropna(), *curve[f"{quantity}_low"].dropna(), *curve[f"{quantity}_high"].dropna()]
    log_axis(axes.yaxis, [*shown, *([limit] if limit else [])])
    axes.set_ylabel(_label(quantity), fontsize=9)
    return list(ends.values())


def _label(quantity: str) -> str:
    """An axis label that a reader can say."""
    words = {
        ENERGY: "Energy per request (J)",
        LATENCIES[0]: "Time to first token,\n95th percentile (s)",
        LATENCIES[1]: "Mean gap between tokens,\n95th percentile (s)",
    }
    return words.get(quantity) or axis_label(quantity)


def timelines(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Sequences running and waiting, and power, over a pass: a column a setting.

    Parameters
    ----------
    rows : DataFrame
        Columns ``series``, ``quantity``, ``time_s``, ``value``.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["value"])
    columns = list(dict.fromkeys(shown["series"]))
    panels = [name for name in _PANELS if (shown["quantity"] == name).any()]
    if not columns:
        return blank(title)
    grids: dict[str, Any] = {"nrows": len(panels), "ncols": len(columns), "sharey": "row", "sharex": "col"}
    figure, grid = canvas(title, caption, height_in=0.6 + 1.35 * len(panels), **grids)
    for row, quantity in enumerate(panels):
        for column, series in enumerate(columns):
            axes = grid[row, column]
            line = shown[(shown["series"] == series) & (shown["quantity"] == quantity)].sort_values("time_s")
            colour = COLOURS[row]
            axes.plot(line["time_s"].astype(float), line["value"].astype(float), "-", color=colour, linewidth=1)
            axes.set_ylim(0, max(1.0, 1.08 * float(shown.loc[shown["quantity"] == quantity, "value"].max())))
            if row == 0:
                axes.set_title(series, fontsize=9.5, loc="left")
            if row == len(panels) - 1:
                axes.set_xlabel("Since the pass began (s)", fontsize=9)
        grid[row, 0].set_ylabel(_PANELS[quantity], fontsize=9)
    return figure


def floor(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Measured energy of a prompt over the floor and over arithmetic at the limit, a point a run.

    Parameters
    ----------
    rows : DataFrame
        Table `energy_floor` with ``series``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.0, ncols=2, sharey=True)
    palette, marks = colours(rows["series"]), shapes(rows["series"])
    both = (
        ("energy_floor_j_per_prompt", "Floor: least time at idle power (J)"),
        ("arithmetic_energy_j_per_prompt", "Arithmetic at peak and power limit (J)"),
    )
    for axes, (name, words) in zip(grid[0], both, strict=True):
        for named, of_series in rows.groupby("series"):
            series = str(named)
            axes.plot(
                of_series[name].astype(float),
                of_series["energy_j_per_prompt"].astype(float),
                marks[series][0],
                color=palette[series],
                label=series,
                **POINT,
            )
        ends = np.array([rows[name].min() / 1.5, rows[name].max() * 1.5], dtype=float)
        axes.plot(ends, ends, "-", color=COLOURS[6], linewidth=1)
        middle = float(np.sqrt(ends.prod()))
        axes.annotate("not below this line", (middle, middle), (8, -12), fontsize=8, color=COLOURS[6], **_OFFSET)
        log_axis(axes.xaxis, rows[name])
        log_axis(axes.yaxis, [*rows["energy_j_per_prompt"], *rows[name]])
        axes.set_xlabel(words, fontsize=9)
    grid[0, 0].set_ylabel("Measured energy per prompt (J)", fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure
