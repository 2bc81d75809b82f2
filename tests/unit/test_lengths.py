"""Lengths that differ: hand-worked quantiles, exact totals, and what SciPy's lognormal says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from inference_energy.config import Setting
from inference_energy.lengths import input_lengths, longest, output_lengths, spread


def test_two_lengths_by_hand() -> None:
    """With cv 1 the logarithm has the variance ln 2; the quartiles of a normal lie at 0.67449 deviations.

    exp(0.83255 * 0.67449) = 1.7535 and its inverse 0.5703: of the total 200 they hold 150.9 and 49.1.
    """
    assert spread(100, 1.0, 2).tolist() == [49, 151]


def test_the_lengths_are_the_lognormals_quantiles() -> None:
    cv, mean, n = 0.6, 875, 4001
    deviation = np.sqrt(np.log(1 + cv**2))
    lognormal = stats.lognorm(s=deviation, scale=mean * np.exp(-(deviation**2) / 2))
    assert lognormal.std() / lognormal.mean() == pytest.approx(cv)
    found = spread(mean, cv, n)
    quantiles = lognormal.ppf((np.arange(n) + 0.5) / n)
    assert np.abs(found - quantiles * mean / quantiles.mean()).max() < 1
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.01)


@pytest.mark.parametrize("mean", [1, 2, 5, 128])
@pytest.mark.parametrize("cv", [0.0, 0.1, 1.0, 2.0])
@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_the_mean_is_kept_and_none_is_empty(mean: int, cv: float, n: int) -> None:
    found = spread(mean, cv, n)
    assert found.dtype == np.int64
    assert found.sum() == mean * n
    assert found.min() >= 1


def test_without_spread_all_are_alike() -> None:
    assert spread(12, 0, 3).tolist() == [12, 12, 12]
    assert longest(Setting(model="m", n_input_tokens=300, n_output_tokens=20)) == (300, 20)


def test_the_longest_of_a_pass_over_all_processes() -> None:
    shape = {"n_input_tokens": 100, "n_output_tokens": 50, "input_length_cv": 1.0}
    levels = Setting(model="m", batch_size=1, n_prompts=2, **shape)
    assert longest(levels) == (151, 50)
    assert output_lengths(levels).tolist() == [50, 50]
    shared = Setting(model="m", batch_size=1, n_prompts=2, parallelism="replicas", n_gpus=2, **shape)
    assert input_lengths(shared).tolist() == [49, 151]
