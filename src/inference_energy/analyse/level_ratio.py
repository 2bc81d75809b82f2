"""What does a level cost beside its baseline? Batch sizes over 2, precisions over float32 and float16, lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.repetitions import paired_ends
from inference_energy.pairs import ENERGY, RATIO, paired
from inference_energy.resample import N_SETTINGS_FEW, mean_over_settings
from inference_energy.tables import conform
from inference_energy.tables.levers import LEVEL_RATIO

BATCH_BASELINE = 2
PRECISION_BASELINES = {
    "float32": ("float16", "bfloat16", "tf32", "int8", "int4"),
    "float16": ("bfloat16", "int8", "int4"),
}
# ASSUME: batches of up to 8 prompts are called small. On a data-centre GPU they mostly wait for the CPU and for memory.
SMALL_BATCH = 8
SMALL, LARGE, ALL = f"batch {SMALL_BATCH} and below", f"above batch {SMALL_BATCH}", "all"
N_SETTINGS_MIN = 3  # fewer settings say nothing of the spread between settings


@dataclass(frozen=True)
class LevelRatio:
    """Levels over their baselines.

    Attributes
    ----------
    ratios : DataFrame
        One row a level, baseline and setting, and one for each scope over settings.
    confidence : float
        Level of the intervals.
    """

    ratios: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``level_ratio``."""
        return conform(self.ratios, LEVEL_RATIO)


def level_ratio(runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> LevelRatio:
    r"""Compare energy per output token of levels with that of their baseline, all else equal.

    Each run is divided by its baseline of the same sitting, or of the campaign where its sitting has
    none (:func:`inference_energy.pairs.paired`). Compared are every batch size with 2, every precision
    with float32 and with float16 (studies ``batching`` and ``tf32``), and the lengths of study
    ``lengths`` with those of ``batching``. The same setting counts wherever it was measured.

    *Of one setting*: the geometric mean over its runs, with the interval
    :math:`\exp(\bar d \pm t_f\, s / \sqrt n)`. A setting has two or three runs, too few for a spread of
    its own, so *s* is pooled over all settings of the factor and baseline, with *f* degrees of freedom,
    four at the least: from log ratios if all its pairs are of one sitting and enough such pairs are
    repeated; else from log energies of repetitions, hosts included, with
    :math:`1/n + 1/n_\text{baseline}` in place of :math:`1/n`. Where small batches scatter more than
    large ones the pooled interval is too narrow for the former and too wide for the latter.

    *Over settings* (models, batch sizes or precisions): the geometric mean of the settings' means,
    with Student's interval of these means up to five settings, from six on with an expanded percentile
    bootstrap that resamples settings and cycles within (:func:`inference_energy.resample.mean_over_settings`).
    Pairs of one sitting that have no baseline there share its host, and pairs may share a baseline; an
    interval over settings does not know either.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out. A campaign without a comparison has no
        rows of it.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    rows: list[dict[str, object]] = []
    for family in _families(runs):
        shown = [key for key in ("model", "precision", "batch_size") if key != family.factor]
        for level in family.levels:
            pairs = family.pairs[family.pairs["level"] == level]
            name: dict[str, object] = {"factor": family.factor, "level": level, "baseline": family.baseline}
            for _, of_setting in pairs.groupby("setting", sort=True):
                levels = {key: of_setting[key].iloc[0] for key in shown}
                rows.append(name | {"scope": "setting"} | levels | _of_setting(of_setting, family, confidence))
            small = pairs["batch_size"] <= SMALL_BATCH
            parts = {SMALL: pairs[small], LARGE: pairs[~small]} if family.factor == "precision" else {}
            for scope, within in (parts | {ALL: pairs}).items():
                if len(within):
                    rng = np.random.default_rng(seed)  # anew: an interval does not depend on the others
                    rows.append(name | {"scope": scope} | _over_settings(within, confidence, n_bootstrap, rng))
    return LevelRatio(pd.DataFrame(rows, columns=LEVEL_RATIO.names), confidence)


@dataclass(frozen=True)
class _Family:
    """Levels of one factor over one baseline: pairs with their ``level``, and the runs they come from."""

    factor: str
    baseline: str
    levels: list[str]
    pairs: pd.DataFrame
    runs: pd.DataFrame


def _families(runs: pd.DataFrame) -> Iterator[_Family]:
    """Those of which the campaign has a pair."""
    batching = _settings_of(runs, "batching")
    pairs = paired(batching, ("batch_size", "n_prompts"), batching["batch_size"] == BATCH_BASELINE)
    sizes = [str(size) for size in sorted(pairs["batch_size"].unique())]
    yield _Family(
        "batch_size", str(BATCH_BASELINE), sizes, pairs.assign(level=pairs["batch_size"].astype(str)), batching
    )
    formats = _settings_of(runs, "batching", "tf32")
    for baseline, levels in PRECISION_BASELINES.items():
        pairs = paired(formats, ("precision",), formats["precision"] == baseline)
        pairs = pairs[pairs["precision"].isin(levels)].assign(level=pairs["precision"])
        found = [level for level in levels if (pairs["level"] == level).any()]
        yield _Family("precision", baseline, found, pairs, formats)
    both = _settings_of(runs, "batching", "lengths")
    longer = both["setting"].isin(runs.loc[runs["study"] == "lengths", "setting"])
    if longer.any() and not longer.all():
        words = both["n_input_tokens"].astype(str) + " in, " + both["n_output_tokens"].astype(str) + " out"
        pairs = paired(both.assign(level=words), ("n_input_tokens", "n_output_tokens"), ~longer)
        pairs = pairs[longer.reindex(pairs.index)]
        yield _Family("lengths", words[~longer].iloc[0], sorted(pairs["level"].unique()), pairs, both)


def _settings_of(runs: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """Runs with energy of the settings of `studies`, in whatever study they were measured."""
    settings = runs.loc[runs["study"].isin(studies), "setting"].unique()
    return runs[runs["setting"].isin(settings) & runs[ENERGY].notna()]


def _of_setting(of_setting: pd.DataFrame, family: _Family, confidence: float) -> dict[str, object]:
    """Ratio of one setting, its spread pooled over the family."""
    (ratio, low, high), how = paired_ends(of_setting, family.pairs, family.runs, ENERGY, confidence)
    ends = None if np.isnan(low) else (float(np.log(low)), float(np.log(high)))
    return _counts(of_setting) | {"confidence": confidence} | how | _ratio(float(np.log(ratio)), ends)


def _over_settings(
    pairs: pd.DataFrame, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> dict[str, object]:
    """Ratio over settings."""
    logs = np.log(pairs[RATIO].astype(float))
    mean, low, high = mean_over_settings(pairs["setting"], logs, confidence, n_bootstrap, rng)
    n = pairs["setting"].nunique()
    interval_by = "t over settings" if n <= N_SETTINGS_FEW else "bootstrap"
    row = _counts(pairs) | {"confidence": confidence, "interval_by": interval_by}
    if n < N_SETTINGS_MIN:
        because = f"no interval, because {n} of the {N_SETTINGS_MIN} settings are measured that it takes at the least"
        return row | _ratio(mean, None) | {"note": because}
    return row | _ratio(mean, (low, high))


def _counts(pairs: pd.DataFrame) -> dict[str, object]:
    return {
        "n_settings": pairs["setting"].nunique(),
        "n_pairs": len(pairs),
        "n_same_sitting": int((pairs["matched"] == "sitting").sum()),
    }


def _ratio(mean: float, ends: tuple[float, float] | None) -> dict[str, object]:
    """The ratio, its interval and the verdict, from logarithms."""
    low, high = ends or (np.nan, np.nan)
    return {
        "level_over_baseline_ratio": float(np.exp(mean)),
        "level_over_baseline_ratio_low": float(np.exp(low)),
        "level_over_baseline_ratio_high": float(np.exp(high)),
        "verdict": "less" if high < 0 else "more" if low > 0 else "undecided",
    }
