"""The published scenarios: where they lie, and how far apart."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from inference_energy.figures.style import COLOURS, GREY, POINT, blank, canvas, error_bars, key_above, log_axis
from inference_energy.models.scenarios import CV, ENERGY, FOLD, IDEAL, IDEAL_SHARE, REALISTIC
from inference_energy.units import axis_label

ACCOUNTINGS = {
    "generated": ("per generated token", COLOURS[0], "o"),
    "answered": ("per answered token", COLOURS[2], "^"),
    "published": ("as published", COLOURS[1], "s"),
}
VERSIONS = {"scenarios_text": "text", "scenarios_code": "code"}
_PALETTE = {words: colour for words, colour, _ in ACCOUNTINGS.values()}
_MARKS = {words: (marker, "-") for words, _, marker in ACCOUNTINGS.values()}


def scenario_energy(runs: pd.DataFrame, title: str, caption: str) -> Figure:
    """Energy per token of every scenario under three accountings, a panel a version and model.

    Parameters
    ----------
    runs : DataFrame
        Runs with the columns ``scenario``, ``accounting`` and energy per output token; every run is
        a point, a line joins the smallest and the largest of a scenario.
    title, caption : str
        The finding and the small print.
    """
    names = [IDEAL, *REALISTIC]
    shown = runs[runs["scenario"].isin(names)].dropna(subset=[ENERGY])
    if shown.empty:
        return blank(title)
    panels = sorted({(str(row.study), str(row.model)) for row in shown.itertuples()})
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, grid = canvas(
        title, caption, height_in=0.5 + 2.9 * n_rows, nrows=n_rows, ncols=n_columns, sharex=True, sharey=True
    )
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    for axes, (version, model) in zip(grid.ravel(), panels, strict=False):
        of_panel = shown[(shown["study"] == version) & (shown["model"] == model)]
        for place, name in enumerate(names):
            of_name = of_panel[of_panel["scenario"] == name]
            energies = of_name[ENERGY].astype(float)
            axes.plot([energies.min(), energies.max()], [place, place], color=GREY, linewidth=1)
            for accounting, (_, colour, marker) in ACCOUNTINGS.items():
                values = of_name.loc[of_name["accounting"] == accounting, ENERGY].astype(float)
                axes.plot(values, [place] * len(values), marker, color=colour, **{**POINT, "markersize": 6})
        axes.set_ylim(len(names) - 0.5, -0.6)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{model}, as the {VERSIONS[version]} has them", fontsize=10, loc="left")
        axes.set_xlabel(axis_label(ENERGY))
    log_axis(grid[0, 0].xaxis, shown[ENERGY])
    key_above(grid, _PALETTE, _MARKS)
    return figure


def scenario_spread(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Fold, CV and the share of A1 under three accountings, beside what the study states.

    Parameters
    ----------
    rows : DataFrame
        Table `scenarios`.
    title, caption : str
        The finding and the small print.
    """
    heads = {
        FOLD: ("R1 to R6: largest\nover smallest (×)", 1),
        CV: ("R1 to R6: CV (%)", 100),
        IDEAL_SHARE: ("A1 over their\nmean (%)", 100),
    }
    shown = rows[rows["quantity"].isin(list(heads))].dropna(subset=["estimate"])
    if shown.empty:
        return blank(title)
    lines = sorted({(str(row.version), str(row.model)) for row in shown.itertuples()})
    figure, grid = canvas(title, caption, height_in=1.3 + 0.75 * len(lines), ncols=len(heads), sharey=True)
    for axes, (quantity, (words, scale)) in zip(grid[0], heads.items(), strict=True):
        of_quantity = shown[shown["quantity"] == quantity]
        for place, (version, model) in enumerate(lines):
            of_line = of_quantity[(of_quantity["version"] == version) & (of_quantity["model"] == model)]
            for shift, (accounting, (_, colour, marker)) in zip((-0.2, 0, 0.2), ACCOUNTINGS.items(), strict=True):
                one = of_line[of_line["accounting"] == accounting]
                axes.errorbar(
                    one["estimate"] * scale,
                    [place + shift] * len(one),
                    xerr=error_bars(one, "estimate") * scale,
                    fmt=marker,
                    color=colour,
                    capsize=3,
                )
            stated = of_line["published_ratio"].dropna()
            if len(stated):
                axes.plot([stated.iloc[0] * scale] * 2, [place - 0.35, place + 0.35], color="black", linewidth=2)
        axes.set_xlim(left=0)
        axes.set_xlabel(words, fontsize=9)
        axes.grid(visible=False, axis="y")
    names = [f"{model},\n{VERSIONS[version]}" for version, model in lines]
    grid[0, 0].set_yticks(range(len(lines)), names)
    grid[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    key_above(grid, _PALETTE, _MARKS)
    return figure
