"""The policy report's figures: each for a reader who sees it alone and knows no GPU terms."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    POINT,
    blank,
    canvas,
    error_bars,
    joule_tick,
    log_axis,
    plain_tick,
    short,
    spread,
    ticks_at,
)

WHICH = {"least": COLOURS[2], "median": COLOURS[0], "most": COLOURS[1]}


def flops(curve: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Calculations and electricity per token against the number of prompts answered together.

    Parameters
    ----------
    curve : DataFrame
        Columns batch_size, ``energy_ratio`` with ``_low`` and ``_high``, ``flop_ratio``.
    runs : DataFrame
        Columns batch_size, ``energy_ratio``: the single runs.
    title, caption : str
        The finding and the small print.
    """
    if curve.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=3.0)
    axes = grid[0, 0]
    sizes = curve["batch_size"].astype(float)
    axes.plot(sizes, curve["flop_ratio"], "s-", color=COLOURS[1])
    axes.plot(runs["batch_size"].astype(float), runs["energy_ratio"], "o", color=COLOURS[5], zorder=3, **POINT)
    axes.errorbar(
        sizes,
        curve["energy_ratio"],
        error_bars(curve, "energy_ratio"),
        fmt="o-",
        color=COLOURS[0],
        capsize=3,
        mfc="none",
    )
    ticks_at(axes.xaxis, sizes)
    log_axis(axes.yaxis, [*curve["energy_ratio"], *curve["flop_ratio"]])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    axes.set_ylim(top=float(curve["flop_ratio"].max()) * 1.6)
    place = float(sizes.iloc[len(sizes) // 2])
    axes.annotate(
        "calculations per token (FLOPs): always the same",
        (place, 1.0),
        (0, 7),
        textcoords="offset points",
        ha="center",
        color=COLOURS[1],
        fontsize=9.5,
    )
    middle = float(curve["energy_ratio"].iloc[len(sizes) // 2])
    axes.annotate(
        "electricity per token",
        (place, middle),
        (10, 6),
        textcoords="offset points",
        color=COLOURS[0],
        fontsize=9.5,
    )
    axes.set_xlabel("Prompts answered together (batch size)")
    axes.set_ylabel(f"Per token, over that at {sizes.min():g}")
    return figure


def levers(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Electricity per token with each choice over without it, the largest saving on top.

    Parameters
    ----------
    rows : DataFrame
        Columns lever, ``energy_ratio`` with ``_low`` and ``_high``; rows without a ratio are left out.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["energy_ratio"]).sort_values("energy_ratio")
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.8 + 0.42 * len(shown))
    axes = grid[0, 0]
    ends = shown[["energy_ratio", "energy_ratio_low", "energy_ratio_high"]].to_numpy(float).ravel()
    for place, (_, row) in enumerate(shown.iterrows()):
        colour = COLOURS[2] if row["energy_ratio"] < 1 else COLOURS[1]
        axes.hlines(place, min(row["energy_ratio"], 1), max(row["energy_ratio"], 1), color=colour, lw=5, alpha=0.25)
        axes.errorbar(
            row["energy_ratio"],
            place,
            xerr=error_bars(row.to_frame().T, "energy_ratio"),
            fmt="o",
            color=colour,
            capsize=3,
        )
        high = np.nanmax([row["energy_ratio"], row["energy_ratio_high"], 1.0])
        axes.annotate(
            f"{_two_digits(row['energy_ratio'])}×",
            (high, place),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.axvline(1, color=GREY, linewidth=1)
    log_axis(axes.xaxis, list(ends))
    finite = ends[np.isfinite(ends)]
    axes.set_xlim(min(finite.min() / 1.3, 0.7), max(finite.max() * 1.9, 1.9))
    axes.set_yticks(range(len(shown)), list(shown["lever"]), fontsize=9)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("With the choice over without it (left of 1: saves)")
    return figure


def gaming(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Every scenario's electricity per token over the mean of the realistic ones.

    Parameters
    ----------
    rows : DataFrame
        Columns model, scenario (A1, R1 to R6), ``energy_over_realistic_mean_ratio``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    models = sorted(rows["model"].unique())
    figure, grid = canvas(title, caption, height_in=0.9 + 0.75 * len(models))
    axes = grid[0, 0]
    name = "energy_over_realistic_mean_ratio"
    for place, model in enumerate(models):
        of_model = rows[rows["model"] == model].sort_values(name)
        ends = {of_model.index[0]: "right", of_model.index[-1]: "left"}
        realistic = of_model[of_model["scenario"] != "A1"]
        ends |= {realistic.index[0]: "right"} if len(realistic) else {}
        for place_of_row, row in of_model.iterrows():
            ideal = row["scenario"] == "A1"
            colour = COLOURS[2] if ideal else COLOURS[1]
            axes.plot(row[name], place, "D" if ideal else "o", color=colour, ms=8, alpha=1 if ideal else 0.6)
            if place_of_row in ends:
                side = ends[place_of_row]
                axes.annotate(
                    "A1, an ideal test" if ideal else row["scenario"],
                    (row[name], place),
                    (-9 if side == "right" else 9, 0),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    fontsize=9,
                    color=colour,
                )
    axes.axvline(1, color=GREY, linewidth=1)
    log_axis(axes.xaxis, rows[name])
    axes.set_xlim(float(rows[name].min()) / 4, float(rows[name].max()) * 1.5)
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Electricity per token, over the mean of the realistic scenarios R1 to R6")
    return figure


def regions(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Carbon of one response by hosting region, in the least, the median and the most costly setting.

    Parameters
    ----------
    rows : DataFrame
        Columns region, which, ``carbon_g`` with ``_low`` and ``_high``, cleanest region first.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    names = list(dict.fromkeys(rows["region"]))
    figure, grid = canvas(title, caption, height_in=1.0 + 0.24 * len(names))
    axes = grid[0, 0]
    for which, colour in WHICH.items():
        of_kind = rows[rows["which"] == which]
        places = [names.index(region) for region in of_kind["region"]]
        axes.errorbar(
            of_kind["carbon_g"], places, xerr=error_bars(of_kind, "carbon_g"), fmt="o", color=colour, ms=5, capsize=2
        )
        if len(of_kind):
            axes.annotate(
                "median setting" if which == "median" else f"{which} costly setting",
                (float(of_kind["carbon_g"].iloc[0]), -1.0),
                ha="center",
                fontsize=9,
                color=colour,
                annotation_clip=False,
            )
    for place, region in enumerate(names):
        values = rows.loc[rows["region"] == region, "carbon_g"]
        axes.hlines(place, values.min(), values.max(), color=GREY, linewidth=0.6, alpha=0.5, zorder=0)
    log_axis(axes.xaxis, [*rows["carbon_g"], *rows["carbon_g_low"], *rows["carbon_g_high"]])
    axes.xaxis.set_major_formatter(FuncFormatter(plain_tick))
    axes.set_xlim(left=float(rows["carbon_g"].min()) / 3)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -1.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Carbon of one response (g CO₂e), PUE included")
    return figure


def response(uses: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy of one response in every run beside appliances, on one logarithmic axis.

    Parameters
    ----------
    uses : DataFrame
        Columns name, kind (run, response or appliance), ``energy_j`` with ``_low`` and ``_high``.
    title, caption : str
        The finding and the small print.
    """
    runs, responses = (uses[uses["kind"] == kind] for kind in ("run", "response"))
    others = uses[uses["kind"] == "appliance"].sort_values("energy_j")
    if responses.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.6 + 0.3 * len(others))
    axes = grid[0, 0]
    axes.plot(runs["energy_j"], spread(len(runs), 0.4) - 0.4, "o", color=COLOURS[0], alpha=0.4, ms=4, markeredgewidth=0)
    ordered = responses.sort_values("energy_j")
    for row, which, side in ((ordered.iloc[0], "least", "right"), (ordered.iloc[-1], "most", "left")):
        axes.errorbar(
            row["energy_j"], -0.4, xerr=error_bars(row.to_frame().T, "energy_j"), fmt="D", color=COLOURS[0], capsize=3
        )
        axes.annotate(
            f"{which}: {joule_tick(float(short(row['energy_j']).replace(',', '')))}",
            (row["energy_j"], -0.4),
            (-10 if side == "right" else 10, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=9,
            color=COLOURS[0],
        )
    for place, (_, row) in enumerate(others.iterrows(), start=1):
        axes.plot(row["energy_j"], place, "s", color=COLOURS[1])
        axes.hlines(place, 0, row["energy_j"], color=COLOURS[1], linewidth=0.6, alpha=0.5)
        axes.annotate(
            row["name"], (row["energy_j"], place), (7, 0), textcoords="offset points", va="center", fontsize=9
        )
    log_axis(axes.xaxis, uses["energy_j"])
    low, high = float(uses["energy_j"].min()), float(uses["energy_j"].max())
    axes.set_xlim(low / 40, high * 60)
    axes.set_yticks([-0.4, *range(1, len(others) + 1)], ["one response", *[""] * len(others)])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(others) + 0.6, -1.4)
    axes.grid(visible=False, axis="y")
    axes.axhline(0.5, color=GREY, linewidth=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(joule_tick))
    axes.set_xlabel("Energy at the site, PUE included")
    return figure


def _two_digits(value: float) -> str:
    """``0.10``, ``3.0``, ``16``."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"
