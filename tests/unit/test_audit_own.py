"""The checks of published records, made of a campaign's own."""

from __future__ import annotations

import pandas as pd
import pytest

from inference_energy.analyse.audit_own import REASONS, audit_own
from inference_energy.audit.checks import CHECKS
from inference_energy.errors import AnalysisError

KEYS = ("campaign", "study", "setting", "cycle")


def _run(setting: str, n: int, parallelism: str, cycle: int = 1) -> dict[str, object]:
    """10 iterations of a batch of 4 prompts of 8 tokens in each of `n` processes, 100 W a GPU for 10 s."""
    tokens = 10 * 4 * 8 * (1 if parallelism == "tensor" else n)
    return {
        "campaign": "made",
        "study": "parallelism",
        "setting": setting,
        "cycle": cycle,
        "model": "m",
        "parallelism": parallelism,
        "n_processes": n,
        "n_visible_gpus": 4,
        "n_iterations": 10,
        "batch_size": 4,
        "n_prompts": 4 * n,
        "arrival": "none",
        "n_input_tokens": 8,
        "n_output_tokens": 8,
        "n_output_tokens_measured": tokens,
        "measured_s": 10.0,
        "wall_s": 50.0,
        "throughput_tokens_per_s": tokens / 10,
        "energy_j": 1000.0 * n,
        "energy_j_per_output_token": 1000.0 * n / tokens,
        "power_limit_w": 700.0,
        "gpu_uuid_hash": "gpu0",
        "ended_at_utc": f"2026-01-01T0{cycle}:0{n}:00.000Z",
    }


def _tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    runs = [
        _run("one", 1, "none"),
        _run("one", 1, "none", cycle=2),
        _run("two", 2, "replicas_duplicated"),
        _run("three", 3, "tensor"),
    ]
    devices, windows = [], []
    for run in runs:
        key = {name: run[name] for name in KEYS}
        n = int(str(run["n_processes"]))
        windows += [{**key, "tail_energy_j": 5.0 * n}, {**key, "tail_energy_j": 5.0 * n}]
        for number in range(4):
            part = number < n
            devices.append(
                {
                    **key,
                    "participates": part,
                    "window_energy_j": 1010.0 if part else 70.0,  # with the device's share of the tails
                    "window_power_w": 100.0 if part else 7.0,
                }
            )
    return pd.DataFrame(runs), pd.DataFrame(devices), pd.DataFrame(windows)


def test_sound_records_pass_and_every_check_says_something() -> None:
    table = audit_own(*_tables()).table().set_index("check")
    assert set(table.index) == {check.name for check in CHECKS}
    assert (table.loc[list(REASONS), "reason"] == pd.Series(REASONS)).all()
    tested = table[table["verdict"] != "not testable"]
    assert set(tested.index[tested["verdict"] != "holds"]) == {"tokens_of_one_process", "cycles"}
    # Each reading is a GPU's: 1 + 1 + 2 + 3 of them, idle ones left out.
    assert table.loc["power_own_gpu", "n_tested"] == 7
    assert table.loc["power_own_gpu", "found_over_expected_worst_ratio"] == pytest.approx(100 / 700)
    assert table.loc["energy_summed", "found_over_expected_worst_ratio"] == pytest.approx(1.0)
    assert table.loc["tokens_of_all_processes", "n_tested"] == 4
    assert table.loc["tokens_of_one_process", "n_failing"] == 2  # replicas, and three that answer together
    assert table.loc["cycles", ["n_tested", "n_failing"]].tolist() == [3, 2]


@pytest.mark.parametrize(
    ("check", "table", "column", "value"),
    [
        ("energy_summed", 0, "energy_j", 1100.0),
        ("energy_per_token", 0, "energy_j_per_output_token", 1.0),
        ("throughput", 0, "throughput_tokens_per_s", 1.0),
        ("tokens_of_all_processes", 0, "n_output_tokens_measured", 321),
        ("power_own_gpu", 1, "window_energy_j", 8000.0),
        ("power_times_time", 1, "window_power_w", 140.0),
        ("runs_apart", 0, "ended_at_utc", "2026-01-01T01:02:10Z"),  # 10 s after the run of two GPUs ended
    ],
)
def test_a_broken_record_fails(check: str, table: int, column: str, value: object) -> None:
    tables = _tables()
    tables[table][column] = tables[table][column].astype(object)
    tables[table].loc[0, column] = value
    row = audit_own(*tables).table().set_index("check").loc[check]
    assert row["verdict"] == "fails in part"
    assert row["n_failing"] == 1


def test_where_requests_arrive_an_iteration_answers_them_all() -> None:
    runs, devices, windows = _tables()
    served = {"arrival": "poisson", "batch_size": 1, "n_prompts": 40, "n_iterations": 1}  # 40 answers of 8 tokens
    runs.loc[0, list(served)] = list(served.values())
    table = audit_own(runs, devices, windows).table().set_index("check")
    assert table.loc["tokens_of_all_processes", ["n_tested", "verdict"]].tolist() == [4, "holds"]


def test_a_campaign_without_energies_cannot_be_tested() -> None:
    runs, devices, windows = _tables()
    with pytest.raises(AnalysisError, match="no run has an energy"):
        audit_own(runs.assign(energy_j=float("nan")), devices, windows)


def test_without_devices_what_needs_them_says_so() -> None:
    runs, devices, windows = _tables()
    table = audit_own(runs, devices.iloc[:0], windows).table().set_index("check")
    assert table.loc["energy_summed", ["verdict", "reason"]].tolist() == [
        "not testable",
        "no device has a counter of its own",
    ]
    assert table.loc["power_own_gpu", "verdict"] == "not testable"
    assert table.loc["energy_per_token", "verdict"] == "holds"
