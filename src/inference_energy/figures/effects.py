"""Figures on factors: ranking, ratios of levels, factors that work together, and the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    LIGHT,
    MARKERS,
    blank,
    canvas,
    colours,
    error_bars,
    label_ends,
    log_axis,
    short,
    spread,
    ticks_at,
)
from inference_energy.units import axis_label

RATIO, ADJUSTED = "level_over_baseline_ratio", "over_baseline_ratio"
MEASURED, PREDICTED = "energy_measured_j_per_output_token", "energy_predicted_j_per_output_token"
_POINT: dict[str, Any] = {"alpha": 0.45, "markersize": 3.5, "markeredgewidth": 0}


def factors(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Share of the variance that each factor explains beside all others.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `factor_ranking` with a share and the column ``words``, largest first.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.8 + 0.42 * len(rows))
    axes = grid[0, 0]
    for place, (_, row) in enumerate(rows.iterrows()):
        clear = row["holm_p_value"] < 0.05
        share = 100 * float(row["explained_fraction"])
        axes.barh(place, share, color=COLOURS[0] if clear else LIGHT, height=0.6)
        p_value = "p < 0.001" if row["holm_p_value"] < 0.001 else f"p = {row['holm_p_value']:.2g}"
        levels = f"; levels {_times(row['levels_fold'])} apart" if pd.notna(row["levels_fold"]) else ""
        amount = f"{short(share)} %" if share >= 0.1 else "below 0.1 %"
        said = f"{amount} ({p_value if clear else 'no clear effect'}{levels})"
        axes.annotate(said, (share, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), rows["words"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Share of the variance of log energy per output token (%); grey: not clear; p by Holm")
    return figure


def _times(ratio: float) -> str:
    """``34×``, ``1.0×``, ``0.19×``: two digits, the zero kept."""
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×" if ratio >= 0.995 else f"{ratio:.2f}×"


def level_effects(rows: pd.DataFrame, points: pd.DataFrame, title: str, caption: str) -> Figure:
    """Ratio of every level to its baseline, with interval and the adjusted runs behind it.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `effects` with a ratio and the column ``words``.
    points : DataFrame
        Table `adjusted_runs`.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    factors_shown = list(dict.fromkeys(rows["factor"]))
    n_lines = len(rows) + len(factors_shown)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.27 * n_lines)
    axes = grid[0, 0]
    names: list[tuple[float, str]] = []
    place = 0.0
    for number, factor in enumerate(factors_shown):
        of_factor = rows[rows["factor"] == factor]
        colour = COLOURS[number % len(COLOURS)]
        heading = f"{of_factor['words'].iloc[0]} (against {of_factor['baseline'].iloc[0]})"
        axes.annotate(heading, (0, place), xycoords=("axes fraction", "data"), fontsize=9, va="center", weight="bold")
        place += 1
        for _, row in of_factor.iterrows():
            same = points[(points["term"] == factor) & (points["first_level"] == row["level"])][ADJUSTED].astype(float)
            axes.plot(same, place + spread(len(same), 0.5), "o", color=colour, **_POINT)
            bar = error_bars(rows.loc[[row.name]], RATIO)
            marker = {"fmt": "D", "markersize": 5.5, "markerfacecolor": "white"}
            axes.errorbar(row[RATIO], place, xerr=bar, color="black", capsize=3, zorder=5, **marker)
            said = f"{_times(row[RATIO])}, {row['n_settings']} settings"
            axes.annotate(
                said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
            )
            names.append((place, str(row["level"])))
            place += 1
    axes.axvline(1, color=GREY, linewidth=1)
    log_axis(axes.xaxis, [*rows[f"{RATIO}_low"], *rows[f"{RATIO}_high"], 0.7, 1.4])
    axes.set_yticks([where for where, _ in names], [name for _, name in names], fontsize=8.5)
    axes.set_ylim(place - 0.4, -0.7)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Energy per output token over that at the baseline, all else equal (ratio)")
    return figure


def interaction(points: pd.DataFrame, title: str, caption: str) -> Figure:
    """Adjusted energy against the level of one factor, a line for each level of another.

    Parameters
    ----------
    points : DataFrame
        Rows of table `adjusted_runs` of one interaction; lines join geometric means of settings.
    title, caption : str
        The finding and the small print.
    """
    if points.empty or points["second_level"].nunique() < 2:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.2)
    axes = grid[0, 0]
    first = points["first_level"]
    numeric = first.str.fullmatch(r"[\d.]+").all()
    places = {name: float(name) if numeric else float(place) for place, name in enumerate(sorted(first.unique()))}
    palette = colours(points["second_level"])
    n = len(palette)
    ends = []
    for number, (name, rows) in enumerate(points.groupby("second_level")):
        shift = (number - (n - 1) / 2) * (0.035 if numeric else 0.5 / n)
        centre = rows["first_level"].map(places).astype(float)
        x = centre * (1 + shift) if numeric else centre + shift
        mark, colour = MARKERS[number % len(MARKERS)], palette[str(name)]
        axes.plot(x, rows[ADJUSTED].astype(float), mark, color=colour, **(_POINT | {"markersize": 5}))
        logs = pd.Series(np.log(rows[ADJUSTED].to_numpy(float)), index=rows.index)
        by_setting = logs.groupby([x, rows["setting"]]).mean()
        means = by_setting.groupby(level=0).mean().map(np.exp)
        axes.plot(means.index, means.to_numpy(float), "-" if numeric else "_", color=colour, lw=1.4, ms=16, mew=2)
        ends.append((float(means.index[-1]), float(means.iloc[-1]), str(name), colour))
    if numeric:
        ticks_at(axes.xaxis, places.values())
        axes.set_xlabel("Batch size (prompts generated together)")
    else:
        axes.set_xticks(list(places.values()), list(places))
    log_axis(axes.yaxis, points[ADJUSTED].astype(float))
    axes.axhline(1, color=GREY, linewidth=1)
    label_ends(axes, ends, gap=0.06)
    axes.set_ylabel("Energy per output token over the\nbaseline's, other factors taken off (ratio)", fontsize=9)
    return figure


def grid_check(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Measured energy against the prediction by a model that has not seen the setting.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `grid_left_out` with a prediction.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.8)
    axes = grid[0, 0]
    both = [*rows[MEASURED], *rows[f"{PREDICTED}_low"], *rows[f"{PREDICTED}_high"]]
    axes.plot([min(both), max(both)], [min(both), max(both)], color=GREY, linewidth=1)
    groups = {
        "other studies": (~rows["of_grid"].astype(bool), COLOURS[0], "o"),
        "settings of the grid": (rows["of_grid"].astype(bool), COLOURS[1], "D"),
    }
    for name, (chosen, colour, mark) in groups.items():
        part = rows[chosen]
        bars = error_bars(part, PREDICTED)
        style = {"fmt": mark, "color": colour, "elinewidth": 0.8, "markersize": 4.5, "alpha": 0.8}
        if len(part):
            axes.errorbar(part[MEASURED].astype(float), part[PREDICTED].astype(float), bars, label=name, **style)
    outside = rows[~rows["inside"].fillna(value=True).astype(bool)]
    style = {"markerfacecolor": "none", "markeredgecolor": "black", "markersize": 10}
    axes.plot(
        outside[MEASURED].astype(float), outside[PREDICTED].astype(float), "o", label="outside its interval", **style
    )
    log_axis(axes.xaxis, both)
    log_axis(axes.yaxis, both)
    axes.set_xlabel("Measured: " + axis_label("energy_j_per_output_token"))
    axes.set_ylabel("Predicted without it (J)")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def grid_spread(rows: pd.DataFrame, folds: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy over the grid's settings, measured and predicted apart, a row per model and source.

    Parameters
    ----------
    rows : DataFrame
        Table `grid_prediction`.
    folds : DataFrame
        Table `grid_folds`.
    title, caption : str
        The finding and the small print.
    """
    names = {"measured": MEASURED, "predicted": PREDICTED}
    shown = [
        (str(model), source, of_source[names[str(source)]].astype(float).dropna())
        for (model, source), of_source in rows[rows["status"].isin(list(names))].groupby(["model", "status"])
    ]
    if not shown:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.85 * len(shown))
    axes = grid[0, 0]
    palette = colours(rows["model"])
    labels = []
    for place, (model, source, values) in enumerate(shown):
        mark = "D" if source == "measured" else "o"
        size = {"markersize": 5 if source == "measured" else 2.5}
        axes.plot(values, place + spread(len(values), 0.5), mark, color=palette[model], **(_POINT | size))
        fold = folds[(folds["model"] == model) & (folds["source"] == source)]
        _folds(axes, place, fold, values)
        labels.append(f"{model}\n{source}: {len(values):,}")
    log_axis(axes.xaxis, pd.concat([values for _, _, values in shown]))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.75)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label("energy_j_per_output_token") + "; black: median, 5th and 95th percentile")
    return figure


def _folds(axes: Axes, place: int, fold: pd.DataFrame, values: pd.Series) -> None:
    """Percentiles as strokes, and the folds with their intervals in words."""
    if fold.empty or pd.isna(fold["p95_over_p5_fold"].iloc[0]):
        said = "no fold: " + str(fold["reason"].iloc[0]) if len(fold) else ""
    else:
        row = fold.iloc[0]
        for value in np.percentile(values, [5, 50, 95]):
            axes.plot([value, value], [place - 0.3, place + 0.3], color="black", linewidth=1.6)
        said = "; ".join(
            f"{words} {short(row[name])}× ({short(row[f'{name}_low'])} to {short(row[f'{name}_high'])})"
            for words, name in (("95/5", "p95_over_p5_fold"), ("max/min", "max_over_min_fold"))
        )
    axes.annotate(said, (float(values.median()), place - 0.33), ha="center", va="bottom", fontsize=9)
