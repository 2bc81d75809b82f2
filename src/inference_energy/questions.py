"""The analyses by name: which tables each reads, and how it is called.

The workflow makes one rule of each, so that editing an analysis repeats that analysis alone. The
workflow reads this at every start, so the analyses themselves are imported only to be run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.errors import AnalysisError, did_you_mean


@dataclass(frozen=True)
class Statistics:
    """Settings of the statistics (``analysis`` in the configuration), and the size of the design."""

    confidence: float
    n_bootstrap: int
    seed: int
    margin_fraction: float
    n_planned_runs: int


@dataclass(frozen=True)
class Question:
    """One analysis.

    Attributes
    ----------
    module : str
        Below the package, with a function of the same name; the workflow's digest is made of it and
        what it imports.
    inputs : tuple of str
        Names of the tables it takes, in order.
    settings : tuple of str
        Names of the :class:`Statistics` that it takes as keywords.
    """

    module: str
    inputs: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def function(self) -> Callable[..., Any]:
        """The analysis: frames in, a result with a ``table()`` out."""
        name = self.module.rpartition(".")[2]
        found: Callable[..., Any] = getattr(importlib.import_module(f"inference_energy.{self.module}"), name)
        return found


_BOOTSTRAP = ("confidence", "n_bootstrap", "seed")

QUESTIONS: dict[str, Question] = {
    "energy_summary": Question("analyse.fold_range", ("runs",), _BOOTSTRAP),
    "variability": Question("analyse.variability", ("windows",), _BOOTSTRAP),
    "batch_curve": Question("analyse.batch_curve", ("runs",), _BOOTSTRAP),
    "equivalence": Question("analyse.equivalence", ("runs",), ("confidence", "margin_fraction")),
    "sittings": Question("analyse.sittings", ("runs", "devices"), ()),
    "campaign_quality": Question(
        "analyse.campaign_quality", ("runs", "intervals", "windows", "warnings", "sittings"), ("n_planned_runs",)
    ),
    "anchors": Question("analyse.anchors", ("runs",), ("margin_fraction",)),
    "interference": Question("analyse.interference", ("runs", "device_checks"), ("confidence", "margin_fraction")),
}

#: Tables that come from the records alone; a test holds them and the questions to tables.py.
RECORD_TABLES = (
    *(
        "runs",
        "windows",
        "intervals",
        "iterations",
        "samples",
        "devices",
        "device_checks",
        "warnings",
        "qualifications",
    ),
)


def answer(question: str, folder: Path, statistics: Statistics) -> None:
    """Read the tables that `question` needs from `folder`, analyse, and write its table there.

    Raises
    ------
    AnalysisError
        If the question is unknown or a table is missing.
    """
    from inference_energy import tables

    if question not in QUESTIONS:
        raise AnalysisError("analyse", f"{question!r} is no question. {did_you_mean(question, QUESTIONS)}")
    asked = QUESTIONS[question]
    frames = [tables.read(name, folder) for name in asked.inputs]
    keywords = {name: getattr(statistics, name) for name in asked.settings}
    tables.write(asked.function(*frames, **keywords).table(), tables.TABLES[question], folder)
