"""What a longer prompt, a longer answer or more prompts at once cost, over a shorter or a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.repetitions import paired_ends
from inference_energy.pairs import RATIO, grounds, paired
from inference_energy.resample import Bootstrap
from inference_energy.tables import conform
from inference_energy.tables.lengths import LENGTH_RATIOS

ENERGY = "energy_j_per_prompt"
LENGTHS, BATCH = ("n_input_tokens", "n_output_tokens"), ("batch_size", "n_prompts")
_ESTIMATE = "level_over_baseline_ratio"


@dataclass(frozen=True)
class LengthRatios:
    """Energy per prompt of workloads over that of others.

    Attributes
    ----------
    ratios : DataFrame
        One row a comparison and setting, and one over all settings.
    confidence : float
        Level of the intervals.
    """

    ratios: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``length_ratios``."""
        return conform(self.ratios, LENGTH_RATIOS)


def length_ratios(runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> LengthRatios:
    """Compare energy per prompt of workloads with that of a shorter one, all else equal.

    Each run is divided by its baseline of the same sitting, or of the campaign where its sitting has none
    (:func:`inference_energy.pairs.paired`). In the studies ``model_size`` (100 tokens in and out, 900 in, 900 out),
    ``long_context`` and ``guidance`` the baseline is the shortest prompt and answer, in
    ``prompts_at_once`` a single prompt; in ``model_size`` long answers are set over long prompts as well.

    *Of one setting* the interval is Student's with the spread of repetitions pooled over the comparison's settings
    (:func:`inference_energy.models.repetitions.paired_ends`). *Over settings* (models) it is that of
    :func:`inference_energy.resample.mean_over_settings`: with two or three models it is wide.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; the settings of a study count wherever they were measured. Runs without energy are left
        out. A campaign without a study has no rows of it.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    bootstrap, rows = Bootstrap(confidence, n_bootstrap, seed), []
    for comparison in _comparisons(runs):
        for (kind, level), pairs in comparison.pairs.groupby(["comparison", "level"], sort=False):
            name = {"comparison": kind, "level": level, "baseline": comparison.baseline}
            for _, of_setting in pairs.groupby("setting", sort=False):
                ends, how = paired_ends(of_setting, comparison.pairs, comparison.runs, ENERGY, confidence)
                estimate = dict(zip((_ESTIMATE, f"{_ESTIMATE}_low", f"{_ESTIMATE}_high"), ends, strict=True))
                first = of_setting.iloc[0]
                shown = {key: first[key] for key in ("model", "precision", "setting", *LENGTHS, "batch_size")}
                shown[ENERGY] = float(np.exp(np.log(of_setting[ENERGY].astype(float)).mean()))
                rows.append(name | shown | grounds(of_setting, pooled=True) | estimate | how)
            if len(pairs["setting"].unique()) > 1:
                rows.append(name | _over_models(pairs, bootstrap))
    return LengthRatios(pd.DataFrame(rows, columns=LENGTH_RATIOS.names), confidence)


def _over_models(pairs: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, object]:
    found = bootstrap.geometric(pairs["setting"], pairs[RATIO])
    shown = {key: pairs[key].iloc[0] for key in (*LENGTHS, "batch_size") if len(pairs[key].unique()) == 1}
    return {
        **dict.fromkeys(("model", "precision", "setting"), "all"),
        **shown,
        **{name.replace("estimate", _ESTIMATE): value for name, value in found.items()},
        **grounds(pairs),
        "interval_by": "over models",
    }


@dataclass(frozen=True)
class _Comparison:
    """Workloads over one baseline: pairs with their ``comparison`` and ``level``, and the runs they come from."""

    baseline: str
    pairs: pd.DataFrame
    runs: pd.DataFrame


def _comparisons(runs: pd.DataFrame) -> Iterator[_Comparison]:
    """Those of which the campaign has a pair, workloads in order of their tokens and prompts."""
    sizes = _of_study(runs, "model_size", LENGTHS, _lengths)
    prompt, answer = (sizes[name] == sizes[name].max() for name in LENGTHS)
    short = ~(prompt | answer)
    yield from _compared(["long_prompt", "long_answer"], sizes, LENGTHS, short)
    yield from _compared(["answer_or_prompt"], sizes[prompt | answer], LENGTHS, prompt)
    for study in ("long_context", "guidance"):
        shown = _of_study(runs, study, LENGTHS, _lengths)
        yield from _compared([study], shown, LENGTHS, shown["n_input_tokens"] == shown["n_input_tokens"].min())
    at_once = _of_study(runs, "prompts_at_once", ("batch_size",), _prompts)
    yield from _compared(["prompts_at_once"], at_once, BATCH, at_once["batch_size"] == 1)


def _compared(
    names: list[str], runs: pd.DataFrame, factors: tuple[str, ...], is_baseline: pd.Series
) -> Iterator[_Comparison]:
    pairs = paired(runs, factors, is_baseline, ENERGY)
    if len(pairs):
        longer = pairs["n_output_tokens"] > pairs["n_input_tokens"]
        pairs = pairs.assign(comparison=np.where(longer, names[-1], names[0]))
        yield _Comparison(str(runs.loc[is_baseline[is_baseline].index[0], "level"]), pairs, runs)


def _of_study(
    runs: pd.DataFrame, study: str, order: tuple[str, ...], words: Callable[[pd.DataFrame], list[str]]
) -> pd.DataFrame:
    """Runs with energy of the settings of `study`, in whatever study they were measured, with their ``level``."""
    found = of_study(runs, study, ENERGY).sort_values([*order, "setting", "cycle"], kind="stable")
    return found.assign(level=pd.Series(words(found), found.index, dtype="string"))


def _lengths(runs: pd.DataFrame) -> list[str]:
    return [f"{row.n_input_tokens} in, {row.n_output_tokens} out" for row in runs.itertuples()]


def _prompts(runs: pd.DataFrame) -> list[str]:
    return [f"{row.batch_size} prompt{'s' if row.batch_size != 1 else ''} at once" for row in runs.itertuples()]
