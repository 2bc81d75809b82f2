"""Planned arrivals: hand-worked cases, and each distribution of gaps against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from inference_energy.config import Setting
from inference_energy.measure.arrivals import planned_s

RATE = 4.0
N = 4000


def _levels(arrival: str, n: int = N, **levels: Any) -> Setting:
    rate = {} if arrival == "burst" else {"arrival_requests_per_s": RATE}
    return Setting(
        model="tiny-llama", engine="vllm_server", arrival=arrival, batch_size=1, n_prompts=n, **(rate | levels)
    )


def test_a_burst_comes_at_once_and_fixed_gaps_are_the_inverse_of_the_rate() -> None:
    assert planned_s(_levels("burst", n=3), 7, 0).tolist() == [0.0, 0.0, 0.0]
    assert planned_s(_levels("fixed", n=4), 7, 0).tolist() == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("arrival", "extra", "expected", "cv"),
    [
        ("uniform", {}, stats.uniform(0, 2 / RATE), 1 / np.sqrt(3)),
        ("poisson", {}, stats.expon(scale=1 / RATE), 1.0),
        ("gamma", {"arrival_cv": 0.5}, stats.gamma(4, scale=1 / (4 * RATE)), 0.5),
        ("gamma", {"arrival_cv": 2.0}, stats.gamma(0.25, scale=1 / (0.25 * RATE)), 2.0),
    ],
)
def test_gaps_follow_their_distribution(arrival: str, extra: dict[str, float], expected: Any, cv: float) -> None:
    planned = planned_s(_levels(arrival, N, **extra), 7, 0)
    gaps_s = np.diff(planned)

    assert planned[0] == 0
    assert len(planned) == N
    assert (gaps_s >= 0).all()
    assert stats.kstest(gaps_s, expected.cdf).pvalue > 0.01
    assert gaps_s.mean() == pytest.approx(1 / RATE, rel=5 * cv / np.sqrt(N))
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.12)


def test_gamma_with_a_cv_of_one_is_poisson_and_another_spread_is_not() -> None:
    exponential = stats.expon(scale=1 / RATE).cdf

    assert stats.kstest(np.diff(planned_s(_levels("gamma", arrival_cv=1.0), 7, 0)), exponential).pvalue > 0.01
    assert stats.kstest(np.diff(planned_s(_levels("gamma", arrival_cv=1.2), 7, 0)), exponential).pvalue < 1e-6


def test_passes_differ_and_everything_else_repeats_them() -> None:
    poisson = _levels("poisson", n=50)
    faster = _levels("poisson", n=50, arrival_requests_per_s=2 * RATE)

    assert planned_s(poisson, 7, 0).tolist() == planned_s(poisson, 7, 0).tolist()
    assert planned_s(poisson, 7, 0).tolist() != planned_s(poisson, 7, 1).tolist()
    assert planned_s(poisson, 7, 0).tolist() != planned_s(poisson, 8, 0).tolist()
    np.testing.assert_allclose(2 * planned_s(faster, 7, 0), planned_s(poisson, 7, 0), rtol=1e-12)


def test_a_setting_without_arrivals_is_refused() -> None:
    with pytest.raises(ValueError, match="no rate"):
        planned_s(Setting(model="tiny-llama"), 7, 0)
