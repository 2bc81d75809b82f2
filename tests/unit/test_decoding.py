"""Sampling over greedy decoding: two one-sided tests beside statsmodels, slopes beside SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from inference_energy.analyse.decoding_equivalence import decoding_equivalence
from inference_energy.analyse.decoding_trend import decoding_trend
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

ENERGY = "energy_j_per_output_token"


def _run(energy: float, decoding: str, sitting: str, **levels: Any) -> dict[str, Any]:
    name = "_".join(str(value) for value in (decoding, *levels.values()))
    row = {"study": "decoding", "setting": name, "cycle": 1, "model": "m", "decoding": decoding, "sitting": sitting}
    return row | {ENERGY: energy, "duration_s_per_step": energy / 10} | levels


def _runs(*rows: dict[str, Any]) -> pd.DataFrame:
    return conform(pd.DataFrame(list(rows), columns=RUNS.names), RUNS)


def _equivalence(*rows: dict[str, Any], margin: float = 0.05) -> pd.DataFrame:
    table = decoding_equivalence(_runs(*rows), confidence=0.95, decoding_margin_fraction=margin).table()
    return table[table["quantity"] == ENERGY]


def _groups(ratios: tuple[float, ...], **levels: Any) -> list[dict[str, Any]]:
    """One sitting for each ratio, with greedy decoding at another level in each."""
    return [
        run
        for place, ratio in enumerate(ratios)
        for run in (
            _run(10.0**place, "greedy", f"s{place}"),
            _run(10.0**place * ratio, "top_k", f"s{place}", top_k=50, **levels),
        )
    ]


def test_the_test_is_that_of_statsmodels() -> None:
    ratios = (1.01, 1.02, 0.99, 1.03)
    row = _equivalence(*_groups(ratios)).iloc[0]
    logs = DescrStatsW(np.log(ratios))
    low, high = logs.tconfint_mean(alpha=0.1)
    assert row["sampling_over_greedy_ratio"] == pytest.approx(np.exp(logs.mean))
    assert row["sampling_over_greedy_ratio_low"] == pytest.approx(np.exp(low))
    assert row["sampling_over_greedy_ratio_high"] == pytest.approx(np.exp(high))
    assert row["p_value"] == pytest.approx(logs.ttost_mean(np.log(0.95), np.log(1.05))[0])
    assert row["confidence"] == pytest.approx(0.9)
    assert (row["family"], row["verdict"], row["n_groups"], row["n_same_sitting"]) == (
        "all sampling",
        "equivalent",
        4,
        4,
    )


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [((1.2, 1.21, 1.19), "different"), ((0.8, 0.81, 0.79), "different"), ((1.0, 1.2, 0.9), "undecided")],
)
def test_verdicts(ratios: tuple[float, ...], verdict: str) -> None:
    assert set(_equivalence(*_groups(ratios))["verdict"].dropna()) == {verdict}


def test_runs_of_a_sitting_share_their_baseline_and_count_once() -> None:
    rows = [
        _run(1.0, "greedy", "a"),
        _run(1.0, "greedy", "b"),
        *(_run(1.1, "top_k", "a", top_k=k, sampling_temperature=0.2) for k in (1, 5, 50)),
        _run(0.9, "top_p", "b", top_p=0.9, sampling_temperature=0.4),
    ]
    table = _equivalence(*rows)
    overall = table[table["family"] == "all sampling"].iloc[0]
    assert overall["sampling_over_greedy_ratio"] == pytest.approx(np.sqrt(1.1 * 0.9))
    assert (overall["n_groups"], overall["n_pairs"], overall["n_settings"]) == (2, 4, 4)
    families = table.groupby("family").size()
    assert families.to_dict() == {"all sampling": 1, "level": 4, "method": 2, "run": 4, "temperature": 2}
    level = table[table["top_p"].notna() & (table["family"] == "level")].iloc[0]
    assert level["note"] == "no interval, because all runs are of one model in one sitting"
    assert level["verdict"] == "undecided"
    assert table.loc[table["family"] == "run", "verdict"].isna().all()


def test_greedy_decoding_of_other_studies_counts_and_other_sampling_does_not() -> None:
    table = _equivalence(
        _run(1.0, "greedy", "a", study="anchors"),
        _run(4.0, "greedy", "b", study="batching"),
        _run(2.0, "top_k", "c", top_k=5),  # no greedy decoding there: over the mean of 1 and 4
        _run(9.0, "top_k", "a", top_k=9, study="grid"),
    )
    overall = table.iloc[0]
    assert (overall["n_pairs"], overall["n_same_sitting"]) == (1, 0)
    assert overall["sampling_over_greedy_ratio"] == pytest.approx(1.0)


def test_without_pairs_there_are_no_rows_and_a_bad_energy_is_refused() -> None:
    assert _equivalence().empty
    assert _equivalence(_run(1.0, "greedy", "a")).empty
    assert _equivalence(_run(1.0, "top_k", "a", top_k=5)).empty
    bad = _run(0.0, "top_k", "a", top_k=5)
    with pytest.raises(AnalysisError, match=r"top_k_5 in cycle 1 is 0"):
        _equivalence(_run(1.0, "greedy", "a"), bad)
    with pytest.raises(AnalysisError, match=r"top_k_5 in cycle 1 is 0"):
        decoding_trend(_runs(bad), confidence=0.95)


def _trend(rows: list[dict[str, Any]], name: str) -> pd.Series:
    table = decoding_trend(_runs(*rows), confidence=0.95).table()
    return table[table["trend"] == name].iloc[0]


def test_a_slope_within_sittings_is_that_of_values_less_their_sittings_means() -> None:
    rng = np.random.default_rng(5)
    x, group = np.tile([1, 5, 20, 50, 100, 400], 3), np.repeat(["a", "b", "c"], 6)
    level = {"a": 1.0, "b": 3.0, "c": 9.0}
    energy = [level[g] * k**0.02 * np.exp(0.01 * rng.standard_normal()) for g, k in zip(group, x, strict=True)]
    row = _trend([_run(e, "top_k", g, top_k=int(k)) for e, g, k in zip(energy, group, x, strict=True)], "candidates")
    frame = pd.DataFrame({"g": group, "x": np.log2(x), "y": np.log(energy)})
    within = frame[["x", "y"]] - frame.groupby("g")[["x", "y"]].transform("mean")
    fit = stats.linregress(within["x"], within["y"])
    freedom = 18 - 3 - 1  # linregress knows nothing of the three means
    error = fit.stderr * np.sqrt(16 / freedom)
    half = stats.t.ppf(0.975, freedom) * error
    assert row["per_step_ratio"] == pytest.approx(np.exp(fit.slope))
    assert row["per_step_ratio_low"] == pytest.approx(np.exp(fit.slope - half))
    assert row["per_step_ratio_high"] == pytest.approx(np.exp(fit.slope + half))
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(fit.slope / error), freedom))
    assert (row["verdict"], row["n_runs"], row["n_groups"]) == ("rises", 18, 3)


def test_the_order_of_methods_mass_temperature_and_step_time() -> None:
    methods = ("greedy", "multinomial", "top_k", "top_p")
    rows = [
        _run(level * 1.1**rank * noise, method, sitting, **({"top_k": 5} if method == "top_k" else {}))
        for sitting, level in (("a", 1.0), ("b", 5.0))
        for rank, method in enumerate(methods)
        for noise in (0.999, 1.001)
    ]
    order = _trend(rows, "order of methods")
    assert order["per_step_ratio"] == pytest.approx(1.1, rel=1e-6)
    assert order["verdict"] == "rises"
    assert _trend(rows, "step time")["per_step_ratio"] == pytest.approx(1.1)  # time follows energy here
    assert _trend(rows, "candidates")["note"].startswith("cannot be estimated, because no sitting holds two different")
    tempered = [
        _run(0.97 ** (5 * t) * (2 if method == "top_p" else 1), method, "a", sampling_temperature=t, **levels)
        for method, levels in (("top_p", {"top_p": 0.5}), ("multinomial", {}))
        for t in (0.2, 0.4, 0.8)
    ]
    temperature = _trend(tempered, "temperature")
    assert temperature["per_step_ratio"] == pytest.approx(0.97)
    assert temperature["verdict"] == "falls"
    mass = _trend([_run(1.02 ** (10 * p), "top_p", "a", top_p=p) for p in (0.1, 0.5, 0.9)], "probability mass")
    assert mass["per_step_ratio"] == pytest.approx(1.02)


def test_two_runs_leave_no_degree_of_freedom_and_no_study_no_rows() -> None:
    row = _trend([_run(1.0, "top_k", "a", top_k=1), _run(1.1, "top_k", "a", top_k=2)], "candidates")
    assert row["note"] == "cannot be estimated, because 2 runs leave no degree of freedom"
    assert pd.isna(row["per_step_ratio"])
    assert decoding_trend(_runs(), confidence=0.95).table().empty
