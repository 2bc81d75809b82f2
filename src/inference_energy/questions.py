"""The analyses by name: which tables each reads, and how it is called.

The workflow makes one rule of each, so that editing an analysis repeats that analysis alone. The
workflow reads this at every start, so the analyses themselves are imported only to be run. A question that reads
another's table stands after it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_energy.errors import AnalysisError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from inference_energy.tables.studies import Studies


@dataclass(frozen=True)
class Statistics:
    """Settings of the statistics (``analysis`` in the configuration), and the size of the design.

    A question needs those it names in :attr:`Question.settings`; the others may be left out.
    """

    confidence: float | None = None
    n_bootstrap: int | None = None
    seed: int | None = None
    margin_fraction: float | None = None
    decoding_margin_fraction: float | None = None
    n_planned_runs: int | None = None
    time_to_first_token_max_s: float | None = None
    inter_token_latency_max_s: float | None = None


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
    resources : tuple of str
        Files below ``resources/`` that it takes after the tables, as read by pandas: all columns text.
    studies : {"deployment", "serving", "all"}
        Which rows it sees of tables that come from the records: those of :data:`tables.studies.SERVING`, the others,
        or all.
    """

    module: str
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    resources: tuple[str, ...] = ()
    studies: Studies = "deployment"

    @property
    def function(self) -> Callable[..., Any]:
        """The analysis: frames in, a result with a ``table()`` out."""
        name = self.module.rpartition(".")[2]
        found: Callable[..., Any] = getattr(importlib.import_module(f"inference_energy.{self.module}"), name)
        return found


_BOOTSTRAP = ("confidence", "n_bootstrap", "seed")
_GRID = tuple(f"published/baker_grid_{name}.csv" for name in ("configs", "axes", "latency_levels"))

QUESTIONS: dict[str, Question] = {
    "boundaries": Question("analyse.boundaries", ("runs", "qualifications"), ()),
    "energy_summary": Question("analyse.fold_range", ("boundaries",), _BOOTSTRAP),
    "published_spread": Question(
        "analyse.published_spread", ("energy_summary",), (), ("published/baker_energy_stats.csv",)
    ),
    "variance_split": Question("analyse.variance_split", ("runs", "windows", "boundaries"), ("confidence",)),
    "smallest_effects": Question("analyse.smallest_effects", ("variance_split",), ()),
    "batch_curve": Question("analyse.batch_curve", ("runs",), _BOOTSTRAP),
    "batch_knee": Question("analyse.batch_knee", ("runs",), _BOOTSTRAP),
    "level_ratio": Question("analyse.level_ratio", ("runs",), _BOOTSTRAP),
    "decoding_equivalence": Question(
        "analyse.decoding_equivalence", ("runs",), ("confidence", "decoding_margin_fraction")
    ),
    "decoding_trend": Question("analyse.decoding_trend", ("runs",), ("confidence",)),
    "equivalence": Question("analyse.equivalence", ("runs",), ("confidence", "margin_fraction")),
    "sittings": Question("analyse.sittings", ("runs", "devices"), (), studies="all"),
    "campaign_quality": Question(
        "analyse.campaign_quality",
        ("runs", "intervals", "windows", "warnings", "sittings"),
        ("n_planned_runs",),
        studies="all",
    ),
    "cost_range": Question("analyse.cost_range", ("runs",), ("confidence",)),
    "published_appliances": Question(
        "analyse.published_appliances",
        (),
        (),
        ("published/baker_appliance_energy.csv", "published/baker_appliance_responses.csv"),
    ),
    "accountings": Question("analyse.accountings", ("runs",), ()),
    "parallelism": Question("analyse.parallelism", ("runs", "accountings"), _BOOTSTRAP, ("published/claims.csv",)),
    "traffic": Question("analyse.traffic", ("runs",), _BOOTSTRAP),
    "scenarios": Question(
        "analyse.scenarios", ("runs", "accountings"), _BOOTSTRAP, ("published/baker_scenario_spread.csv",)
    ),
    "benchmark_gap": Question("analyse.benchmark_gap", ("scenarios", "cost_range"), ("confidence",)),
    "effects": Question("analyse.effects", ("runs",), ("confidence",)),
    "factor_ranking": Question(
        "analyse.factor_ranking", ("runs",), ("confidence",), ("published/baker_parameter_impact.csv",)
    ),
    "adjusted_runs": Question("analyse.adjusted_runs", ("runs",), ()),
    "grid_models": Question("analyse.grid_models", ("runs",), ("confidence",)),
    "grid_left_out": Question("analyse.grid_left_out", ("runs",), ("confidence",)),
    "grid_prediction": Question("analyse.grid_prediction", ("runs",), ("confidence",), _GRID),
    "grid_folds": Question("analyse.grid_folds", ("runs",), _BOOTSTRAP, (*_GRID, "published/baker_energy_stats.csv")),
    "audit_own": Question("analyse.audit_own", ("runs", "devices", "windows"), (), studies="all"),
    "anchors": Question("analyse.anchors", ("runs",), ("margin_fraction",)),
    "interference": Question("analyse.interference", ("runs", "device_checks"), ("confidence", "margin_fraction")),
    "utilisation": Question("analyse.utilisation", ("runs", "architectures", "gpu_facts"), ()),
    "throughput": Question("analyse.throughput", ("utilisation",), _BOOTSTRAP),
    "pareto": Question("analyse.pareto", ("utilisation",), _BOOTSTRAP),
    "explained": Question("analyse.explained", ("utilisation",), _BOOTSTRAP),
    "arrival_runs": Question("analyse.arrival_runs", ("runs", "requests"), (), studies="serving"),
    "arrival_curve": Question(
        "analyse.arrival_curve",
        ("arrival_runs",),
        ("confidence", "time_to_first_token_max_s", "inter_token_latency_max_s"),
    ),
    "arrival_ratio": Question("analyse.arrival_ratio", ("runs",), _BOOTSTRAP, studies="serving"),
    "energy_floor": Question(
        "analyse.energy_floor", ("runs", "arrival_runs", "architectures", "gpu_facts"), (), studies="serving"
    ),
    "model_size": Question("analyse.model_size", ("runs", "architectures"), _BOOTSTRAP, studies="serving"),
    "right_size": Question("analyse.right_size", ("runs", "architectures"), ("confidence",), studies="serving"),
    "quantisation": Question("analyse.quantisation", ("runs",), ("confidence",), studies="serving"),
    "engine_comparison": Question(
        "analyse.engine_comparison", ("runs",), _BOOTSTRAP, ("published/claims.csv",), studies="serving"
    ),
    "sharing": Question("analyse.sharing", ("runs",), ("confidence", "margin_fraction"), studies="serving"),
    "engine_start": Question("analyse.engine_start", ("runs", "devices"), ("confidence",), studies="serving"),
    "length_fits": Question(
        "analyse.length_fits",
        ("runs",),
        ("confidence",),
        ("published/wetzel_output_length.csv",),
        studies="serving",
    ),
    "length_ratios": Question("analyse.length_ratios", ("runs",), _BOOTSTRAP, studies="serving"),
    "prompts_curve": Question("analyse.prompts_curve", ("runs",), ("confidence",), studies="serving"),
    "phase_runs": Question("analyse.phase_runs", ("runs",), (), studies="serving"),
    "phases": Question("analyse.phases", ("phase_runs",), _BOOTSTRAP),
    "padding_runs": Question("analyse.padding_runs", ("runs",), (), studies="serving"),
    "padding": Question("analyse.padding", ("padding_runs",), ("confidence",)),
    "padding_shape": Question("analyse.padding_shape", ("padding_runs",), ("confidence",)),
    "claims": Question(
        "analyse.claims",
        (
            "runs",
            "energy_summary",
            "grid_folds",
            "factor_ranking",
            "batch_curve",
            "level_ratio",
            "decoding_equivalence",
            "decoding_trend",
            "parallelism",
            "traffic",
            "throughput",
            "scenarios",
            "model_size",
            "right_size",
            "quantisation",
            "engine_comparison",
            "phases",
            "padding",
            "padding_shape",
            "arrival_ratio",
            "length_fits",
            "length_ratios",
        ),
        _BOOTSTRAP,
        ("published/claims.csv", "claim_rules.csv"),
        studies="all",
    ),
}

#: Tables that come from the records, or from facts on what they name; a test holds them and the questions to tables.py.
RECORD_TABLES = (
    "runs",
    "windows",
    "intervals",
    "iterations",
    "samples",
    "devices",
    "device_checks",
    "warnings",
    "requests",
    "engine_samples",
    "qualifications",
    "architectures",
    "gpu_facts",
)


def find(question: str) -> Question:
    """The question of that name.

    Raises
    ------
    AnalysisError
        If there is none.
    """
    if question not in QUESTIONS:
        raise AnalysisError("analyse", f"{question!r} is no question. {did_you_mean(question, QUESTIONS)}")
    return QUESTIONS[question]


def answer(question: str, folder: Path, statistics: Statistics, resources: Path = Path("resources")) -> None:
    """Read the tables that `question` needs from `folder`, analyse, and write its table there.

    Raises
    ------
    AnalysisError
        If the question is unknown, or a table or a resource is missing.
    """
    from inference_energy import tables

    frame = answered(question, lambda name: tables.read(name, folder), statistics, resources)
    tables.write(frame, tables.TABLES[question], folder)


def answered(
    question: str, table: Callable[[str], pd.DataFrame], statistics: Statistics, resources: Path = Path("resources")
) -> pd.DataFrame:
    """The table of `question`, from what `table` gives for each name of an input.

    A question about deployments that a campaign did not measure has an empty table (:func:`_unmeasured`).

    Raises
    ------
    AnalysisError
        If the question is unknown, or a resource or a setting that it needs is missing.
    """
    import pandas

    from inference_energy import tables
    from inference_energy.tables.studies import of_studies

    asked = find(question)
    keywords = {name: getattr(statistics, name) for name in asked.settings}
    for name, value in keywords.items():
        if value is None:
            raise AnalysisError(f"analyse {question}", f"no {name}", f"a value: --{name.replace('_', '-')}")
    inputs = {name: table(name) for name in asked.inputs}
    if _unmeasured(asked, inputs):
        return tables.conform(pandas.DataFrame(columns=tables.TABLES[question].names), tables.TABLES[question])
    frames = [of_studies(frame, asked.studies) if name in RECORD_TABLES else frame for name, frame in inputs.items()]
    for name in asked.resources:
        if not (resources / name).exists():
            raise AnalysisError(str(resources / name), "missing", "", "Restore it: git checkout resources")
        frames.append(pandas.read_csv(resources / name, dtype="string", keep_default_na=False))
    found: pd.DataFrame = asked.function(*frames, **keywords).table()
    return found


def _unmeasured(asked: Question, inputs: dict[str, pd.DataFrame]) -> bool:
    """Whether a question about deployments finds none in its first table, which says what it is about.

    Of table ``runs`` those with numbers count. Where no study of the campaign has any, something went wrong, and the
    analysis says what. Questions about serving say themselves what they can say without runs.
    """
    from inference_energy.tables.studies import of_studies

    if not inputs or asked.studies != "deployment":
        return False
    first, frame = next(iter(inputs.items()))
    if first != "runs":
        return frame.empty
    measured = frame[frame["energy_j_per_output_token"].notna()]
    return len(measured) > 0 and of_studies(measured, asked.studies).empty
