"""What a token costs in prefill and in decoding, and what formats and engines change in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.phases import DECODE, DIFFERENCE, DURATION, ENERGY, MAIN, ONE_TOKEN, POWER, PREFILL
from inference_energy.models.repetitions import paired_ends, pooled
from inference_energy.pairs import RATIO, paired
from inference_energy.resample import Bootstrap
from inference_energy.tables import conform
from inference_energy.tables.phases import PHASES

#: Formats that the others are held against.
BASELINES = ("float32", "bfloat16")
N_SETTINGS_MIN = 3  # fewer settings say nothing of the spread between settings

#: Factors in which an engine differs from another.
_OF_ENGINE = ("engine", "execution", "engine_process", "prefill", "attention")
_OF_SETTING = ["model", "engine", "precision", "n_input_tokens"]
_OF_PAIR = ["method", "setting", "sitting", *_OF_SETTING, RATIO, "n_baseline_runs", "matched"]
_ENDS = ("estimate", "estimate_low", "estimate_high")
_PER_TOKEN = "energy_j_per_token"


@dataclass(frozen=True)
class Phases:
    """Estimates of both phases.

    Attributes
    ----------
    estimates : DataFrame
        One row an estimate.
    confidence : float
        Level of the intervals.
    """

    estimates: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``phases``."""
        return conform(self.estimates, PHASES)


@dataclass(frozen=True)
class _Comparison:
    """Rows of ``phase_runs`` and which of them are baselines; `differs` are factors in which a pair may differ."""

    factor: str
    baseline: str
    rows: pd.DataFrame
    is_baseline: pd.Series
    differs: tuple[str, ...]
    quantities: Sequence[str]


def phases(phase_runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Phases:
    r"""Average energy, time and power of each phase over cycles, and compare formats, engines, methods and phases.

    *Levels* are geometric means over the runs of a setting. *Ratios* divide each row by its baseline, all else equal,
    of the same sitting, or of the campaign where its sitting has none: formats by float32 and by bfloat16, vLLM by
    transformers, the time stamp by the method that needs none, and the energy of an output token by that of an input
    token of the same model, format and prompt length.

    *Of one setting* the interval is Student's with a spread pooled over the settings of its kind
    (:mod:`inference_energy.models.repetitions`). *Over settings*, from three on, it is that of
    :func:`inference_energy.resample.mean_over_settings`: models and prompt lengths are then taken for a sample.

    Parameters
    ----------
    phase_runs : DataFrame
        The table of that name.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If a value is not above 0.
    """
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    rows: list[dict[str, object]] = []
    for (phase, method), part in phase_runs.groupby(["phase", "method"], sort=True):
        of_phase = {"phase": phase, "method": method}
        rows += [of_phase | row for row in _levels(part, _quantities(str(phase)), confidence)]
    for phase, comparison in _comparisons(phase_runs):
        rows += [{"phase": phase} | row for row in _ratios(comparison, bootstrap)]
    return Phases(pd.DataFrame(rows, columns=PHASES.names), confidence)


def _quantities(phase: str) -> tuple[str, str, str]:
    return ENERGY[phase], DURATION[phase], POWER


def _levels(part: pd.DataFrame, quantities: Sequence[str], confidence: float) -> Iterator[dict[str, object]]:
    """Geometric mean of every quantity and setting."""
    for quantity in quantities:
        spread = pooled(part, quantity)
        for _, runs in part.groupby("setting", sort=True):
            known = runs[runs[quantity].notna()]
            row = {"quantity": quantity, "n_settings": 1, "n_pairs": len(known)} | _about(runs.iloc[0])
            if known.empty:
                yield row | {"note": runs["note"].iloc[0]}
                continue
            mean = float(np.log(known[quantity].astype(float)).mean())
            ends = dict(zip(_ENDS, spread.ends(mean, len(known), confidence), strict=True))
            how = {"interval_by": "t over sittings"} if spread.known else {"note": spread.why_none()}
            yield row | ends | how


def _comparisons(phase_runs: pd.DataFrame) -> Iterator[tuple[str, _Comparison]]:
    """What is compared, by the phase it is told of."""
    for (phase, _), rows in phase_runs.groupby(["phase", "method"], sort=True):
        asked = _quantities(str(phase))
        for baseline in BASELINES:
            is_baseline = rows["precision"] == baseline
            yield str(phase), _Comparison("precision", baseline, rows, is_baseline, ("precision",), asked)
        is_baseline = rows["engine"] == "transformers"
        yield str(phase), _Comparison("engine", "transformers", rows, is_baseline, _OF_ENGINE, asked)
    for phase, method in MAIN.items():
        rows = phase_runs[phase_runs["phase"] == phase]
        is_baseline = rows["method"] == method
        yield phase, _Comparison("method", method, rows, is_baseline, ("n_output_tokens",), _quantities(phase))
    per_token = phase_runs[ENERGY[PREFILL]].where(phase_runs["phase"] == PREFILL, phase_runs[ENERGY[DECODE]])
    rows = phase_runs.assign(**{_PER_TOKEN: per_token})
    rows = rows[rows["method"].isin([ONE_TOKEN, DIFFERENCE])]
    yield DECODE, _Comparison("phase", PREFILL, rows, rows["phase"] == PREFILL, ("n_output_tokens",), (_PER_TOKEN,))


def _ratios(comparison: _Comparison, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Of every setting, and over the settings of a level."""
    name = {"factor": comparison.factor, "baseline": comparison.baseline}
    for quantity in comparison.quantities:
        every = paired(comparison.rows, comparison.differs, comparison.is_baseline, quantity)[_OF_PAIR]
        rows = comparison.rows[["setting", quantity]]
        runs = rows.assign(setting=rows["setting"] + " " + comparison.rows["method"])  # two methods are no repetition
        apart = every.assign(setting=every["setting"] + " " + every["method"])
        for (method, engine, precision), of_level in every.groupby(["method", "engine", "precision"], sort=True):
            about = name | {"quantity": quantity, "method": method, "engine": engine, "precision": precision}
            for _, pairs in of_level.groupby("setting", sort=True):
                three, how = paired_ends(pairs, apart, runs, quantity, bootstrap.confidence)
                ends = dict(zip(_ENDS, three, strict=True))
                yield about | _about(pairs.iloc[0]) | _grounds(pairs) | ends | how
            if of_level["setting"].nunique() >= N_SETTINGS_MIN:
                ends = bootstrap.geometric(of_level["setting"], of_level[RATIO])
                yield about | {"model": "all", "interval_by": "over settings"} | _grounds(of_level) | ends


def _about(row: pd.Series) -> dict[str, object]:
    return {name: row[name] for name in _OF_SETTING}


def _grounds(pairs: pd.DataFrame) -> dict[str, object]:
    return {
        "n_settings": pairs["setting"].nunique(),
        "n_pairs": len(pairs),
        "n_sitting_pairs": int((pairs["matched"] == "sitting").sum()),
    }
