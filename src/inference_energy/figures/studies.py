"""A first look at each study: every run is a point, every panel a model or a batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    blank,
    canvas,
    colours,
    error_bars,
    label_ends,
    log_axis,
    shapes,
    spread,
    ticks_at,
)
from inference_energy.units import axis_label

ENERGY = "energy_j_per_output_token"
KINDS = {"replicas": "replicas", "replicas_duplicated": "duplicated", "tensor": "tensor"}
POINT: dict[str, Any] = {"alpha": 0.75, "markersize": 4.5, "markeredgewidth": 0}


def precision(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against batch size, a line per precision and a panel per model.

    Parameters
    ----------
    runs : DataFrame
        Table `runs`, those of one study with numbers; lines join the geometric means over cycles.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY])
    if shown.empty:
        return blank(title)
    models = sorted(shown["model"].unique())
    figure, grid = canvas(title, caption, height_in=4.2, ncols=len(models), sharey=True)
    palette, marks = colours(shown["precision"]), shapes(shown["precision"])
    every: list[list[tuple[float, float, str, str]]] = []
    for axes, model in zip(grid[0], models, strict=True):
        ends = []
        for name, rows in shown[shown["model"] == model].groupby("precision"):
            x, y = _line(axes, rows, "batch_size", palette[str(name)], marks[str(name)])
            ends.append((x, y, str(name), palette[str(name)]))
        ticks_at(axes.xaxis, shown["batch_size"].astype(float))
        log_axis(axes.yaxis, shown[ENERGY])
        axes.set_xlabel("Batch size (prompts generated together)")
        axes.set_title(model, fontsize=10, loc="left")
        every.append(ends)
    for axes, ends in zip(grid[0], every, strict=True):  # once all points are there: panels share an axis
        label_ends(axes, ends)
    grid[0, 0].set_ylabel(axis_label(ENERGY))
    return figure


def parallelism(runs: pd.DataFrame, baseline: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against the number of GPUs, by the way they share the work.

    Parameters
    ----------
    runs : DataFrame
        Table `runs`, those of the study with numbers.
    baseline : DataFrame
        Runs of the same models and batch sizes on one GPU; the dashed line is their geometric mean.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY])
    if shown.empty:
        return blank(title)
    panels = sorted(
        {(str(model), int(batch)) for model, batch in zip(shown["model"], shown["batch_size"], strict=True)}
    )
    figure, grid = canvas(
        title, caption, height_in=2.7 * -(-len(panels) // 2), nrows=-(-len(panels) // 2), ncols=min(2, len(panels))
    )
    palette, marks = colours(KINDS), shapes(KINDS)
    every = grid.ravel()
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for axes, (model, batch) in zip(every, panels, strict=False):
        rows = shown[(shown["model"] == model) & (shown["batch_size"] == batch)]
        alone = baseline[(baseline["model"] == model) & (baseline["batch_size"] == batch)].dropna(subset=[ENERGY])
        ends = []
        for kind, of_kind in rows.groupby("parallelism"):
            x, y = _line(axes, of_kind, "n_gpus", palette[str(kind)], marks[str(kind)])
            ends.append((x, y, KINDS[str(kind)], palette[str(kind)]))
        if len(alone):
            level = _mean(alone[ENERGY])
            axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
            axes.plot(np.ones(len(alone)), alone[ENERGY].astype(float), "o", color="black", **POINT)
            ends.append((1.0, level, "one GPU", GREY))
        axes.set_xticks([1, 2, 3, 4])
        axes.set_xlim(0.8, max(4.0, float(rows["n_gpus"].max())) + 0.2)
        axes.set_ylim(0, max([*rows[ENERGY].to_numpy(float), *alone[ENERGY].to_numpy(float)]) * 1.15)
        axes.set(xlabel="GPUs that take part", ylabel=axis_label(ENERGY))
        axes.set_title(f"{model}, batch {batch}", fontsize=10, loc="left")
        label_ends(axes, ends, gap=0.1)
    return figure


def points(rows: pd.DataFrame, title: str, caption: str, *, reference: str = "", percentiles: bool = False) -> Figure:
    """Energy per output token of every run, a row per label and a panel per model.

    Parameters
    ----------
    rows : DataFrame
        Runs with numbers and the columns ``label`` (text of a row, in order of appearance) and
        ``series`` (colour, named in a key).
    title, caption : str
        The finding and the small print.
    reference : str
        A label whose range is drawn as a band through all rows, and its mean as a line.
    percentiles : bool
        Whether to mark the 5th and the 95th percentile of each row.
    """
    shown = rows.dropna(subset=[ENERGY])
    if shown.empty:
        return blank(title)
    labels, models = list(dict.fromkeys(shown["label"])), sorted(shown["model"].unique())
    palette = colours(shown["series"])
    marks = shapes(shown["series"])
    figure, grid = canvas(
        title, caption, height_in=1.4 + max(0.2, 0.42 - 0.01 * len(labels)) * len(labels), ncols=len(models)
    )
    for axes, model in zip(grid[0], models, strict=True):
        of_model = shown[shown["model"] == model]
        _band(axes, of_model[of_model["label"] == reference])
        for place, label in enumerate(labels):
            of_label = of_model[of_model["label"] == label]
            height = place + spread(len(of_label), 0.5 if percentiles else 0.3)
            for series, colour in palette.items():
                chosen = (of_label["series"] == series).to_numpy(bool)
                axes.plot(
                    of_label[ENERGY].astype(float)[chosen], height[chosen], marks[series][0], color=colour, **POINT
                )
            if percentiles and len(of_label) > 1:
                low, high = np.percentile(of_label[ENERGY].astype(float), [5, 95])
                axes.plot([low, low, high, high], [place - 0.4, place + 0.4, place + 0.4, place - 0.4], "k", lw=1)
        axes.margins(x=0.08)
        if of_model[ENERGY].max() > 1.5 * of_model[ENERGY].min():
            log_axis(axes.xaxis, of_model[ENERGY])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), labels if axes is grid[0, 0] else [""] * len(labels))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(axis_label(ENERGY), fontsize=9)
        axes.set_title(model, fontsize=10, loc="left")
    _key(grid, palette, marks)
    return figure


def traffic(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against the mean simulated waiting before a batch.

    Parameters
    ----------
    runs : DataFrame
        Runs with numbers and the columns ``waited_s_per_batch`` and ``series``.
    title, caption : str
        The finding and the small print.
    """
    shown = runs.dropna(subset=[ENERGY, "waited_s_per_batch"])
    if shown.empty:
        return blank(title)
    panels = sorted(
        {(str(model), int(batch)) for model, batch in zip(shown["model"], shown["batch_size"], strict=True)}
    )
    n_rows = -(-len(panels) // 2)
    figure, grid = canvas(title, caption, height_in=0.5 + 2.5 * n_rows, nrows=n_rows, ncols=min(2, len(panels)))
    palette, marks = colours(shown["series"]), shapes(shown["series"])
    every = grid.ravel()
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for axes, (model, batch) in zip(every, panels, strict=False):
        rows = shown[(shown["model"] == model) & (shown["batch_size"] == batch)]
        for series, of_series in rows.groupby("series"):
            x, y = of_series["waited_s_per_batch"].astype(float), of_series[ENERGY].astype(float)
            axes.plot(x, y, marks[str(series)][0], color=palette[str(series)], **POINT)
        axes.set_xlim(-0.05 * rows["waited_s_per_batch"].max(), max(1e-3, 1.1 * rows["waited_s_per_batch"].max()))
        axes.set_ylim(0, 1.15 * float(rows[ENERGY].max()))
        axes.set(xlabel="Simulated waiting before a batch, mean (s)", ylabel=axis_label(ENERGY))
        axes.set_title(f"{model}, batch {batch}", fontsize=10, loc="left")
    _key(grid, palette, marks)
    return figure


def anchors(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Every repetition of the anchor settings over the setting's mean, in order of time, by GPU.

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
    palette, marks = colours(shown["gpu_uuid_hash"]), shapes(shown["gpu_uuid_hash"])
    times = pd.to_datetime(shown["started_at_utc"], utc=True, format="ISO8601")
    elapsed = (times - times.min()).dt.total_seconds()
    unit, seconds = ("hours", 3600) if elapsed.max() > 7200 else ("minutes", 60)
    for axes, setting in zip(grid[:, 0], settings, strict=True):
        of_setting = shown[shown["setting"] == setting]
        margin = float(of_setting["margin_fraction"].iloc[0])
        axes.axhspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
        axes.axhline(1, color=COLOURS[2], linewidth=1)
        for gpu, of_gpu in of_setting.groupby("gpu_uuid_hash"):
            colour, mark = palette[str(gpu)], marks[str(gpu)][0]
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
    grid[-1, 0].set_xlabel(f"Time since the first anchor run ({unit}); colours: GPUs")
    _key(grid, palette, marks)
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
                beside / _mean(alone), [place + 0.22] * len(beside), "o", color="black", **(POINT | {"alpha": 0.4})
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


def _line(axes: Axes, rows: pd.DataFrame, name: str, colour: str, mark: tuple[str, str]) -> tuple[float, float]:
    """Points of all runs, a line through their geometric means, and where it ends."""
    axes.plot(rows[name].astype(float), rows[ENERGY].astype(float), mark[0], color=colour, **POINT)
    means = rows.groupby(rows[name].astype(float))[ENERGY].apply(_mean)
    axes.plot(means.index, means.to_numpy(float), mark[1], color=colour, linewidth=1.4)
    return float(means.index[-1]), float(means.iloc[-1])


def _mean(values: pd.Series) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(values.astype(float)).mean()))


def _band(axes: Axes, reference: pd.DataFrame) -> None:
    if len(reference):
        values = reference[ENERGY].astype(float)
        axes.axvspan(values.min(), values.max(), color=GREY, alpha=0.2, linewidth=0)
        axes.axvline(_mean(values), color=GREY, linewidth=1)


def _key(grid: np.ndarray, palette: dict[str, str], marks: dict[str, tuple[str, str]]) -> None:
    """Names of the series above the first panel; none where there is one series."""
    if len(palette) < 2:
        return
    handles = [grid.ravel()[0].plot([], [], marks[name][0], color=palette[name], label=name)[0] for name in palette]
    n_columns = 6 if max(map(len, palette)) < 14 else 4
    room = "\n" * -(-len(palette) // n_columns)  # empty lines above the panels' names
    for axes in grid[0]:
        axes.set_title(room + axes.get_title(loc="left"), fontsize=10, loc="left")
    key = grid.ravel()[0].legend(
        handles=handles,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=1.9,
        ncols=n_columns,
        fontsize=8.5,
        columnspacing=1.2,
        handletextpad=0.2,
    )
    key.set_in_layout(False)
