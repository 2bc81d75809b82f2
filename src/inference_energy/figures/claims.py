"""Figures on claims: what became of them, and our effects beside the published ones."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from inference_energy.figures.style import COLOURS, GREY, LIGHT, blank, canvas
from inference_energy.verdicts import BAND_FRACTION

EFFECT = "effect_over_published_ratio"
#: Verdicts from best to none, with a colour and a marker each.
VERDICTS = {
    "reproduced": (COLOURS[0], "o"),
    "same direction": (COLOURS[5], "s"),
    "not reproduced": (COLOURS[4], "D"),
    "contradicted": (COLOURS[1], "X"),
    "not testable here": (LIGHT, "."),
}
BAND = (1 - BAND_FRACTION, 1 + BAND_FRACTION)
_LEAST, _MOST = -1.5, 3.5  # beyond it a mark stands at the edge with its value


def claims_verdicts(counts: pd.DataFrame, title: str, caption: str) -> Figure:
    """Claims by verdict, a row per study.

    Parameters
    ----------
    counts : DataFrame
        Columns study, verdict and n_claims.
    title, caption : str
        The finding and the small print.
    """
    if not counts["n_claims"].sum():
        return blank(title)
    studies = list(dict.fromkeys(counts["study"]))
    figure, grid = canvas(title, caption, height_in=0.9 + 0.5 * len(studies))
    axes = grid[0, 0]
    table = counts.pivot_table(index="study", columns="verdict", values="n_claims", sort=False)
    left = np.zeros(len(studies))
    for verdict, (colour, _) in VERDICTS.items():
        widths = table.loc[studies, verdict].to_numpy(float)
        axes.barh(studies, widths, left=left, color=colour, edgecolor="white", height=0.62)
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width:
                axes.text(start + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=9)
        left += widths
    axes.set_yticks(range(len(studies)), [study.capitalize() for study in studies])
    axes.set_ylim(len(studies) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Number of claims")
    handles = [Patch(color=colour, label=verdict) for verdict, (colour, _) in VERDICTS.items()]
    axes.legend(handles=handles, ncols=5, frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.08, 1))
    return figure


def claims_compared(rows: pd.DataFrame, title: str, caption: str) -> Figure:
    """Our effect over the published one, a line per claim; filled its first reading, hollow the others.

    Parameters
    ----------
    rows : DataFrame
        Rows of table `claims` with ``effect_over_published_ratio``.
    title, caption : str
        The finding and the small print.
    """
    if rows.empty:
        return blank(title)
    names = list(dict.fromkeys(zip(rows["study"], rows["claim_id"], strict=True)))
    figure, grid = canvas(title, caption, height_in=1.0 + 0.24 * len(names))
    axes = grid[0, 0]
    axes.axvspan(*BAND, color="#eef4f8", zorder=0)
    for end in (0, 1):
        axes.axvline(end, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)) if end == 0 else "-")
    for place, (study, claim) in enumerate(names):
        readings = rows[(rows["study"] == study) & (rows["claim_id"] == claim)]
        offsets = np.linspace(-0.27, 0.27, len(readings)) if len(readings) > 1 else [0.0]
        for offset, (_, row) in zip(offsets, readings.iterrows(), strict=True):
            _effect(axes, place + float(offset), row)
    said = rows.drop_duplicates(["study", "claim_id"]).set_index(["study", "claim_id"])["statement"]
    labels = [f"{study.capitalize()}: {_brief(said[study, claim])}" for study, claim in names]
    axes.set_yticks(range(len(names)), labels, fontsize=6.8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(_LEAST - 0.1, _MOST + 0.1)
    axes.set_xlabel("Our effect over the published one (0: none; 1: as published; shaded: ± a fifth)", fontsize=8.5)
    found = [verdict for verdict in VERDICTS if verdict in set(rows["verdict"])]
    handles = [
        axes.plot([], [], VERDICTS[verdict][1], color=VERDICTS[verdict][0], label=verdict)[0] for verdict in found
    ]
    key = axes.legend(handles=handles, ncols=4, frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 1))
    key.set_in_layout(False)  # or the names on the left are cut
    axes.set_title(" ", fontsize=13)  # room for it
    return figure


def _brief(statement: str) -> str:
    """A claim on one line."""
    return textwrap.shorten(statement, 54, placeholder=" …")


def _effect(axes: Axes, height: float, row: pd.Series) -> None:
    """One estimate with its interval; beyond the panel's ends an arrow with the value."""
    colour, marker = VERDICTS[str(row["verdict"])]
    value, low, high = (float(row[f"{EFFECT}{end}"]) for end in ("", "_low", "_high"))
    if np.isfinite(low):
        axes.plot(np.clip([low, high], _LEAST, _MOST), [height, height], color=colour, linewidth=1.4)
    inside = _LEAST <= value <= _MOST
    shown = marker if inside else ">" if value > _MOST else "<"
    face = colour if bool(row["main"]) else "white"
    axes.plot(float(np.clip(value, _LEAST, _MOST)), height, shown, color=colour, markerfacecolor=face, markersize=6)
    if not inside:
        side = -1 if value > _MOST else 1
        axes.annotate(
            f"{value:.1f}",
            (float(np.clip(value, _LEAST, _MOST)), height),
            (7 * side, 0),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            va="center",
            fontsize=7.5,
        )
