"""Figures on agreement: anchors over sittings, and runs beside neighbours."""

from __future__ import annotations

from typing import Any

import pandas as pd
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
    shapes,
)
from inference_energy.units import axis_label


def anchors(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Every repetition of the anchor settings over the setting's mean, in order of time; a line joins those of one GPU.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `anchors` of one quantity.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["over_mean_ratio"]).sort_values("started_at_utc")
    if shown.empty:
        return blank(title)
    settings = sorted(shown["setting"].unique())
    figure, grid = canvas(title, caption, height_in=0.6 + 1.5 * len(settings), nrows=len(settings), sharex=True)
    palette, marks = colours(shown["host"]), shapes(shown["host"])
    times = pd.to_datetime(shown["started_at_utc"], utc=True, format="ISO8601")
    elapsed = (times - times.min()).dt.total_seconds()
    unit, seconds = ("hours", 3600) if elapsed.max() > 7200 else ("minutes", 60)
    for axes, setting in zip(grid[:, 0], settings, strict=True):
        of_setting = shown[shown["setting"] == setting]
        margin = float(of_setting["margin_fraction"].iloc[0])
        axes.axhspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
        axes.axhline(1, color=COLOURS[2], linewidth=1)
        for (host, _), of_gpu in of_setting.groupby(["host", "gpu_uuid_hash"]):
            colour, mark = palette[str(host)], marks[str(host)][0]
            axes.plot(
                elapsed[of_gpu.index] / seconds, of_gpu["over_mean_ratio"], mark + "-", color=colour, lw=0.8, ms=5
            )
        furthest = max(1.5 * margin, 1.1 * float((of_setting["over_mean_ratio"] - 1).abs().max()))
        axes.set_ylim(1 - furthest, 1 + furthest)
        first = of_setting.iloc[0]
        bound = {True: "bound by the GPU", False: "not bound by the GPU"}.get(first["gpu_bound"], "")
        name = f"{first['model']} {first['precision']}, batch {first['batch_size']}: {bound}, {first['verdict']}"
        axes.set_title(f"{name} (band: ± {margin * 100:g} %)", fontsize=9, loc="left")
        axes.set_ylabel("Over the mean\n(ratio)", fontsize=9)
    grid[-1, 0].set_xlabel(f"Time since the first anchor run ({unit}); colours: hosts")
    key_above(grid, palette, marks)
    return figure


def interference(rows: pd.DataFrame, runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Beside neighbours over alone with its interval, and every run beside neighbours as a point.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `interference` of one quantity.
    runs : DataFrame
        The study's runs with numbers; each run beside neighbours is drawn over the mean of those alone.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["beside_over_alone_ratio"]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.2 + 0.5 * len(shown))
    axes = grid[0, 0]
    margin, quantity = float(shown["margin_fraction"].iloc[0]), str(shown["quantity"].iloc[0])
    axes.axvspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
    axes.axvline(1, color=COLOURS[2], linewidth=1)
    names = []
    for place, (_, row) in enumerate(shown.iterrows()):
        colour = {"equivalent": COLOURS[2], "different": COLOURS[1]}.get(row["verdict"], GREY)
        same = runs if pd.notna(row["model"]) else runs[:0]
        for name in ("model", "precision", "batch_size") if len(same) else ():
            same = same[same[name].eq(row[name]).fillna(value=False).astype(bool)]
        alone, beside = (same[same["neighbours"] == level][quantity].astype(float) for level in ("none", "allowed"))
        if len(alone):
            axes.plot(
                beside / geometric_mean(alone),
                [place + 0.22] * len(beside),
                "o",
                color="black",
                **(POINT | {"alpha": 0.4}),
            )
        bar = error_bars(shown.iloc[[place]], "beside_over_alone_ratio")
        axes.errorbar(row["beside_over_alone_ratio"], place, xerr=bar, fmt="D", color=colour, capsize=4)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(row["verdict"], (1, place), (5, 0), va="center", color=colour, fontsize=9, **where)
        plain = pd.isna(row["model"])
        names.append(row["setting"] if plain else f"{row['model']} {row['precision']}\nbatch {row['batch_size']}")
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    what = axis_label(quantity).rpartition(" (")[0]  # a ratio has not the quantity's unit
    axes.set_xlabel(f"{what}: beside neighbours over alone (ratio); band: ± {margin * 100:g} %")
    return figure
