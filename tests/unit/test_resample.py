"""The bootstrap's variance against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from inference_energy.resample import Bootstrap, by_setting, interval, mean_over_settings, setting_means, smoothed


def test_cycles_of_a_setting_become_a_row() -> None:
    found = by_setting(["b", "a", "b", "c", "b"], [1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(found, [[2, np.nan, np.nan], [1, 3, 5], [4, np.nan, np.nan]])


def test_settings_and_cycles_within_them_are_resampled() -> None:
    values = np.array([[1.0, 2.0, np.nan], [5.0, 9.0, 10.0], [4.0, np.nan, np.nan]])
    means = setting_means(values, 40_000, np.random.default_rng(1))
    assert means.shape == (40_000, 3)
    # Of the mean over settings: Var = [Var(setting means) + mean(Var within / n cycles)] / n settings,
    # with variances of finite populations: means 1.5, 8, 4; within 0.25, 14/3, 0.
    expected = (np.var([1.5, 8.0, 4.0]) + np.mean([0.25 / 2, 14 / 3 / 3, 0.0])) / 3
    np.testing.assert_allclose(means.mean(axis=1).var(), expected, rtol=0.03)
    np.testing.assert_allclose(means.mean(), np.mean([1.5, 8.0, 4.0]), rtol=0.01)


def test_memory_is_bounded_without_changing_what_is_drawn(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    values = np.random.default_rng(1).normal(size=(30, 2))
    monkeypatch.setattr("inference_energy.resample._N_DRAWS_AT_ONCE", 100)
    in_pieces = setting_means(values, 5000, np.random.default_rng(2))
    assert np.isfinite(in_pieces).all()
    np.testing.assert_allclose(in_pieces.mean(), values.mean(), atol=0.01)


def test_the_interval_is_the_percentiles() -> None:
    low, high = interval(np.arange(101.0), 0.9)
    np.testing.assert_allclose([low, high], [5.0, 95.0], rtol=1e-12)


def test_the_mean_over_settings_weighs_settings_equally() -> None:
    rng = np.random.default_rng(1)
    estimate, low, high = mean_over_settings(["a", "a", "a", "b"], [1.0, 1.0, 1.0, 3.0], 0.95, 500, rng)
    assert estimate == 2.0
    half = stats.t.ppf(0.975, 1) * np.std([1.0, 3.0], ddof=1) / np.sqrt(2)  # of two settings, not of four runs
    np.testing.assert_allclose([low, high], [2.0 - half, 2.0 + half], rtol=1e-4)
    of_runs = mean_over_settings(["a", "a", "a"], [1.0, 2.0, 4.0], 0.95, 500, rng)
    error = stats.t.ppf(0.975, 2) * np.std([1.0, 2.0, 4.0], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(of_runs, [7 / 3, 7 / 3 - error, 7 / 3 + error], rtol=1e-4)
    single = mean_over_settings(["a"], [1.5], 0.95, 500, rng)
    assert single[0] == 1.5
    assert np.isnan(single[1:]).all()


def test_smoothing_moves_every_value_by_two_standard_errors_of_the_mean_log() -> None:
    values = np.array([[1.0], [2.0], [4.0], [8.0]])
    means = np.tile(values.T, (50_000, 1))
    moved = np.log(smoothed(means, values, np.random.default_rng(1)) / means)
    width = 2 * np.log([1, 2, 4, 8]).std(ddof=1) / 2
    np.testing.assert_allclose(moved.mean(), 0.0, atol=0.01)
    np.testing.assert_allclose(moved.std(axis=0), width, rtol=0.02)


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_few_settings_have_about_students_interval(n: int) -> None:
    # One run a setting, values as good as normal: the expanded percentile interval is Student's t.
    values = stats.norm.ppf((np.arange(n) + 0.5) / n)
    names = [f"{i:02d}" for i in range(n)]
    _, low, high = mean_over_settings(names, list(values), 0.95, 40_000, np.random.default_rng(1))
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    np.testing.assert_allclose([low, high], [-half, half], rtol=0.06)


def test_students_quantiles_are_scipys() -> None:
    from inference_energy.resample import _student_quantile

    for freedom in (1, 2, 3, 10, 200):
        np.testing.assert_allclose(_student_quantile(0.025, freedom), stats.t.ppf(0.025, freedom), rtol=1e-5)


def test_a_bootstrap_draws_anew_for_each_estimate() -> None:
    settings, ratios = [f"s{index}" for index in range(8)], np.exp(np.linspace(-1, 1, 8))
    bootstrap = Bootstrap(0.9, 500, 7)
    ends = mean_over_settings(settings, np.log(ratios), 0.9, 500, np.random.default_rng(7))
    for _ in range(2):  # whatever was asked for before
        assert list(bootstrap.arithmetic(settings, np.log(ratios)).values()) == list(ends)
        assert list(bootstrap.geometric(settings, ratios).values()) == pytest.approx(np.exp(ends))
    assert bootstrap.draws(3).shape == (500, 3)
    assert (bootstrap.draws(3) == bootstrap.draws(3)).all()
