"""Time shares and the energy ledger of SYNTHETIC campaigns, and what each fault does to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import synthetic

from inference_energy.aggregate import aggregate
from inference_energy.analyse.campaign_quality import campaign_quality
from inference_energy.analyse.sittings import sittings
from inference_energy.errors import AnalysisError
from inference_energy.records import Record

RESOLVED = synthetic.small_campaign()
RECORDS = synthetic.campaign_records(RESOLVED)
PARTS = ["idle_energy_j", "load_energy_j", "warmup_energy_j", "window_energy_j", "rest_energy_j"]


def _quality(records: list[Record]) -> pd.DataFrame:
    tables = aggregate(RESOLVED, records)
    by_gpu = sittings(tables["runs"], tables["devices"]).table()
    frames = [tables[name] for name in ("runs", "intervals", "windows", "warnings")]
    return campaign_quality(*frames, by_gpu, n_planned_runs=8).table().set_index("sitting")


def _changed(change: Callable[[Record], dict[str, object]], cycle: int = 1) -> list[Record]:
    return [synthetic.altered(one, change(one)) if one.identity.cycle == cycle else one for one in RECORDS]


# --- time ----------------------------------------------------------------------------------------


def test_wall_seconds_run_from_the_first_start_to_the_last_end() -> None:
    first = [one for one in RECORDS if one.identity.cycle == 1]
    runs_s = sum(one.process_ended_s for one in first)
    quality = _quality(RECORDS)
    row = quality.loc["SYNTHETIC-1"]
    assert row["wall_s"] == pytest.approx(runs_s + 3 * synthetic.GAP_S, rel=1e-9)
    windows = [one for record in first for one in record.intervals if one.phase == "window"]
    measured_s = sum(one.work_ended_s - one.opened_s for one in windows)
    assert row["measured_s"] == pytest.approx(measured_s, rel=1e-9)
    assert row["measured_fraction"] == pytest.approx(measured_s / row["wall_s"], rel=1e-9)
    idle_s = len(first) * (synthetic.IDLE_S + synthetic.IDLE_LOADED_S)
    assert row["idle_fraction"] == pytest.approx(idle_s / row["wall_s"], rel=1e-9)
    assert row["load_fraction"] == pytest.approx(len(first) * synthetic.LOAD_S / row["wall_s"], rel=1e-9)
    assert quality.filter(regex="^(measured|idle|load|warmup|rest|between_runs)_fraction").sum(
        axis=1
    ).tolist() == pytest.approx([1.0] * 3)
    assert row["between_runs_fraction"] == pytest.approx(3 * synthetic.GAP_S / row["wall_s"], rel=1e-9)
    assert quality.loc["all", "wall_s"] == pytest.approx(quality["wall_s"].iloc[:2].sum(), rel=1e-12)


def test_counts_are_of_the_sitting_and_of_all() -> None:
    failing = RECORDS[0].run_id
    records = synthetic.campaign_records(RESOLVED, out_of_memory=[failing])
    warning = {"code": "throttled", "value": 0.1, "detail": ""}
    records[1] = synthetic.altered(records[1], {"warnings": [warning, warning | {"code": "short_trace"}, warning]})
    quality = _quality(records)
    assert quality["n_runs"].tolist() == [4, 4, 8]
    assert quality["n_ok_runs"].tolist() == [3, 4, 7]
    assert quality["n_warnings"].tolist() == [3, 0, 3]
    assert quality.loc["all", "warnings_by_code"] == "short_trace: 1, throttled: 2"
    assert quality.loc["all", "n_planned_runs"] == 8
    assert quality.loc["all", "started_at_utc"] == RECORDS[0].identity.started_at_utc
    assert abs(quality.loc["SYNTHETIC-1", "ledger_closure_fraction"]) < 1e-9  # a failed run is in the ledger


def test_the_instruments_agreement_is_over_windows() -> None:
    def scaled(record: Record) -> dict[str, object]:
        return {
            f"intervals.{i}.energy_power_instant_j": [(1 - 0.001 * one.index) * one.energy_power_instant_j[0]]
            for i, one in enumerate(record.intervals)
        }

    row = _quality(_changed(scaled)).loc["SYNTHETIC-1"]
    ratios = np.repeat(1 / (1 - 0.001 * np.arange(5)), 4)
    assert row["counter_over_power_median_ratio"] == pytest.approx(np.median(ratios), rel=1e-9)
    assert row["counter_over_power_p05_ratio"] == pytest.approx(np.percentile(ratios, 5), rel=1e-9)
    assert row["counter_over_power_p95_ratio"] == pytest.approx(np.percentile(ratios, 95), rel=1e-9)


# --- the ledger ----------------------------------------------------------------------------------


def test_the_ledger_of_a_synthetic_campaign_closes() -> None:
    quality = _quality(RECORDS)
    assert quality["ledger_closure_fraction"].abs().max() < 1e-9
    assert quality["ledger_note"].isna().all()
    first, last = RECORDS[0], RECORDS[3]
    counter_j = last.counter_ended_j[0] - first.counter_started_j[0]
    assert quality.loc["SYNTHETIC-1", "counter_energy_j"] == pytest.approx(counter_j, rel=1e-12)
    np.testing.assert_allclose(quality[PARTS].sum(axis=1), quality["counter_energy_j"], rtol=1e-9)
    np.testing.assert_allclose(quality.loc["all", PARTS].astype(float), quality.iloc[:2][PARTS].sum(), rtol=1e-12)


def test_the_ledger_covers_devices_that_take_no_part() -> None:
    quality = _quality(synthetic.campaign_records(RESOLVED, extra_devices=1))
    assert quality["ledger_closure_fraction"].abs().max() < 1e-9


def test_energy_that_only_the_counter_saw_keeps_the_ledger_open() -> None:
    ended_j = RECORDS[3].counter_ended_j[0]
    records = list(RECORDS)
    records[3] = synthetic.altered(records[3], {"counter_ended_j": [ended_j + 100.0]})
    row = _quality(records).loc["SYNTHETIC-1"]
    assert row["ledger_closure_fraction"] == pytest.approx(-100.0 / row["counter_energy_j"], rel=1e-9)
    assert row["runs_closure_fraction"] == pytest.approx(-100.0 / row["runs_counter_energy_j"], rel=1e-9)


def test_energy_between_runs_keeps_the_whole_ledger_open_and_not_that_of_the_runs() -> None:
    """As after an attempt that was lost: the counter moved on between the second run and the third."""
    moved = {"counter_started_j": 500.0, "counter_ended_j": 500.0}
    records = [
        synthetic.altered(one, {name: [getattr(one, name)[0] + more] for name, more in moved.items()})
        if one.identity.cycle == 1 and one.identity.order >= 2
        else one
        for one in RECORDS
    ]
    row = _quality(records).loc["SYNTHETIC-1"]
    assert row["ledger_closure_fraction"] == pytest.approx(-500.0 / row["counter_energy_j"], rel=1e-9)
    assert abs(row["runs_closure_fraction"]) < 1e-9
    unexplained_j = row["between_runs_counter_energy_j"] - row["between_runs_idle_energy_j"]
    assert unexplained_j == pytest.approx(500.0, rel=1e-9)
    gaps_s = 3 * (synthetic.GAP_S + synthetic.LAUNCH_S)
    assert row["between_runs_s"] == pytest.approx(gaps_s, rel=1e-9)
    assert row["between_runs_idle_energy_j"] == pytest.approx(gaps_s * synthetic.IDLE_W, rel=1e-9)


def test_the_rest_does_not_come_from_the_counter() -> None:
    def doubled(record: Record) -> dict[str, object]:
        return {"trace.power_instant_w": [[2 * power for power in record.trace.power_instant_w[0]]]}

    before, after = _quality(RECORDS).loc["SYNTHETIC-1"], _quality(_changed(doubled)).loc["SYNTHETIC-1"]
    gaps_j = 3 * (synthetic.GAP_S + synthetic.LAUNCH_S) * synthetic.IDLE_W
    assert after["rest_energy_j"] - gaps_j == pytest.approx(2 * (before["rest_energy_j"] - gaps_j), rel=1e-9)
    assert after["ledger_closure_fraction"] > 0


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            lambda one: {
                "counter_started_j": [one.counter_started_j[0] - 1e6 * one.identity.order],
                "counter_ended_j": [one.counter_ended_j[0] - 1e6 * one.identity.order],
            },
            "went backwards",
        ),
        (lambda one: {"counter_ended_j": [None]}, "not read"),
        (lambda one: {"trace.power_instant_w": [[None] * len(one.trace.time_s)]}, "no instant power"),
        (lambda one: {"monotonic_started_s": 1000.0 + one.identity.order}, "overlap"),
    ],
)
def test_without_what_it_needs_there_is_no_ledger(change: Callable[[Record], dict[str, object]], note: str) -> None:
    quality = _quality(_changed(change))
    for sitting in ("SYNTHETIC-1", "all"):
        assert note in quality.loc[sitting, "ledger_note"]
        assert pd.isna(quality.loc[sitting, "ledger_closure_fraction"])
    assert "SYNTHETIC-1" in quality.loc["all", "ledger_note"]
    assert abs(quality.loc["SYNTHETIC-2", "ledger_closure_fraction"]) < 1e-9


@pytest.mark.parametrize(("method", "note"), [("replay", "replayed"), ("codecarbon_estimate", "estimates")])
def test_what_no_counter_measured_has_no_ledger(method: str, note: str) -> None:
    quality = _quality(synthetic.campaign_records(RESOLVED, energy_method=method))
    assert quality["ledger_note"].str.contains(note).all()
    assert quality["ledger_closure_fraction"].isna().all()


def test_a_sitting_is_on_one_host() -> None:
    records = [synthetic.altered(RECORDS[0], {"hardware.host": "another"}), *RECORDS[1:]]
    with pytest.raises(AnalysisError, match="SYNTHETIC-1 has runs of hosts"):
        _quality(records)


def test_no_runs_is_an_error() -> None:
    tables = aggregate(RESOLVED, RECORDS)
    frames = [tables[name][:0] for name in ("runs", "intervals", "windows", "warnings")]
    with pytest.raises(AnalysisError, match="no runs"):
        campaign_quality(*frames, frames[0], n_planned_runs=8)
    with pytest.raises(AnalysisError, match="no runs"):
        sittings(tables["runs"][:0], tables["devices"][:0])


# --- several GPUs --------------------------------------------------------------------------------

LANES = synthetic.small_campaign(
    studies={
        "batching": synthetic.BATCHING,
        "interference": {
            "question": "SYNTHETIC?",
            "fixed": {"model": "llama-3.2-1b"},
            "vary": {"batch_size": [8, 64], "neighbours": ["none", "allowed"]},
        },
    }
)


def _side_by_side(**options: object) -> dict[str, pd.DataFrame]:
    tables = aggregate(LANES, synthetic.campaign_records(LANES, n_lanes=4, **options))
    by_gpu = sittings(tables["runs"], tables["devices"]).table()
    frames = [tables[name] for name in ("runs", "intervals", "windows", "warnings")]
    quality = campaign_quality(*frames, by_gpu, n_planned_runs=16).table().set_index("sitting")
    return tables | {"sittings": by_gpu, "quality": quality}


def test_each_gpus_ledger_closes_though_runs_overlap() -> None:
    found = _side_by_side()
    runs = found["runs"].sort_values(["sitting", "monotonic_started_s"])
    same_sitting = runs["sitting"] == runs["sitting"].shift()
    assert (same_sitting & (runs["monotonic_started_s"].diff() < runs["wall_s"].shift())).any()  # they do overlap
    assert len(found["sittings"]) == 8  # four GPUs, two sittings
    assert found["sittings"]["ledger_closure_fraction"].abs().max() < 1e-9
    assert found["sittings"]["runs_closure_fraction"].abs().max() < 1e-9
    assert found["quality"]["ledger_closure_fraction"].abs().max() < 1e-9


def test_measured_time_is_counted_in_gpu_seconds() -> None:
    found = _side_by_side()
    row = found["quality"].loc["SYNTHETIC-1"]
    runs = found["runs"][found["runs"]["sitting"] == "SYNTHETIC-1"]
    wall_s = (runs["monotonic_started_s"] + runs["wall_s"]).max() - runs["monotonic_started_s"].min()
    assert row["n_gpus"] == 4
    assert row["measured_fraction"] == pytest.approx(runs["measured_s"].sum() / (4 * wall_s), rel=1e-9)
    by_gpu = found["sittings"][found["sittings"]["sitting"] == "SYNTHETIC-1"]
    assert by_gpu["measured_fraction"].mean() == pytest.approx(row["measured_fraction"], rel=1e-9)
    assert by_gpu["n_runs"].sum() == len(runs)
    assert by_gpu["throughput_runs_per_h"].iloc[0] == pytest.approx(len(runs) / wall_s * 3600, rel=1e-9)


def test_a_failed_run_leaves_the_rest_of_the_ledger_as_it_is() -> None:
    failing = synthetic.expand(LANES)[5].run_id  # between two runs of its GPU
    quality = _side_by_side(failed=[failing])["quality"]
    assert quality.loc["all", "n_failed_runs"] == 1
    assert quality["ledger_note"].isna().all()
    assert quality.loc["SYNTHETIC-1", "ledger_closure_fraction"] < -0.01  # its energy is missing, taken as idle
    assert abs(quality.loc["SYNTHETIC-2", "ledger_closure_fraction"]) < 1e-9
