"""Names of quantities carry their unit, and axis labels are built from them."""

from __future__ import annotations

import pytest

from inference_energy.units import UNITS, axis_label, joules_from_kwh, kwh_from_joules, unit_of


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("energy_j", "J"),
        ("energy_j_per_output_token", "J"),
        ("energy_j_per_output_token_low", "J"),
        ("throughput_tokens_per_s", "tokens/s"),
        ("memory_bandwidth_bytes_per_s", "bytes/s"),
        ("peak_flop_per_s", "FLOP/s"),
        ("memory_peak_bytes", "bytes"),
        ("duration_s", "s"),
        ("duration_s_per_step", "s"),
        ("carbon_g_per_kwh", "g CO₂e/kWh"),
        ("price_eur_per_kwh", "€/kWh"),
        ("temperature_c", "°C"),
        ("sm_clock_mhz", "MHz"),
        ("max_over_min_fold", "×"),
        ("n_runs", ""),
        ("batch_size", ""),
        ("window_cv", ""),
        ("window_cv_median", ""),
        ("warmup_fraction", ""),
        ("counter_over_power_ratio", ""),
        ("mfu", ""),
    ],
)
def test_unit_of(name: str, symbol: str) -> None:
    assert unit_of(name) == symbol


@pytest.mark.parametrize("name", ["energy", "power", "tokens_n", "speed_mph", "duration_ms", "j_energy", "energyj", ""])
def test_a_name_without_a_unit_is_refused(name: str) -> None:
    with pytest.raises(KeyError):
        unit_of(name)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("energy_j", "Energy (J)"),
        ("energy_j_per_output_token", "Energy per output token (J)"),
        ("throughput_tokens_per_s", "Throughput (tokens/s)"),
        ("batch_size", "Batch size"),
        ("n_runs", "Number of runs"),
        ("cv", "Coefficient of variation"),
        ("power_mean_w", "Power mean (W)"),
        ("measured_fraction", "Measured"),
    ],
)
def test_axis_label(name: str, label: str) -> None:
    assert axis_label(name) == label


def test_kwh_and_joules() -> None:
    assert joules_from_kwh(1.0) == 3.6e6
    assert kwh_from_joules(joules_from_kwh(0.0123)) == pytest.approx(0.0123, rel=1e-12)


def test_suffixes_are_their_own_keys() -> None:
    assert all(unit.suffix == suffix for suffix, unit in UNITS.items())
