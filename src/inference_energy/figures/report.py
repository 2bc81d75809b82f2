"""The policy report's figure: one response beside everyday uses of electricity."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inference_energy.figures.style import COLOURS, GREY, blank, canvas, joule_tick, log_axis, spread


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
        return blank(title)
    figure, grid = canvas(title, caption, height_in=1.6 + 0.3 * len(others))
    axes = grid[0, 0]
    axes.plot(
        responses["energy_j"], spread(len(responses), 0.4) - 0.4, "o", color=COLOURS[0], alpha=0.5, markeredgewidth=0
    )
    ordered = responses.sort_values("energy_j")
    for row, which, shift in ((ordered.iloc[0], "least", (0, 13)), (ordered.iloc[-1], "most", (8, 0))):
        axes.annotate(
            f"{which}: {row['name']}",
            (row["energy_j"], -0.4),
            shift,
            textcoords="offset points",
            va="center",
            fontsize=8,
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
    axes.set_xlim(low / 4, high * 30)
    axes.set_yticks([-0.4, *range(1, len(others) + 1)], ["one response", *[""] * len(others)])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(others) + 0.6, -1.4)
    axes.grid(visible=False, axis="y")
    axes.axhline(0.5, color=GREY, linewidth=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(joule_tick))
    axes.set_xlabel("Energy at the site, PUE included")
    return figure
