"""Figures on the size of models, machines and numbers, and on what each choice saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    POINT,
    blank,
    canvas,
    error_bars,
    geometric_mean,
    label_ends,
    log_axis,
    short,
    ticks_at,
)
from inference_energy.models.sizes import (
    BOTH_PARTS,
    ENERGY_RATIO,
    FEWER_GPUS,
    GPUS_PART,
    LAWS,
    MACHINE,
    NUMBERS,
    ONE_GPU,
    SPEED_RATIO,
    TAKING_PART,
)
from inference_energy.units import axis_label

ENERGY = "energy_j_per_output_token"
_LENGTHS = ["n_input_tokens", "n_output_tokens"]
_LOOKS = {
    "linear": ("straight line", COLOURS[0], "-"),
    "power": ("power law", COLOURS[1], "--"),
    "exponential": ("exponential", COLOURS[2], "-."),
}
_SEEN = {
    (ENERGY_RATIO, TAKING_PART): ("energy, GPUs that take part", COLOURS[0], "o"),
    (ENERGY_RATIO, MACHINE): ("energy, machine of four billed", COLOURS[1], "s"),
    (SPEED_RATIO, TAKING_PART): ("tokens per second", COLOURS[2], "^"),
}
_DECISIONS = ("model", "machine", "number format", "engine", "batch", "lengths", "timing")


def laws(points: pd.DataFrame, estimates: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token against parameters, with the laws fitted to models on one GPU; a panel for each lengths.

    Parameters
    ----------
    points : DataFrame
        Runs with ``n_parameters``.
    estimates : DataFrame
        Table `model_size`.
    title, caption : str
        The finding and the small print.
    """
    fitted = estimates[estimates["gpus"] == ONE_GPU]
    panels = list(fitted.groupby(_LENGTHS, sort=True)) if len(fitted) else list(points.groupby(_LENGTHS, sort=True))
    if points.empty or not panels:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.6, ncols=len(panels), sharex=True, sharey=True)
    every = []
    for axes, ((n_input, n_output), of_panel) in zip(grid[0], panels, strict=True):
        runs = points[(points["n_input_tokens"] == n_input) & (points["n_output_tokens"] == n_output)]
        sizes = runs["n_parameters"].astype(float) / 1e9
        for place, (n_gpus, group) in enumerate(runs.groupby("n_gpus", sort=True)):
            words = "1 GPU" if n_gpus == 1 else f"{n_gpus} GPUs"
            axes.plot(sizes[group.index], group[ENERGY], MARKERS[place], color="black", label=words, **POINT)
        axes.set_title(f"{n_input} tokens in, {n_output} out", fontsize=10, loc="left")
        axes.set_xlabel("Parameters (billions)")
        every.append((axes, _curves(axes, of_panel, sizes[runs["n_gpus"] == 1]) if "law" in of_panel else []))
        _name_models(axes, runs, sizes)
    sizes = points["n_parameters"].astype(float) / 1e9
    ticks_at(grid[0, 0].xaxis, sorted({float(short(size)) for size in sizes}))
    log_axis(grid[0, 0].yaxis, points[ENERGY])
    grid[0, 0].set_xlim(sizes.min() / 1.5, sizes.max() * 1.5)
    grid[0, 0].set_ylim(points[ENERGY].min() / 5, points[ENERGY].max() * 2.5)
    for axes, ends in every:
        label_ends(axes, ends, gap=0.06)
    grid[0, 0].set_ylabel(axis_label(ENERGY))
    grid[0, 0].legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, sizes: pd.Series) -> list[tuple[float, float, str, str]]:
    """Each law over the sizes of the models on one GPU; where to write its name."""
    told = rows.set_index(["law", "quantity"])["estimate"]
    xs = np.geomspace(sizes.min(), sizes.max(), 80)
    ends = []
    for law, numbers in NUMBERS.items():
        words, colour, line = _LOOKS[law]
        ys = LAWS[law](xs, *(float(told[law, name]) for name in numbers))
        axes.plot(xs, ys, line, color=colour, linewidth=1.3)
        ends.append((float(xs[-1]), float(ys[-1]), words, colour))
    return ends


def _name_models(axes: Axes, runs: pd.DataFrame, sizes: pd.Series) -> None:
    """Names of models along the axis of sizes."""
    for model, size in sizes.groupby(runs["model"]).first().items():
        look: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7, "color": GREY}
        axes.text(float(size), 0.02, str(model), transform=axes.get_xaxis_transform(), **look)


def machines(points: pd.DataFrame, ratios: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy on several numbers of GPUs, and what fewer GPUs take of it under each accounting.

    Parameters
    ----------
    points : DataFrame
        Runs of models that were measured on several numbers of GPUs.
    ratios : DataFrame
        Table `right_size`.
    title, caption : str
        The finding and the small print.
    """
    shown = ratios[ratios["choice"] == FEWER_GPUS].dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=4.4, ncols=2, width_ratios=[1, 1.25])
    left, right = grid[0]
    runs = points.merge(shown[["model", *_LENGTHS]].drop_duplicates(), on=["model", *_LENGTHS])
    ends = []
    for place, (model, of_model) in enumerate(runs.groupby("model", sort=True)):
        colour = COLOURS[3 + place]
        gpus, energy = of_model["n_gpus"].astype(float), of_model[ENERGY].astype(float)
        left.plot(gpus, energy, MARKERS[place], color=colour, **POINT)
        means = energy.groupby(gpus).apply(geometric_mean)
        left.plot(means.index, means, "-", color=colour, linewidth=1.2)
        ends.append((float(means.index[-1]), float(means.iloc[-1]), str(model), colour))
    ticks_at(left.xaxis, runs["n_gpus"].astype(float))
    log_axis(left.yaxis, runs[ENERGY])
    left.set(xlabel="GPUs that take part", ylabel=axis_label(ENERGY))
    label_ends(left, ends)
    names = shown.drop_duplicates(["model", "n_gpus", "n_gpus_over", *_LENGTHS]).reset_index(drop=True)
    for place, (_, row) in enumerate(names.iterrows()):
        same = shown[(shown[["model", "n_gpus", "n_gpus_over"]] == row[["model", "n_gpus", "n_gpus_over"]]).all(axis=1)]
        for aside, ((quantity, accounting), (_, colour, marker)) in zip((-0.2, 0, 0.2), _SEEN.items(), strict=True):
            one = same[(same["quantity"] == quantity) & (same["accounting"] == accounting)]
            _mark(right, one, "estimate", place + aside, colour, marker)
    keys = [right.plot([], [], marker, color=colour, label=words)[0] for words, colour, marker in _SEEN.values()]
    right.legend(handles=keys, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    labels = [f"{row['model']}\n{row['n_gpus']} over {row['n_gpus_over']} GPUs" for _, row in names.iterrows()]
    _rows(right, labels, shown["estimate"], "Fewer GPUs over more (ratio)")
    return figure


def formats(runs: pd.DataFrame, estimates: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy in each number format on each number of GPUs, and a change of both taken apart.

    Parameters
    ----------
    runs : DataFrame
        Runs of study `quantisation`.
    estimates : DataFrame
        Table `quantisation`.
    title, caption : str
        The finding and the small print.
    """
    shown = estimates[estimates["quantity"] == ENERGY_RATIO].dropna(subset=["estimate"])
    if runs.empty or shown.empty:
        return blank(title)
    both = shown[(shown["part"] == BOTH_PARTS) & shown["batch_size"].notna()]
    both = both.sort_values(["precision_to", "batch_size"]).reset_index(drop=True)
    widths = [1, 1.3] if len(both) else [1]
    figure, grid = canvas(title, caption, height_in=4.2, ncols=len(widths), width_ratios=widths)
    left = grid[0, 0]
    runs = runs.assign(
        words=runs["precision"] + "\n" + runs["n_gpus"].map(lambda n: "1 GPU" if n == 1 else f"{n} GPUs")
    )
    order = runs.sort_values(["n_gpus", "precision"], ascending=[False, True])["words"].drop_duplicates().tolist()
    ends = []
    for place, (batch, group) in enumerate(runs.groupby("batch_size", sort=True)):
        colour, xs = COLOURS[3 + place], group["words"].map(order.index).astype(float)
        left.plot(xs, group[ENERGY], MARKERS[place], color=colour, **POINT)
        last = group[xs == xs.max()]
        ends.append((float(xs.max()), float(last[ENERGY].mean()), f"batch {batch}", colour))
    left.set_xticks(range(len(order)), order, fontsize=7)
    log_axis(left.yaxis, runs[ENERGY])
    left.set_ylabel(axis_label(ENERGY))
    label_ends(left, ends)
    if len(both):
        _taken_apart(grid[0, 1], both, shown)
    return figure


def _taken_apart(axes: Axes, both: pd.DataFrame, shown: pd.DataFrame) -> None:
    """A bar from 1 to the ratio of fewer GPUs, and one from there to that of fewer GPUs and fewer bits."""
    for place, (_, row) in enumerate(both.iterrows()):
        same = shown["batch_size"].eq(row["batch_size"]) & shown["n_gpus_to"].eq(row["n_gpus_to"])
        gpus = shown[same & shown["part"].eq(GPUS_PART) & shown["precision_to"].eq(row["precision_from"])]
        middle = float(gpus["estimate"].iloc[0]) if len(gpus) else 1.0
        for start, end, colour, words in (
            (1.0, middle, COLOURS[1], "fewer GPUs"),
            (middle, float(row["estimate"]), COLOURS[0], "number format"),
        ):
            axes.plot([start, end], [place, place], "-", color=colour, linewidth=9, solid_capstyle="butt", alpha=0.7)
            axes.annotate(
                f"×{short(end / start)}", ((start * end) ** 0.5, place), (0, 8), textcoords="offset points",
                ha="center", fontsize=8, color=colour,
            )  # fmt: skip
            if place == 0:
                axes.plot([], [], "-", color=colour, linewidth=6, alpha=0.7, label=words)
        _mark(axes, both.iloc[[place]], "estimate", place, "black", "D")
    labels = [f"{row['precision_to']} on {row['n_gpus_to']}\nbatch {row['batch_size']}" for _, row in both.iterrows()]
    first = both.iloc[0]
    xlabel = f"Energy per output token over that of\n{first['precision_from']} on {first['n_gpus_from']} GPUs (ratio)"
    _rows(axes, labels, pd.concat([both["estimate"], pd.Series([1.0])]), xlabel)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def choices(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """What each choice leaves of the energy, most saving first, coloured by what is decided.

    Parameters
    ----------
    rows : DataFrame
        From ``policy.framework.choice_rows``.
    title, caption : str
        The finding and the small print.
    """
    shown = rows.dropna(subset=["energy_ratio"]).reset_index(drop=True)
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=0.9 + 0.33 * len(shown))
    axes = grid[0, 0]
    for place, (_, row) in enumerate(shown.iterrows()):
        kind = _DECISIONS.index(row["decision"])
        _mark(axes, shown.iloc[[place]], "energy_ratio", place, COLOURS[kind], (*MARKERS, "X")[kind])
        axes.annotate(
            f"{short(row['energy_ratio'])}  {row['decision']}", (1, place), (5, 0), va="center", fontsize=8,
            xycoords=("axes fraction", "data"), textcoords="offset points", color=COLOURS[kind],
        )  # fmt: skip
    common = shown["model"].mode().iloc[0]
    labels = [
        row["choice"] + f" ({row['model']})" * int(row["model"] not in (common, row["choice"].partition(",")[0]))
        for _, row in shown.iterrows()
    ]
    words = f"Energy with the choice over energy without it (ratio),\n{common} unless another model is named"
    _rows(axes, labels, shown["energy_ratio"], words)
    axes.tick_params(axis="y", labelsize=8)
    return figure


def _mark(axes: Axes, row: pd.DataFrame, name: str, y: float, colour: str, marker: str) -> None:
    """One estimate with its interval."""
    if len(row):
        bars = error_bars(row, name)
        axes.errorbar(row[name], [y], xerr=bars, fmt=marker, color=colour, markersize=5.5, capsize=3, linewidth=1.2)


def _rows(axes: Axes, labels: list[str], values: pd.Series, xlabel: str) -> None:
    """A logarithmic axis of ratios with a named row for each label, the first on top."""
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    log_axis(axes.xaxis, [1.0, *values])
    axes.set_xlabel(xlabel, fontsize=9)
