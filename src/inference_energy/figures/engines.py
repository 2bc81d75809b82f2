"""Engines beside each other: energy, ratios, what energy consists of, sharing, starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator

from inference_energy.figures.style import (
    COLOURS,
    GREY,
    POINT,
    blank,
    canvas,
    error_bars,
    joule_tick,
    log_axis,
    short,
)
from inference_energy.models.engines import (
    CPU,
    EAGER,
    ENERGY,
    ENGINES,
    GRAPHS,
    IDLE,
    MANY,
    NET,
    ONE,
    RAM,
    START_ENERGY,
    START_S,
    TRANSFORMERS,
)

STYLE = {TRANSFORMERS: (COLOURS[1], "s"), EAGER: (COLOURS[5], "o"), GRAPHS: (COLOURS[0], "D")}
#: Colours and hatches of what energy consists of; hatched: estimates.
PARTS = {
    NET: ("GPU above its idle power (measured)", COLOURS[0], ""),
    IDLE: ("GPU, idle power (measured)", COLOURS[5], ""),
    CPU: ("CPU (estimate)", "#f2c98a", "///"),
    RAM: ("RAM (estimate)", "#e3e3e3", "..."),
}
VERDICTS = {"equivalent": COLOURS[2], "different": COLOURS[1], "undecided": GREY}


def _ordered(rows: pd.DataFrame, name: str = ENERGY) -> list[str]:
    """Models from the least energy to the most."""
    means = rows.groupby("model")[name].mean().sort_values()
    return [str(model) for model in means.index]


def energy(runs: pd.DataFrame, rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per output token by model, a panel for each batch size and a mark for each engine.

    Parameters
    ----------
    runs : DataFrame
        Runs with ``words``, the engine; each is a small mark.
    rows : DataFrame
        Table `engine_comparison`: means with their intervals.
    title, caption : str
        The finding and the small print.
    """
    levels = rows[rows["baseline"].isna() & rows["quantity"].eq(ENERGY)] if len(rows) else rows
    if levels.empty:
        return blank(title)
    models, batches = _ordered(runs), sorted(levels["batch_size"].unique())
    figure, grid = canvas(title, caption, height_in=3.9, ncols=len(batches), sharey=True)
    for axes, batch in zip(grid[0], batches, strict=True):
        for place, engine in enumerate(ENGINES):
            colour, marker = STYLE[engine]
            chosen = levels[levels["engine"].eq(engine) & levels["batch_size"].eq(batch)]
            single = runs[runs["words"].eq(engine) & runs["batch_size"].eq(batch)]
            x = np.array([models.index(model) for model in chosen["model"]], dtype=float) + 0.2 * (place - 1)
            beside = (
                np.array([models.index(model) for model in single["model"]], dtype=float) + 0.2 * (place - 1) + 0.08
            )
            axes.plot(beside, single[ENERGY].astype(float), marker, color=colour, **POINT)
            look: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 7, "markerfacecolor": "white"}
            axes.errorbar(x, chosen["estimate"], error_bars(chosen, "estimate"), fmt=marker, label=engine, **look)
        axes.set_xticks(range(len(models)), models)
        axes.set_xlim(-0.5, len(models) - 0.5)
        axes.set_title("one prompt at a time" if batch == ONE else f"{batch} prompts at once", fontsize=10, loc="left")
        axes.grid(visible=False, axis="x")
    log_axis(grid[0, 0].yaxis, runs[ENERGY].astype(float))
    grid[0, 0].set_ylabel("Energy per output token (J)")
    grid[0, -1].legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def ratios(
    rows: pd.DataFrame, points: pd.DataFrame, title: str, caption: str, published_ratio: float | None = None
) -> Figure:
    """Energy over that of another engine, a row for each model and batch.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `engine_comparison` of one comparison or two, in the order from top to bottom.
    points : DataFrame
        Ratios of single cycles: ``model``, both batch sizes, ``estimate``.
    title, caption : str
        The finding and the small print.
    published_ratio : float, optional
        What a published study states.
    """
    shown = rows[rows["estimate"].notna()].reset_index(drop=True) if len(rows) else rows
    if shown.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.1 + 0.34 * len(shown))
    axes = grid[0, 0]
    for place, (_, row) in enumerate(shown.iterrows()):
        alike = points["batch_size"].eq(row["batch_size"]) & points["baseline_batch_size"].eq(
            row["baseline_batch_size"]
        )
        single = points[alike & points["model"].eq(row["model"])]["estimate"].astype(float)
        look = (COLOURS[0], "o") if row["batch_size"] == row["baseline_batch_size"] else (COLOURS[1], "s")
        _row(axes, place, shown.iloc[[place]], look, single)
        _beside(axes, place, f"{short(float(row['estimate']))}×", look[0])
    values = [*shown["estimate"], 1.0]
    if published_ratio is not None and np.isfinite(published_ratio):
        axes.axvline(published_ratio, color=COLOURS[3], linestyle="--", linewidth=1.2)
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 9}
        words = f"published, with CPU and RAM: {short(published_ratio)}×"
        axes.annotate(words, (published_ratio, 1), (0, 3), ha="center", color=COLOURS[3], **where)
        values.append(published_ratio)
    axes.axvline(1, color=GREY, linewidth=1)
    log_axis(axes.xaxis, values)
    _categories(axes, [_ratio_label(row) for _, row in shown.iterrows()])
    first = shown.iloc[0]
    axes.set_xlabel(f"Energy per output token: {first['engine']} over {first['baseline']} (ratio)")
    return figure


def _ratio_label(row: pd.Series) -> str:
    batch, below = row["batch_size"], row["baseline_batch_size"]
    model = "all models" if row["model"] == "all" else row["model"]
    return f"{model}, {batch} over {below} prompts" if batch != below else f"{model}, {batch} prompt{'s' * (batch > 1)}"


def _row(axes: Axes, place: float, row: pd.DataFrame, look: tuple[str, str], points: pd.Series) -> None:
    """An estimate with its interval, and single runs below it."""
    colour, marker = look
    faint: dict[str, Any] = {"color": "black", "alpha": 0.4, "markersize": 3.5, "markeredgewidth": 0}
    axes.plot(points.astype(float), [place + 0.25] * len(points), "o", **faint)
    face = "white" if row["model"].iloc[0] == "all" else colour
    where: dict[str, Any] = {"xerr": error_bars(row, "estimate"), "fmt": marker, "capsize": 3}
    axes.errorbar(row["estimate"], [place], color=colour, markerfacecolor=face, **where)


def _beside(axes: Axes, place: float, words: str, colour: str) -> None:
    """Words at the right end of a row."""
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 9}
    axes.annotate(words, (1, place), (5, 0), va="center", color=colour, **where)


def _categories(axes: Axes, labels: Sequence[str], places: Sequence[float] | None = None) -> None:
    at = np.arange(len(labels)) if places is None else np.array(places)
    axes.set_yticks(at, labels)
    axes.set_ylim(at[-1] + 0.6, -0.6)
    axes.grid(visible=False, axis="y")


def _grouped(names: Sequence[str]) -> list[float]:
    """Places of rows, with room between groups of equal names."""
    changes = np.cumsum([0, *(first != second for first, second in itertools.pairwise(names))])
    return [float(place) for place in np.arange(len(names)) + 0.5 * changes]


def parts(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """What a token's energy consists of, over that in transformers; a bar for each engine, a panel for each batch.

    Parameters
    ----------
    rows : DataFrame
        model, batch_size, engine, component, ``energy_j_per_output_token`` and ``over_transformers_ratio``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    batches = [batch for batch in sorted(rows["batch_size"].unique()) if batch in (ONE, MANY)]
    there = set(zip(rows["model"], rows["engine"], strict=True))
    bars = [(model, engine) for model in _ordered(rows) for engine in ENGINES if (model, engine) in there]
    places = _grouped([model for model, _ in bars])
    figure, grid = canvas(title, caption, height_in=1.6 + 0.32 * len(bars), ncols=len(batches), sharey=True)
    for axes, batch in zip(grid[0], batches, strict=True):
        for place, (model, engine) in zip(places, bars, strict=True):
            chosen = rows[rows["batch_size"].eq(batch) & rows["model"].eq(model) & rows["engine"].eq(engine)]
            left = 0.0
            for component, (_, colour, hatch) in PARTS.items():
                width = 100 * chosen.loc[chosen["component"] == component, "over_transformers_ratio"].sum()
                axes.barh(place, width, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
                left += width
            if len(chosen):
                total = _joules(float(chosen[ENERGY].sum()))
                axes.annotate(total, (left, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        words = "one prompt at a time" if batch == ONE else f"{batch} prompts at once"
        axes.set_title(f"\n\n\n{words}", fontsize=10, loc="left")  # empty lines: room for the key
        axes.set_xlim(0, 128)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel("Energy per output token\n(% of that in transformers)")
    _categories(grid[0, 0], [f"{model}: {name}" if name == TRANSFORMERS else name for model, name in bars], places)
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=words) for words, colour, hatch in PARTS.values()
    ]
    look: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "ncols": 2, "borderaxespad": 1.9}
    key = grid[0, 0].legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), **look)
    key.set_in_layout(False)
    return figure


def _joules(value: float) -> str:
    scale, unit = (1e-3, "kJ") if value >= 1000 else (1.0, "J") if value >= 1 else (1e3, "mJ")
    return f"{short(value * scale)} {unit}"


def sharing(rows: pd.DataFrame, points: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy in a shared engine over that in an engine of its own, and the drift with places in the process.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `sharing` of one quantity, with ``label``.
    points : DataFrame
        Ratios of single cycles: model, batch_size, ``estimate``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.2 + 0.42 * len(rows))
    axes = grid[0, 0]
    margin = float(rows["margin_fraction"].iloc[0])
    axes.axvspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.14, linewidth=0)
    axes.axvline(1, color=COLOURS[2], linewidth=1)
    where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 9}
    axes.annotate(f"counts as equal: ± {margin * 100:g} %", (1, 1), (0, 3), ha="center", color=COLOURS[2], **where)
    for place, (_, row) in enumerate(rows.iterrows()):
        colour = VERDICTS.get(str(row["verdict"]), GREY)
        alike = points["model"].eq(row["model"]) & points["batch_size"].eq(row["batch_size"])
        _row(axes, place, rows.iloc[[place]], (colour, "D"), points.loc[alike, "estimate"])
        _beside(axes, place, f"{row['verdict']} (n = {row['n_pairs']})", colour)
    _categories(axes, rows["label"].tolist())
    axes.margins(x=0.1)
    axes.set_xlabel("Energy per output token: shared over own engine, or last over first place (ratio)")
    return figure


def start(rows: pd.DataFrame, points: pd.DataFrame, title: str, caption: str) -> Figure:
    """Seconds and energy of a start, a row for each model, engine and state of the compile cache.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `engine_start` with ``label``, in the order from top to bottom.
    points : DataFrame
        Single starts: model, label, ``load_s`` and ``load_energy_j``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    bars = list(dict.fromkeys(zip(rows["model"], rows["label"], strict=True)))
    places = _grouped([model for model, _ in bars])
    figure, grid = canvas(title, caption, height_in=1.1 + 0.3 * len(bars), ncols=2, sharey=True)
    panels = ((START_S, "Start (s)"), (START_ENERGY, "Energy of the start"))
    for axes, (quantity, heading) in zip(grid[0], panels, strict=True):
        chosen = rows[rows["quantity"] == quantity]
        for number, (_, row) in enumerate(chosen.iterrows()):
            place, estimate = places[bars.index((row["model"], row["label"]))], float(row["estimate"])
            single = points[points["model"].eq(row["model"]) & points["label"].eq(row["label"])][quantity].dropna()
            _row(axes, place, chosen.iloc[[number]], STYLE[row["engine"]], single)
            words = short(estimate) if quantity == START_S else _joules(estimate)
            axes.annotate(words, (estimate, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        log_axis(axes.xaxis, chosen["estimate"])
        axes.xaxis.set_major_locator(LogLocator(numticks=10))  # decades: panels are narrow
        if quantity == START_ENERGY:
            axes.xaxis.set_major_formatter(FuncFormatter(joule_tick))
        axes.margins(x=0.15)
        axes.set_xlabel(heading)
    firsts = {model: place for place, (model, _) in reversed(list(enumerate(bars)))}
    labels = [f"{model}: {label}" if firsts[model] == n else label for n, (model, label) in enumerate(bars)]
    _categories(grid[0, 0], labels, places)
    return figure
