"""What a notebook reads: the tables of one campaign, what is known about it, and what is assumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy import tables
from inference_energy.about import About as About, footer as footer, read_about as read_about, read_keys
from inference_energy.errors import AnalysisError
from inference_energy.policy.wording import counted
from inference_energy.tables.studies import Studies, of_studies

ENERGY = "energy_j_per_output_token"

#: How each instrument is named to a reader: a measurement is never mixed up with an estimate.
METHODS: dict[str, str] = {
    "nvml_total_energy": "energy measured by the GPU's own counter (NVML)",
    "rapl": "energy measured by the CPU's counters (RAPL)",
    "codecarbon_estimate": "energy is CodeCarbon's estimate, not a measurement",
    "replay": "energy replayed from recorded traces, not measured anew",
    "fake": "energy from a simulated meter, not a measurement",
}

#: Methods that are no measurement: their numbers carry a warning wherever they lead to a conclusion.
ESTIMATES = frozenset({"codecarbon_estimate", "fake"})


@dataclass(frozen=True)
class Fact:
    """A value from the outside world, with where it comes from."""

    name: str
    value: float
    unit: str
    source: str
    year: int

    @property
    def words(self) -> str:
        """The name as a reader says it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Note:
    """An ``ASSUME:`` or ``SOURCE:`` comment of the code or the configuration."""

    kind: str
    where: str
    text: str


@dataclass(frozen=True)
class Assumptions:
    """What turns joules into policy: ``tables/context.json``."""

    grid: Fact
    price: Fact
    pue: Fact
    grids: tuple[Fact, ...]
    appliances: tuple[Fact, ...]
    pues: tuple[Fact, ...]
    household: Fact
    requests: tuple[Fact, ...]
    n_response_tokens: int
    confidence: float
    notes: tuple[Note, ...]


class NotLoaded:
    """Stands for a table that a page did not ask for; any use of it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # Python itself asks for these, as when copying
            raise AttributeError(attribute)
        raise AnalysisError(
            f"table {self._name}",
            "the page uses it and did not load it",
            "every table in the third argument of policy.load: the workflow makes those first",
        )

    def __getitem__(self, key: object) -> Any:
        return self.__getattr__("loc")

    def __len__(self) -> int:
        return len(self.__getattr__("index"))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All a notebook shows of one campaign; `every_run` holds `runs` of studies that a page does not ask for, too."""

    about: About
    assumptions: Assumptions
    figures: Path
    every_run: pd.DataFrame
    runs: pd.DataFrame
    windows: pd.DataFrame
    intervals: pd.DataFrame
    iterations: pd.DataFrame
    samples: pd.DataFrame
    warnings: pd.DataFrame
    requests: pd.DataFrame
    engine_samples: pd.DataFrame
    campaign_quality: pd.DataFrame
    boundaries: pd.DataFrame
    energy_summary: pd.DataFrame
    published_spread: pd.DataFrame
    variance_split: pd.DataFrame
    smallest_effects: pd.DataFrame
    batch_curve: pd.DataFrame
    batch_knee: pd.DataFrame
    level_ratio: pd.DataFrame
    decoding_equivalence: pd.DataFrame
    decoding_trend: pd.DataFrame
    equivalence: pd.DataFrame
    device_checks: pd.DataFrame
    qualifications: pd.DataFrame
    sittings: pd.DataFrame
    effects: pd.DataFrame
    factor_ranking: pd.DataFrame
    adjusted_runs: pd.DataFrame
    grid_models: pd.DataFrame
    grid_left_out: pd.DataFrame
    grid_prediction: pd.DataFrame
    grid_folds: pd.DataFrame
    anchors: pd.DataFrame
    audit_own: pd.DataFrame
    interference: pd.DataFrame
    architectures: pd.DataFrame
    model_size: pd.DataFrame
    right_size: pd.DataFrame
    quantisation: pd.DataFrame
    claims: pd.DataFrame
    utilisation: pd.DataFrame
    throughput: pd.DataFrame
    pareto: pd.DataFrame
    explained: pd.DataFrame
    accountings: pd.DataFrame
    parallelism: pd.DataFrame
    traffic: pd.DataFrame
    scenarios: pd.DataFrame
    cost_range: pd.DataFrame
    benchmark_gap: pd.DataFrame
    published_appliances: pd.DataFrame
    engine_comparison: pd.DataFrame
    sharing: pd.DataFrame
    engine_start: pd.DataFrame
    arrival_runs: pd.DataFrame
    arrival_curve: pd.DataFrame
    arrival_ratio: pd.DataFrame
    energy_floor: pd.DataFrame
    length_fits: pd.DataFrame
    length_ratios: pd.DataFrame
    prompts_curve: pd.DataFrame
    phase_runs: pd.DataFrame
    phases: pd.DataFrame
    padding_runs: pd.DataFrame
    padding: pd.DataFrame
    padding_shape: pd.DataFrame

    @property
    def ok(self) -> pd.DataFrame:
        """Runs that hold numbers."""
        return self.runs[self.runs["status"] == "ok"]

    @property
    def every_ok(self) -> pd.DataFrame:
        """Runs of all studies that hold numbers."""
        return self.every_run[self.every_run["status"] == "ok"]

    @property
    def batching(self) -> pd.DataFrame:
        """Runs with numbers of the study on batch size; all runs where a campaign has no such study."""
        chosen = self.ok[self.ok["study"] == "batching"]
        return chosen if len(chosen) else self.ok

    @property
    def methods(self) -> list[str]:
        """Instruments the energies come from; those of all studies where the page has no run."""
        runs = self.runs if len(self.runs) else self.every_run
        return sorted(runs["energy_method"].dropna().unique())

    @property
    def method_words(self) -> str:
        """The instruments in words."""
        return "; ".join(METHODS.get(method, f"energy method {method}") for method in self.methods) or "no energies"


def load(
    results: str | Path, campaign: str, names: Iterable[str] | None = None, studies: Studies = "deployment"
) -> Evidence:
    """Read everything a notebook shows of `campaign`.

    Parameters
    ----------
    results : str or Path
        Folder of all results.
    campaign : str
        Folder below it.
    names : iterable of str, optional
        Tables to read; all unless given. Using another one raises.
    studies : {"deployment", "serving", "all"}
        Which rows it shows of tables that come from the records: see :mod:`inference_energy.tables.studies`.

    Raises
    ------
    AnalysisError
        If the campaign has no tables yet, a name is no table, or a table is missing or of other columns.
    """
    folder = Path(results) / campaign / "tables"
    if not (folder / "runs.parquet").exists():
        raise AnalysisError(
            str(folder),
            f"campaign {campaign!r} has no tables yet",
            "the tables that aggregate and analyse write",
            "In the repository's root run: make study",
        )
    fields = [name for name in tables.TABLES if name in Evidence.__dataclass_fields__]
    wanted = fields if names is None else list(names)
    frames: dict[str, Any] = {name: NotLoaded(name) for name in fields}
    from_records = {table.name for table in tables.measured.TABLES}
    every_run: Any = NotLoaded("runs")
    for name in wanted:
        frame = tables.read(name, folder)
        frames[name] = of_studies(frame, studies) if name in from_records else frame
        every_run = frame if name == "runs" else every_run
    return Evidence(
        about=read_about(folder / "about.json"),
        assumptions=read_assumptions(folder / "context.json"),
        figures=Path(results) / campaign / "figures",
        every_run=every_run,
        **frames,
    )


def read_assumptions(path: Path) -> Assumptions:
    """Read ``context.json``: the report's choices, the context's facts and the gathered notes.

    Its keys are those of the configuration: ``grid``, ``price``, ``pue``, ``household`` (names), ``n_response_tokens``,
    ``confidence``, ``context`` (``carbon_g_per_kwh``, ``price_eur_per_kwh``, ``pue``,
    ``appliance_energy_j``, ``household_yearly_energy_kwh``, ``n_requests_per_day``; each name to
    ``value, unit, source, year``) and ``notes``.

    Raises
    ------
    AnalysisError
        If the file is missing, a key is missing or unknown, or a name has no fact.
    """
    content = read_keys(
        path, {"grid", "price", "pue", "household", "n_response_tokens", "confidence", "context", "notes"}
    )
    facts = {
        kind: {name: Fact(name, **fact) for name, fact in named.items()} for kind, named in content["context"].items()
    }
    return Assumptions(
        grid=_chosen(facts, "carbon_g_per_kwh", content["grid"], path),
        price=_chosen(facts, "price_eur_per_kwh", content["price"], path),
        pue=_chosen(facts, "pue", content["pue"], path),
        grids=tuple(facts["carbon_g_per_kwh"].values()),
        appliances=tuple(facts["appliance_energy_j"].values()),
        pues=tuple(facts["pue"].values()),
        household=_chosen(facts, "household_yearly_energy_kwh", content["household"], path),
        requests=tuple(facts["n_requests_per_day"].values()),
        n_response_tokens=content["n_response_tokens"],
        confidence=content["confidence"],
        notes=tuple(Note(**note) for note in content["notes"]),
    )


def runs_of(evidence: Evidence, study: str) -> pd.DataFrame:
    """Runs with numbers of one study."""
    return evidence.ok[evidence.ok["study"] == study]


def caption(
    evidence: Evidence, point: str, runs: pd.DataFrame | None = None, devices: str = "the devices that take part"
) -> str:
    """The small print of a figure: what a point is, model, weights, machine, method, number of runs.

    Parameters
    ----------
    evidence : Evidence
        The campaign.
    point : str
        What one mark of the figure is.
    runs : DataFrame, optional
        Runs the figure shows; all with numbers unless given.
    devices : str, optional
        Whose energy is meant.
    """
    shown = evidence.ok if runs is None else runs
    models = ", ".join(sorted(shown["model"].dropna().unique())) or "no model"
    weights = " and ".join(sorted(shown["weights"].dropna().unique())) or "unknown"
    machine = "; ".join(sorted(shown["hardware"].dropna().unique())) or "unknown machine"
    words = evidence.method_words
    return (
        f"{point[0].upper()}{point[1:]}. {models} with {weights} weights on {machine}; {words},"
        f" of {devices}, idle power included. n = {counted(len(shown), 'run')} of campaign"
        f" {evidence.about.campaign}."
    )


def _chosen(facts: dict[str, dict[str, Fact]], kind: str, name: str, path: Path) -> Fact:
    try:
        return facts[kind][name]
    except KeyError:
        raise AnalysisError(
            f"{path}: {kind}", f"no fact named {name!r}", f"one of {', '.join(sorted(facts.get(kind, {})))}"
        ) from None
