"""The policy report's figure: one response beside everyday uses of electricity."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from inference_energy.figures.style import COLOURS, GREY, blank, canvas, log_axis, spread


def response(uses: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy of one response in every setting beside appliances, on one logarithmic axis.

    Parameters
    ----------
    uses : DataFrame
        Columns name, kind (response or appliance), ``energy_j``.
    title, caption : str
        The finding and the small print.
    """
    responses = uses[uses["kind"] == "response"]
    others = uses[uses["kind"] != "response"].sort_values("energy_j")
    if responses.empty:
        return blank(title, caption)
    figure, grid = canvas(title, caption, height_in=1.4 + 0.3 * len(others))
    axes = grid[0, 0]
    axes.plot(responses["energy_j"], spread(len(responses), 0.5), "o", color=COLOURS[0], alpha=0.5, markeredgewidth=0)
    ends = {responses["energy_j"].idxmin(): (-0.75, "left"), responses["energy_j"].idxmax(): (0.42, "right")}
    for index, (height, side) in ends.items():
        row = responses.loc[index]
        axes.text(row["energy_j"], height, row["name"], ha=side, va="center", fontsize=8, color=COLOURS[0])
    for place, (_, row) in enumerate(others.iterrows(), start=1):
        axes.plot(row["energy_j"], place, "s", color=COLOURS[1])
        axes.hlines(place, 0, row["energy_j"], color=COLOURS[1], linewidth=0.6, alpha=0.5)
        axes.annotate(row["name"], (row["energy_j"], place), (7, 0), textcoords="offset points", va="center", fontsize=9)
    log_axis(axes.xaxis, uses["energy_j"])
    low, high = float(uses["energy_j"].min()), float(uses["energy_j"].max())
    axes.set_xlim(low / 4, high * 30)
    axes.set_yticks([0, *range(1, len(others) + 1)], ["one response", *[""] * len(others)])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(others) + 0.6, -1.1)
    axes.grid(visible=False, axis="y")
    axes.axhline(0.68, color=GREY, linewidth=0.6)
    axes.set_xlabel("Energy at the site (J)")
    return figure
