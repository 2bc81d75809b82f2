"""What the timing of requests is worth: energies of a request over those of a baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.arrivals import (
    NO_LIMIT,
    ONE_BY_ONE,
    OVER_BURST,
    OVER_FIXED,
    OVER_ONE_BY_ONE,
    SPREAD,
    arrival_words,
)
from inference_energy.models.repetitions import paired_ends, pooled
from inference_energy.pairs import RATIO, grounds, paired
from inference_energy.resample import mean_over_settings
from inference_energy.tables import conform
from inference_energy.tables.arrivals import ARRIVAL_RATIO

_ENERGY = "energy_j_per_prompt"
_LEVELS = ("model", "arrival", "arrival_requests_per_s", "arrival_cv", "kv_cache_tokens")
_PATTERN = ("arrival", "arrival_cv")


@dataclass(frozen=True)
class ArrivalRatio:
    """One row a comparison."""

    ratios: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``arrival_ratio``."""
        return conform(self.ratios, ARRIVAL_RATIO)


def arrival_ratio(runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> ArrivalRatio:
    """Compare the energy of a request between patterns and rates of arrival, and with transformers one by one.

    ``over burst``
        Every other arrival over the burst, all else equal, rate apart.
    ``over fixed gaps``
        Every random arrival over fixed gaps at the same mean rate. Of each pattern, and of all, the geometric mean over
        its settings with Student's interval or bootstrap (:func:`inference_energy.resample.mean_over_settings`).
    ``over no cache limit``
        A setting with a small KV cache over the same with what memory allows.
    ``highest over lowest``
        The setting of most energy over that of least: all rates together, and at each rate. Which they are is chosen by
        the same numbers, so this ratio is rather too large than too small.
    ``over one by one``
        Every arrival over transformers answering the same model's prompts one by one (study engine). Their prompts are
        of the study's usual length; the server's may be longer.

    Of a setting, intervals are Student's with a spread pooled over settings
    (:func:`inference_energy.models.repetitions.paired_ends`).

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; a campaign without arrivals has no rows.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    known = runs[runs[_ENERGY].notna()]
    arrives = known["arrival"].fillna("none").ne("none")
    served = known[arrives]
    rows: list[dict[str, object]] = []
    if len(served):
        rows += _paired(served, confidence, n_bootstrap, seed)
        rows += _spread(served, confidence)
        rows += _over_one_by_one(served, known[~arrives], confidence)
    return ArrivalRatio(pd.DataFrame(rows).reindex(columns=ARRIVAL_RATIO.names))


def _paired(served: pd.DataFrame, confidence: float, n_bootstrap: int, seed: int) -> Iterator[dict[str, object]]:
    """Settings over a baseline that differs in how requests arrive, or in the size of the cache."""
    fixed = served["arrival"].eq("fixed")
    random = ~served["arrival"].isin(["fixed", "burst"])
    cached = served["kv_cache_tokens"].isna()
    for comparison, baseline, level, factors, chosen in (
        (OVER_BURST, "burst", "burst", (*_PATTERN, "arrival_requests_per_s"), served),
        (OVER_FIXED, "fixed gaps at the same rate", "fixed", _PATTERN, served[fixed | random]),
        (NO_LIMIT, "the same without a limit of the KV cache", None, ("kv_cache_tokens",), served),
    ):
        is_baseline = chosen["arrival"].eq(level) if level else cached.reindex(chosen.index)
        pairs = paired(chosen, factors, is_baseline, _ENERGY)
        for _, of_setting in pairs.groupby("setting", sort=True):
            first = of_setting.iloc[0]
            (ratio, low, high), how = paired_ends(of_setting, pairs, chosen, _ENERGY, confidence)
            yield (
                {"comparison": comparison, "scope": "setting", "level": arrival_words(first), "baseline": baseline}
                | {name: first[name] for name in _LEVELS}
                | _ends(ratio, low, high)
                | grounds(of_setting, pooled=True)
                | how
            )
        if comparison == OVER_FIXED and len(pairs):
            for pattern, of_pattern in [*pairs.groupby("arrival", sort=True), ("all", pairs)]:
                rng = np.random.default_rng(seed)
                logs = np.log(of_pattern[RATIO].astype(float))
                ends = mean_over_settings(of_pattern["setting"], logs, confidence, n_bootstrap, rng)
                reason = None
                if len(set(of_pattern["setting"])) == 1:  # its cycles say nothing of other settings
                    ends, reason = (ends[0], np.nan, np.nan), "one setting: no interval over settings"
                yield (
                    {"comparison": comparison, "scope": "all" if pattern == "all" else "pattern"}
                    | {"level": "random gaps" if pattern == "all" else pattern, "baseline": baseline}
                    | {"arrival": None if pattern == "all" else pattern, "model": _common(of_pattern, "model")}
                    | _ends(*(float(np.exp(end)) for end in ends))
                    | {"interval_by": "over settings"}
                    | grounds(of_pattern, reason)
                )


def _spread(served: pd.DataFrame, confidence: float) -> Iterator[dict[str, object]]:
    """Highest over lowest energy of a model's settings without a limit of the cache: at all rates, and at each."""
    for model, of_model in served[served["kv_cache_tokens"].isna()].groupby("model", sort=True):
        paced = of_model.dropna(subset=["arrival_requests_per_s"])
        groups: list[tuple[str, object, pd.DataFrame]] = [("all", None, of_model)]
        groups += [("rate", rate, at) for rate, at in paced.groupby("arrival_requests_per_s")]
        for scope, rate, group in groups:
            logs = group.assign(log=np.log(group[_ENERGY].astype(float))).groupby("setting")["log"].mean()
            if len(logs) < 2:
                continue
            high, low = (group[group["setting"] == logs.agg(which)] for which in ("idxmax", "idxmin"))
            row = {"comparison": SPREAD, "scope": scope, "model": model, "arrival_requests_per_s": rate}
            yield (
                row
                | _unpaired(high, low, served, confidence)
                | {
                    "level": arrival_words(high.iloc[0]),
                    "baseline": arrival_words(low.iloc[0]),
                    "n_settings": len(logs),
                }
            )


def _over_one_by_one(served: pd.DataFrame, given: pd.DataFrame, confidence: float) -> Iterator[dict[str, object]]:
    """Every setting over transformers one by one with the same model, precision and answer length."""
    alone = given[given["engine"].eq("transformers") & given["batch_size"].eq(1) & given["study"].eq("engine")]
    for _, of_setting in served.groupby("setting", sort=True):
        first = of_setting.iloc[0]
        same = alone
        for name in ("model", "precision", "n_output_tokens"):
            same = same[same[name].eq(first[name]).fillna(value=False)]
        if same.empty:
            continue
        row: dict[str, object] = {"comparison": OVER_ONE_BY_ONE, "scope": "setting", "level": arrival_words(first)}
        row |= {name: first[name] for name in _LEVELS}
        yield (
            row
            | _unpaired(of_setting, same, pd.concat([served, same]), confidence)
            | {
                "baseline": f"{ONE_BY_ONE}, {same['n_input_tokens'].iloc[0]} input tokens",
                "n_settings": 1,
            }
        )


def _unpaired(high: pd.DataFrame, low: pd.DataFrame, every: pd.DataFrame, confidence: float) -> dict[str, object]:
    """Geometric mean of `high` over that of `low`, with an interval from the spread of repetitions of `every`."""
    spread = pooled(every, _ENERGY)
    logs = [np.log(part[_ENERGY].astype(float)) for part in (high, low)]
    mean = float(logs[0].mean() - logs[1].mean())
    half = spread.half(1 / len(high) + 1 / len(low), confidence) if spread.known else np.nan
    same = high["sitting"].isin(low["sitting"])
    return _ends(*(float(np.exp(mean + shift)) for shift in (0.0, -half, half))) | {
        "interval_by": "t over sittings",
        "n_pairs": len(high),
        "n_sitting_pairs": int(same.sum()),
        "note": None if spread.known else spread.why_none(),
    }


def _ends(ratio: float, low: float, high: float) -> dict[str, float]:
    return {"energy_ratio": ratio, "energy_ratio_low": low, "energy_ratio_high": high}


def _common(rows: pd.DataFrame, name: str) -> object:
    values = rows[name].unique()
    return values[0] if len(values) == 1 else "all"
