"""Figures on throughput, latency and utilisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    LIGHT,
    blank,
    canvas,
    colours,
    error_bars,
    label_ends,
    log_axis,
    shapes,
    short,
)
from inference_energy.units import axis_label

ENERGY, SPEED = "energy_j_per_output_token", "throughput_tokens_per_s"
INFLECTION = "inflection_throughput_tokens_per_s"
_POINT: dict[str, Any] = {"markersize": 4, "markeredgewidth": 0, "alpha": 0.6, "zorder": 4}


def convexity(curves: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against throughput with both laws; a star marks the inflection.

    Parameters
    ----------
    curves : DataFrame
        Table `throughput`.
    runs : DataFrame
        Rows of table `utilisation` behind it; each is a point.
    title, caption : str
        The finding and the small print.
    """
    fitted = curves.dropna(subset=["fixed_power_w"])
    if fitted.empty:
        return blank(title)
    models = sorted(runs["model"].unique())
    figure, grid = canvas(title, caption, height_in=4.4, ncols=len(models), sharex=True, sharey=True)
    palette, marks = colours(runs["precision"]), shapes(runs["precision"])
    stars = fitted[INFLECTION].where(fitted[INFLECTION] < 10 * fitted["throughput_max_tokens_per_s"])
    fitted = fitted.assign(star=stars)
    every: list[list[tuple[float, float, str, str]]] = [[] for _ in models]
    for key, points in runs.groupby(["model", "precision"]):
        model, precision = map(str, key)
        place, colour = models.index(model), palette[precision]
        axes, ordered = grid[0, place], points.sort_values(SPEED)
        axes.plot(ordered[SPEED], ordered[ENERGY], marks[precision][0], color=colour, **_POINT)
        end = (float(ordered[SPEED].iloc[-1]), float(ordered[ENERGY].iloc[-1]))
        rows = fitted[(fitted["model"] == model) & (fitted["precision"] == precision)]
        for _, row in rows.iterrows():
            end = _laws(axes, row, row["star"], colour)
        every[place].append((*end, precision, colour))
    for axes, model, ends in zip(grid[0], models, every, strict=True):  # once all points are there: panels share axes
        axes.set_title(model, fontsize=10, loc="left")
        log_axis(axes.xaxis, [*runs[SPEED], *stars.dropna()])
        if runs[SPEED].max() > 30 * runs[SPEED].min():  # narrow panels: decades only
            axes.xaxis.set_major_locator(LogLocator(numticks=30))
        log_axis(axes.yaxis, runs[ENERGY])
        axes.set_xlabel(axis_label(SPEED))
        label_ends(axes, ends)
    grid[0, 0].set_ylabel(axis_label(ENERGY))
    text = "line: P₀/θ + e (dashed: beyond what was measured)\ndotted: power law\n★: P₀/θ = e, with its interval"
    _note(grid[0, -1], text)
    return figure


def _note(axes: Axes, text: str) -> None:
    """Small print in the upper right corner of the axes, where curves that fall leave room."""
    axes.text(0.99, 0.99, text, transform=axes.transAxes, fontsize=7.5, ha="right", va="top", color=GREY)


def _key(axes: Axes, palette: dict[str, str], marks: dict[str, tuple[str, str]], **place: Any) -> None:
    """What colours and markers stand for."""
    handles = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in palette.items()]
    handles += [
        Line2D([], [], marker=mark, linestyle="", color=GREY, markerfacecolor="white", label=name)
        for name, (mark, _) in marks.items()
    ]
    axes.legend(handles=handles, fontsize=7.5, frameon=False, handletextpad=0.1, columnspacing=0.5, **place)


def _laws(axes: Axes, row: pd.Series, star: float, colour: str) -> tuple[float, float]:
    """Both laws over the measured range, the hyperbola on to its inflection; returns its last point."""
    low, high = row["throughput_min_tokens_per_s"], row["throughput_max_tokens_per_s"]
    inside = np.geomspace(low, high, 60)
    power_w, marginal = row["fixed_power_w"], row["marginal_energy_j_per_output_token"]
    axes.plot(inside, power_w / inside + marginal, "-", color=colour, linewidth=1.4)
    law = row["power_law_energy_j_per_output_token"] * inside ** row["elasticity_ratio"]
    axes.plot(inside, law, ":", color=colour, linewidth=1)
    if not np.isfinite(star):
        return high, power_w / high + marginal
    beyond = np.geomspace(min(high, star), max(high, star), 30)
    if star > high:
        axes.plot(beyond, power_w / beyond + marginal, "--", color=colour, linewidth=1)
    ends = [row[f"{INFLECTION}_low"], row[f"{INFLECTION}_high"]]
    if np.isfinite(ends).all():
        axes.plot(ends, [2 * marginal] * 2, "-", color=colour, linewidth=0.8, marker="|", markersize=6)
    axes.plot([star], [2 * marginal], "*", color=colour, markersize=11, markeredgecolor="white", zorder=5)
    last = max(high, star)
    return last, power_w / last + marginal


def pareto_front(settings: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against latency; settings that no other beats in both are labelled.

    Parameters
    ----------
    settings : DataFrame
        Table `pareto` with a column `label`.
    title, caption : str
        The finding and the small print.
    """
    if settings.empty:
        return blank(title)
    models = sorted(settings["model"].unique())
    figure, grid = canvas(title, caption, height_in=4.6, ncols=len(models), sharey=True)
    palette = colours(settings["precision"])
    for axes, model in zip(grid[0], models, strict=True):
        rows = settings[settings["model"] == model]
        for precision, points in rows.groupby("precision"):
            for waits, marker in ((False, "o"), (True, "x")):
                chosen = points[(points["waiting_s"] > 0) == waits]
                style = {"color": palette[precision], "markersize": 5, "alpha": 0.75}
                axes.plot(chosen["latency_s"], chosen[ENERGY], marker, **style)
        _front(axes, rows[rows["on_front"]].sort_values("latency_s"), palette)
        log_axis(axes.xaxis, rows["latency_s"])
        axes.set_title(model, fontsize=10, loc="left")
        axes.set_xlabel("Latency of a query, without waiting (s)")
    log_axis(grid[0, 0].yaxis, settings[ENERGY])
    low, high = settings[ENERGY].min(), settings[ENERGY].max()
    n_lines = int(settings.groupby("model")["on_front"].sum().max())
    grid[0, 0].set_ylim(low / 1.5, high * (high / low) ** (0.05 * n_lines) * 1.2)  # room for the names
    grid[0, 0].set_ylabel(axis_label(ENERGY))
    waiting = {"with waiting": ("x", "")} if (settings["waiting_s"] > 0).any() else {}
    _key(grid[0, -1], palette, waiting, loc="lower right", ncols=2)
    return figure


def _front(axes: Axes, front: pd.DataFrame, palette: dict[str, str]) -> None:
    """The front as a staircase, its settings numbered, and a list of them."""
    axes.step(front["latency_s"], front[ENERGY], where="post", color="black", linewidth=1, zorder=1)
    names = []
    for number, (_, row) in enumerate(front.iterrows(), start=1):
        bars = error_bars(front.loc[[row.name]], "latency_s"), error_bars(front.loc[[row.name]], ENERGY)
        axes.errorbar(
            [row["latency_s"]],
            [row[ENERGY]],
            yerr=bars[1],
            xerr=bars[0],
            fmt="o",
            color=palette[row["precision"]],
            markeredgecolor="black",
            markersize=7,
            elinewidth=0.8,
            zorder=5,
        )
        axes.annotate(
            str(number), (row["latency_s"], row[ENERGY]), (-5, -12), textcoords="offset points", fontsize=8, ha="right"
        )
        names.append(f"{number}  {row['label']}")
    _note(axes, "\n".join(names))


def roofline(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """FLOP/s achieved by a GPU against FLOP per byte, below the roofs of its memory and its arithmetic.

    Parameters
    ----------
    runs : DataFrame
        Table `utilisation`.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=["mfu", "mbu"])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.4)
    axes = grid[0, 0]
    palette, marks = colours(shown["precision"]), shapes(shown["model"])
    x, y = "flop_over_bytes_ratio", "achieved_flop_per_s"
    reach = np.geomspace(shown[x].min() / 1.5, shown[x].max() * 6, 100)
    roofs: dict[tuple[float, float], list[str]] = {}
    for name, points in shown.groupby("precision"):
        precision = str(name)
        roof = (float(points["peak_flop_per_s"].iloc[0]), float(points["peak_bytes_per_s"].iloc[0]))
        roofs.setdefault(roof, []).append(precision)
        for model, of_model in points.groupby("model"):
            marker = marks[str(model)][0]
            axes.plot(of_model[x], of_model[y], marker, color=palette[precision], **_POINT | {"markersize": 5})
    log_axis(axes.xaxis, [*shown[x], *reach])
    axes.set_yscale("log")
    for (peak, bandwidth), names in roofs.items():
        colour = palette[names[0]] if len(names) == 1 else GREY
        axes.plot(reach, np.minimum(peak, bandwidth * reach), color=colour, linewidth=1.2)
        axes.annotate(
            f"peak of {', '.join(names)}",
            (reach[-1], min(peak, bandwidth * reach[-1])),
            (0, 3),
            textcoords="offset points",
            ha="right",
            color=colour,
            fontsize=8,
        )
    _key(axes, palette, marks, loc="lower right")
    axes.set_xlabel("Arithmetic per memory traffic (FLOP per byte)")
    axes.set_ylabel("Achieved by one GPU (FLOP/s)")
    return figure


def machine_use(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against MFU, MBU, NVML's utilisation and the share of the power limit.

    Parameters
    ----------
    runs : DataFrame
        Table `utilisation`.
    title, caption : str
        The finding and the small print.
    """
    names = {
        "mfu": "MFU (%)",
        "mbu": "MBU (%)",
        "gpu_utilisation_fraction": "NVML's utilisation (%)",
        "power_over_limit_fraction": "Power over limit (%)",
    }
    shown = {name: words for name, words in names.items() if runs[name].notna().any()}
    if not shown:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.4, ncols=len(shown), sharey=True)
    palette, marks = colours(runs["precision"]), shapes(runs["model"])
    for axes, (name, words) in zip(grid[0], shown.items(), strict=True):
        for (model, precision), points in runs.dropna(subset=[name]).groupby(["model", "precision"]):
            axes.plot(points[name] * 100, points[ENERGY], marks[str(model)][0], color=palette[str(precision)], **_POINT)
        log_axis(axes.xaxis, runs[name] * 100)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel(words, fontsize=9)
    log_axis(grid[0, 0].yaxis, runs[ENERGY])
    grid[0, 0].set_ylabel(axis_label(ENERGY))
    several = len(shown) > 1  # one panel for colours, another for markers: both together would hide points
    _key(grid[0, 0], palette, {} if several else marks, loc="lower left")
    if several:
        _key(grid[0, 1], {}, marks, loc="lower left")
    return figure


def explanation(shares: pd.DataFrame, title: str, caption: str) -> Figure:
    """Share of the variance of log energy that each quantity explains alone, and what is lost without it.

    Parameters
    ----------
    shares : DataFrame
        Table `explained` with a column `words`.
    title, caption : str
        The finding and the small print.
    """
    shown = shares.dropna(subset=["variance_fraction"])
    if shown.empty:
        return blank(title)
    scopes = list(dict.fromkeys(shown["scope"]))
    order = shown[shown["scope"] == scopes[-1]].sort_values("variance_fraction")["words"].tolist()
    order += [words for words in dict.fromkeys(shown["words"]) if words not in order]
    figure, grid = canvas(title, caption, height_in=0.6 + 0.55 * len(order), ncols=2, sharey=True)
    height = 0.8 / len(scopes)
    for axes, name, words in zip(
        grid[0],
        ("variance_fraction", "unique_fraction"),
        ("Variance explained alone (%)", "Lost without it, of the joint model (%)"),
        strict=True,
    ):
        for place, scope in enumerate(scopes):
            rows = shown[(shown["scope"] == scope)].dropna(subset=[name])
            at = [order.index(word) + ((len(scopes) - 1) / 2 - place) * height for word in rows["words"]]
            colour = COLOURS[place % len(COLOURS)]
            label = "all models" if scope == "all" else str(scope)
            axes.barh(at, rows[name] * 100, height * 0.9, color=colour, label=label, alpha=0.85)
            axes.errorbar(
                rows[name] * 100,
                at,
                xerr=error_bars(rows, name) * 100,
                fmt="none",
                ecolor="black",
                elinewidth=1,
                capsize=2,
            )
            for value, high, where in zip(rows[name], rows[f"{name}_high"].fillna(rows[name]), at, strict=True):
                text = "0" if value < 5e-5 else f"{short(value * 100)}"
                axes.annotate(
                    text, (high * 100, where), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=GREY
                )
        axes.set_xlabel(words)
        axes.grid(visible=False, axis="y")
    grid[0, 0].set_xlim(0, 112)
    grid[0, 0].set_yticks(range(len(order)), order)
    for axes, word in ((grid[0, 1], word) for word in order):
        if shown.loc[shown["words"] == word, "unique_fraction"].isna().all():
            axes.text(0, order.index(word), " not in the joint model", va="center", fontsize=7.5, color=GREY)
    grid[0, 1].axvline(0, color=LIGHT)
    grid[0, 1].legend(fontsize=8, frameon=False, loc="lower right")
    return figure
