"""Tables from SYNTHETIC records whose energies are known in closed form, and every refusal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from inference_energy.aggregate import aggregate, check_cycle_separation, read_records
from inference_energy.config import read_hardware
from inference_energy.design import expand
from inference_energy.errors import ComparabilityError, RecordError
from inference_energy.questions import RECORD_TABLES
from inference_energy.records import Record, write_record
from inference_energy.tables import TABLES

RESOLVED = synthetic.small_campaign()
RECORDS = synthetic.campaign_records(RESOLVED)
QUIET = synthetic.campaign_records(RESOLVED, cycle_cv=0, window_cv=0)
LEVELS = {run.run_id: run.levels for run in expand(RESOLVED)}


def _law(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy per token, duration of a step and power that the rows must show without noise."""
    levels = [LEVELS[f"{row.study}/{row.setting}.c{row.cycle}"] for row in frame.itertuples()]
    return tuple(
        np.array([law(level) for level in levels])
        for law in (synthetic.energy_j_per_output_token, synthetic.step_duration_s, synthetic.power_w)
    )


# --- numbers -------------------------------------------------------------------------------------


def test_runs_and_windows_show_the_law_behind_the_records() -> None:
    tables = aggregate(RESOLVED, QUIET)
    for name in ("runs", "windows"):
        energy, step_s, power_w = _law(tables[name])
        batch = tables[name]["batch_size"].astype(float)
        np.testing.assert_allclose(tables[name]["energy_j_per_output_token"], energy, rtol=1e-9)
        np.testing.assert_allclose(tables[name]["throughput_tokens_per_s"], batch / step_s, rtol=1e-9)
        np.testing.assert_allclose(tables[name]["power_mean_w"], power_w, rtol=1e-9)
        np.testing.assert_allclose(tables[name]["counter_over_power_ratio"], 1.0, rtol=1e-9)
    runs = tables["runs"]
    energy, step_s, power_w = _law(runs)
    batch = runs["batch_size"].astype(float)
    np.testing.assert_allclose(runs["duration_s_per_step"], step_s, rtol=1e-9)
    np.testing.assert_allclose(runs["window_cv"], 0.0, atol=1e-9)
    net = (power_w - synthetic.IDLE_W) * step_s / batch
    np.testing.assert_allclose(runs["energy_net_j_per_output_token"], net, rtol=1e-9)
    np.testing.assert_allclose(runs["counter_over_codecarbon_gpu_ratio"], 1 / 1.01, rtol=1e-9)
    assert (runs["n_windows"] == 5).all()
    assert (runs["n_warmup_iterations"] == 4).all()
    assert (runs["idle_power_w"].round(9) == synthetic.IDLE_W).all()
    assert (runs["idle_loaded_power_w"].round(9) == synthetic.IDLE_LOADED_W).all()


def test_a_runs_energy_is_the_windows_sum_over_the_windows_tokens() -> None:
    tables = aggregate(RESOLVED, RECORDS)
    sums = (
        tables["windows"]
        .groupby(["study", "setting", "cycle"], sort=False)[["energy_j", "n_output_tokens_measured", "duration_s"]]
        .sum()
    )
    runs = tables["runs"]
    np.testing.assert_allclose(
        runs["energy_j_per_output_token"], sums["energy_j"] / sums["n_output_tokens_measured"], rtol=1e-12
    )
    np.testing.assert_allclose(runs["measured_s"], sums["duration_s"], rtol=1e-12)
    per_window = tables["windows"].groupby(["study", "setting", "cycle"], sort=False)["energy_j_per_output_token"]
    np.testing.assert_allclose(runs["window_cv"], per_window.std() / per_window.mean(), rtol=1e-9)


def test_a_windows_energy_leaves_the_tail_out() -> None:
    window = aggregate(RESOLVED, QUIET)["windows"].iloc[0]
    power_w = synthetic.power_w(LEVELS[f"{window.study}/{window.setting}.c{window.cycle}"])
    assert window["tail_s"] == pytest.approx(synthetic.TAIL_S, rel=1e-9)
    assert window["tail_energy_j"] == pytest.approx(synthetic.IDLE_LOADED_W * synthetic.TAIL_S, rel=1e-6)
    assert window["energy_j"] == pytest.approx(power_w * window["duration_s"], rel=1e-9)


def test_random_uncertainties_add_in_quadrature_and_settling_adds_up() -> None:
    tables = aggregate(RESOLVED, RECORDS)
    runs, windows = tables["runs"], tables["windows"]
    tick_to_tick_w = (windows["energy_j"] + windows["tail_energy_j"]) / (windows["duration_s"] + windows["tail_s"])
    settling_j = (tick_to_tick_w - synthetic.IDLE_LOADED_W).abs() * 0.010
    np.testing.assert_allclose(windows["uncertainty_j"], np.hypot(0.5, settling_j), rtol=1e-9)
    np.testing.assert_allclose(windows["uncertainty_settling_j"], settling_j, rtol=1e-9)
    key = [windows[name] for name in ("study", "setting", "cycle")]
    settling = settling_j.groupby(key, sort=False).sum().to_numpy()
    expected = np.hypot(0.5 * math.sqrt(5), settling) / runs["n_output_tokens_measured"].astype(float)
    np.testing.assert_allclose(runs["energy_uncertainty_j_per_output_token"], expected, rtol=1e-9)


def test_codecarbons_energy_is_its_mean_power_over_the_measured_seconds() -> None:
    runs = aggregate(RESOLVED, QUIET)["runs"]
    _, step_s, power_w = _law(runs)
    ticks_s = runs["measured_s"] + 5 * synthetic.TAIL_S
    waiting_j = 5 * synthetic.TAIL_S * synthetic.IDLE_LOADED_W
    gpu_w = 1.01 * (runs["measured_s"] * power_w + waiting_j) / ticks_s
    expected = (gpu_w + 50.0) * step_s / runs["batch_size"].astype(float)
    np.testing.assert_allclose(runs["energy_codecarbon_j_per_output_token"], expected, rtol=1e-9)


def test_devices_that_take_no_part_are_counted_but_not_billed() -> None:
    alone = aggregate(RESOLVED, QUIET)
    crowd = aggregate(RESOLVED, synthetic.campaign_records(RESOLVED, cycle_cv=0, window_cv=0, extra_devices=2))
    for column in ("energy_j", "energy_j_per_output_token", "idle_power_w", "power_mean_w"):
        np.testing.assert_allclose(crowd["runs"][column], alone["runs"][column], rtol=1e-9)
    windows_s = alone["runs"]["measured_s"] + 5 * synthetic.TAIL_S
    np.testing.assert_allclose(crowd["runs"]["energy_idle_devices_j"], 2 * synthetic.IDLE_W * windows_s, rtol=1e-9)
    assert alone["runs"]["energy_idle_devices_j"].isna().all()
    idle_j = 2 * synthetic.IDLE_W * (alone["runs"]["wall_s"] - synthetic.LAUNCH_S)
    np.testing.assert_allclose(crowd["runs"]["run_energy_j"], alone["runs"]["run_energy_j"] + idle_j, rtol=1e-9)
    np.testing.assert_allclose(crowd["runs"]["idle_energy_j"], 3 * alone["runs"]["idle_energy_j"], rtol=1e-9)
    assert crowd["runs"]["gpu_uuid_hash"].equals(alone["runs"]["gpu_uuid_hash"])
    assert (crowd["runs"]["metered_uuid_hash"].str.count(r"\+") == 2).all()


def test_devices_that_take_part_add_up() -> None:
    levels = {"model": "llama-3.2-1b", "parallelism": "replicas", "n_gpus": 2}
    resolved = synthetic.small_campaign(studies={"parallelism": {"question": "SYNTHETIC?", "settings": [levels]}})
    run = aggregate(resolved, synthetic.campaign_records(resolved, cycle_cv=0, window_cv=0))["runs"].iloc[0]
    setting = expand(resolved)[0].levels
    assert run["power_mean_w"] == pytest.approx(2 * synthetic.power_w(setting), rel=1e-9)
    assert run["energy_j_per_output_token"] == pytest.approx(synthetic.energy_j_per_output_token(setting), rel=1e-9)
    assert run["energy_uncertainty_j_per_output_token"] > 0.5 * math.sqrt(2 * 5) / run["n_output_tokens_measured"]


def test_the_parts_of_a_run_make_up_its_counter() -> None:
    tables = aggregate(RESOLVED, RECORDS)
    intervals = tables["intervals"].groupby(["study", "setting", "cycle"], sort=False)["energy_j"].sum()
    runs = tables["runs"].set_index(["study", "setting", "cycle"])
    np.testing.assert_allclose(intervals + runs["rest_energy_j"], runs["run_energy_j"], rtol=1e-9)


def test_steps_of_several_batches_add_up() -> None:
    levels = {"model": "llama-3.2-1b", "batch_size": 4, "n_prompts": 10}  # batches of 4, 4 and 2
    resolved = synthetic.small_campaign(studies={"batching": {"question": "SYNTHETIC?", "settings": [levels]}})
    tables = aggregate(resolved, synthetic.campaign_records(resolved, cycle_cv=0, window_cv=0))
    step_s = synthetic.step_duration_s(expand(resolved)[0].levels)
    windows = tables["iterations"][tables["iterations"]["phase"] == "window"]
    np.testing.assert_allclose(tables["runs"]["duration_s_per_step"], step_s, rtol=1e-9)
    np.testing.assert_allclose(windows["duration_s_per_step"], step_s, rtol=1e-9)
    n_iterations = int(tables["runs"]["n_iterations"].iloc[0]) // 5
    answered = sum((4, 4, 2)[index % 3] for index in range(n_iterations))
    assert (tables["runs"]["n_output_tokens_measured"] == 5 * answered * 16).all()


def test_duplicated_prompts_count_as_often_as_they_are_answered() -> None:
    levels = {"model": "llama-3.2-1b", "n_prompts": 16}
    shared = levels | {"parallelism": "replicas", "n_gpus": 2}
    settings = [levels, shared, levels | {"parallelism": "replicas_duplicated", "n_gpus": 2}]
    resolved = synthetic.small_campaign(studies={"parallelism": {"question": "SYNTHETIC?", "settings": settings}})
    runs = aggregate(resolved, synthetic.campaign_records(resolved, cycle_cv=0, window_cv=0))["runs"]
    by_kind = runs.drop_duplicates("parallelism").set_index("parallelism")
    assert by_kind["n_prompts"].to_dict() == {"none": 16, "replicas": 16, "replicas_duplicated": 16}
    per_token = by_kind["energy_j_per_output_token"] / by_kind.loc["none", "energy_j_per_output_token"]
    np.testing.assert_allclose(per_token, 1.0, rtol=1e-9)  # twice the power, twice the tokens
    per_run = by_kind["n_output_tokens_measured"] / by_kind["n_iterations"]
    assert per_run.to_dict() == {"none": 128, "replicas": 256, "replicas_duplicated": 256}


def test_waiting_belongs_to_the_windows_and_is_counted() -> None:
    levels = {"model": "llama-3.2-1b", "traffic": "constant", "delay_min_s": 0.1, "delay_max_s": 0.3}
    resolved = synthetic.small_campaign(studies={"traffic": {"question": "SYNTHETIC?", "settings": [levels]}})
    run = aggregate(resolved, synthetic.campaign_records(resolved, cycle_cv=0, window_cv=0))["runs"].iloc[0]
    setting = expand(resolved)[0].levels
    assert run["waited_s"] == pytest.approx(0.2 * run["n_iterations"], rel=1e-9)
    assert run["waited_fraction"] == pytest.approx(0.2 / synthetic.iteration_duration_s(setting), rel=1e-9)
    assert run["energy_j_per_output_token"] == pytest.approx(synthetic.energy_j_per_output_token(setting), rel=1e-9)


def test_a_failed_run_is_a_row_with_its_reason_and_no_numbers() -> None:
    failing = expand(RESOLVED)[0].run_id
    tables = aggregate(RESOLVED, synthetic.campaign_records(RESOLVED, failed=[failing]))
    run = tables["runs"].iloc[0]
    assert (run["status"], run["n_attempts"]) == ("failed", 3)
    assert run["status_detail"] == "SYNTHETIC: it broke"
    for column in ("energy_j", "energy_j_per_output_token", "measured_s", "waited_s", "load_s", "run_energy_j"):
        assert pd.isna(run[column]), column
    assert (tables["runs"]["status"].iloc[1:] == "ok").all()


def test_devices_and_their_checks_are_rows() -> None:
    tables = aggregate(RESOLVED, synthetic.campaign_records(RESOLVED, extra_devices=1))
    devices, runs = tables["devices"], tables["runs"]
    assert len(devices) == 2 * len(runs)
    assert devices["participates"].sum() == len(runs)
    key = ["study", "setting", "cycle"]
    summed = devices.groupby(key, sort=False)["rest_energy_j"].sum()
    np.testing.assert_allclose(summed, runs["rest_energy_j"], rtol=1e-9)
    idle = devices[~devices["participates"]]
    np.testing.assert_allclose(idle["window_power_w"], synthetic.IDLE_W, rtol=1e-9)
    checks = tables["device_checks"]
    assert set(checks["moment"]) == {"before", "during", "after"}
    assert len(checks) == 3 * 2 * len(runs)
    assert (runs["n_visible_gpus"] == 2).all()


def test_state_is_taken_from_the_windows() -> None:
    runs = aggregate(RESOLVED, RECORDS)["runs"]
    assert (runs["temperature_max_c"] == 45.0).all()
    assert (runs["sm_clock_median_mhz"] == 1980.0).all()
    assert (runs["gpu_utilisation_fraction"].round(9) == 0.9).all()


def test_out_of_memory_is_a_row_with_missing_numbers() -> None:
    failing = expand(RESOLVED)[0].run_id
    tables = aggregate(RESOLVED, synthetic.campaign_records(RESOLVED, out_of_memory=[failing]))
    run = tables["runs"].iloc[0]
    assert run["status"] == "out_of_memory"
    assert run["status_detail"] == "SYNTHETIC: no memory left"
    for column in (
        "energy_j",
        "energy_j_per_output_token",
        "measured_s",
        "n_windows",
        "n_output_tokens_measured",
        "warmup_s",
        "counter_over_power_ratio",
        "temperature_max_c",
        "token_ids_sha256",
    ):
        assert pd.isna(run[column]), column
    assert run["load_s"] == pytest.approx(synthetic.LOAD_S, rel=1e-9)
    assert run["run_energy_j"] > 0
    assert len(tables["windows"]) == 5 * (len(tables["runs"]) - 1)


def test_windows_before_memory_ran_out_are_not_results() -> None:
    record = synthetic.altered(RECORDS[0], {"status": "out_of_memory", "status_detail": "SYNTHETIC"})
    tables = aggregate(RESOLVED, [record, *RECORDS[1:]])
    assert pd.isna(tables["runs"].iloc[0]["energy_j"])
    assert pd.isna(tables["runs"].iloc[0]["temperature_max_c"])
    assert len(tables["windows"]) == 5 * (len(RECORDS) - 1)
    assert (tables["intervals"].iloc[:9]["phase"] == "window").sum() == 5  # their energy is in the ledger


@pytest.mark.parametrize(
    ("field", "columns"),
    [
        ("counter_closed_j", ["energy_j", "energy_j_per_output_token", "power_mean_w", "counter_over_power_ratio"]),
        ("energy_power_instant_j", ["energy_power_instant_j", "counter_over_power_ratio"]),
        ("uncertainty_j", ["uncertainty_j"]),
        ("codecarbon", ["codecarbon_gpu_power_w"]),
    ],
)
def test_unknown_stays_missing(field: str, columns: list[str]) -> None:
    position = next(i for i, one in enumerate(RECORDS[0].intervals) if one.phase == "window")
    value = None if field == "codecarbon" else [None]
    record = synthetic.altered(RECORDS[0], {f"intervals.{position}.{field}": value})
    tables = aggregate(RESOLVED, [record, *RECORDS[1:]])
    assert tables["windows"].iloc[0][columns].isna().all()
    for column in set(columns) & {"energy_j", "energy_j_per_output_token", "counter_over_power_ratio"}:
        assert pd.isna(tables["runs"].iloc[0][column])
    assert tables["runs"].iloc[1:]["energy_j"].notna().all()


def test_without_ticks_the_records_own_tail_is_taken_off() -> None:
    untimed = {"meter.tick_aligned": False}
    record = synthetic.altered(QUIET[0], untimed)
    window = aggregate(RESOLVED, [record, *QUIET[1:]])["windows"].iloc[0]
    own = next(one for one in QUIET[0].intervals if one.phase == "window")
    assert window["tail_energy_j"] == pytest.approx(own.energy_tail_j[0], rel=1e-12)


def test_a_record_without_samples_has_no_integrated_energies() -> None:
    trace = {name: [] if name in ("time_s", "slow_time_s") else [[]] for name in type(RECORDS[0].trace).model_fields}
    record = synthetic.altered(RECORDS[0], {"trace": trace})
    tables = aggregate(RESOLVED, [record, *RECORDS[1:]])
    run = tables["runs"].iloc[0]
    assert run[["rest_energy_j", "temperature_max_c", "sampled_from_s"]].isna().all()
    assert run["energy_j"] > 0
    of_run = tables["iterations"][: run["n_iterations"] + run["n_warmup_iterations"]]
    assert of_run["energy_j_per_output_token"].isna().all()
    assert of_run["duration_s"].notna().all()


# --- long tables ---------------------------------------------------------------------------------


def test_iterations_follow_one_another_and_carry_integrated_energy() -> None:
    iterations = aggregate(RESOLVED, QUIET)["iterations"]
    energy, step_s, _ = _law(iterations)
    steady = iterations["phase"] == "window"
    np.testing.assert_allclose(iterations["energy_j_per_output_token"][steady], energy[steady], rtol=1e-9)
    np.testing.assert_allclose(iterations["duration_s_per_step"][steady], step_s[steady], rtol=1e-9)
    first = iterations[iterations["index"] == 0]
    assert (first["phase"] == "warmup").all()
    assert (first["started_s"] == 0).all()
    np.testing.assert_allclose(first["duration_s_per_step"], 1.2 * _law(first)[1], rtol=1e-9)
    of_run = iterations[: int((iterations["index"] == 0).to_numpy().nonzero()[0][1])]
    assert of_run["index"].tolist() == list(range(len(of_run)))
    np.testing.assert_allclose(of_run["started_s"].diff()[1:], of_run["duration_s"][:-1], rtol=1e-9)


def test_forward_passes_generate_nothing_and_have_no_steps() -> None:
    study = {
        "question": "SYNTHETIC?",
        "fixed": {"model": "llama-3.2-1b"},
        "vary": {"warmup": ["forward_passes", "steady"]},
    }
    resolved = synthetic.small_campaign(studies={"warmup": study})
    iterations = aggregate(resolved, synthetic.campaign_records(resolved))["iterations"]
    short = iterations[(iterations["warmup"] == "forward_passes") & (iterations["phase"] == "warmup")]
    assert len(short) == 2 * 3
    assert short[["duration_s_per_step", "energy_j_per_output_token"]].isna().all(axis=None)


def test_samples_are_thinned_by_averaging() -> None:
    times = np.arange(0, 2, 0.01) + 0.001
    record = synthetic.altered(
        RECORDS[0], {"trace.time_s": times.tolist(), "trace.power_instant_w": [(100 + 10 * times).tolist()]}
    )
    samples = aggregate(RESOLVED, [record], allow_missing=True)["samples"]
    assert len(samples) == 20
    np.testing.assert_allclose(samples["power_w"], 100 + 10 * samples["time_s"], rtol=1e-12)
    np.testing.assert_allclose(samples["time_s"], 0.046 + 0.1 * np.arange(20), rtol=1e-9)
    assert samples["phase"].iloc[0] == "none"
    assert samples["phase"].iloc[5] == "idle"


def test_rows_come_in_the_planned_order_whatever_the_order_of_records() -> None:
    tables = aggregate(RESOLVED, RECORDS)
    again = aggregate(RESOLVED, RECORDS[::-1])
    assert set(tables) == set(RECORD_TABLES)
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(frame, again[name])
        assert list(frame.columns) == TABLES[name].names
    assert tables["runs"]["order"].tolist() == list(range(len(RECORDS)))


def test_warnings_keep_their_codes() -> None:
    warning = {"code": "throttled", "value": 0.25, "detail": "SYNTHETIC"}
    tables = aggregate(RESOLVED, [synthetic.altered(RECORDS[0], {"warnings": [warning]}), *RECORDS[1:]])
    assert tables["warnings"][["code", "value", "detail"]].to_dict("records") == [warning]
    assert tables["runs"]["n_warnings"].tolist() == [1] + [0] * (len(RECORDS) - 1)


# --- facts ---------------------------------------------------------------------------------------


def test_architectures_are_the_campaigns_models() -> None:
    models = aggregate(RESOLVED, RECORDS)["architectures"].set_index("model")
    assert models.index.tolist() == ["llama-3.2-1b", "llama-3.2-3b"]
    expected = {"n_layers": 16, "n_hidden": 2048, "n_intermediate": 8192, "n_heads": 32, "n_kv_heads": 8}
    expected |= {"n_head_dim": 64, "n_vocab": 128256, "tied_embeddings": True, "n_parameters": 1235814400}
    assert models.loc["llama-3.2-1b"].to_dict() == expected


def test_the_peak_rates_of_a_gpu_are_those_of_hardware_yaml() -> None:
    known = read_hardware(synthetic.REPOSITORY / "config/hardware.yaml")
    facts = aggregate(RESOLVED, RECORDS, hardware=known | {"SYNTHETIC GPU": known["NVIDIA H200"]})["gpu_facts"]
    assert set(facts["gpu_name"]) == {"SYNTHETIC GPU"}
    facts = facts.set_index("precision")
    assert set(facts.index) == {"float32", "tf32", "float16", "bfloat16", "float8", "int8"}
    assert facts.loc["float16", "peak_flop_per_s"] == pytest.approx(989.5e12, rel=1e-12)
    assert facts.loc["float32", "memory_bandwidth_bytes_per_s"] == pytest.approx(4.8e12, rel=1e-12)
    assert (facts["power_limit_w"] == 700).all()


def test_a_gpu_without_known_rates_has_no_row() -> None:
    known = read_hardware(synthetic.REPOSITORY / "config/hardware.yaml")
    assert aggregate(RESOLVED, RECORDS, hardware=known)["gpu_facts"].empty
    assert aggregate(RESOLVED, RECORDS)["gpu_facts"].empty


# --- completeness --------------------------------------------------------------------------------


def test_missing_runs_are_counted_and_the_first_named() -> None:
    ids = [run.run_id for run in expand(RESOLVED)]
    with pytest.raises(RecordError, match=r"5 of 8 runs have no record") as caught:
        aggregate(RESOLVED, RECORDS[:3])
    for name in ids[3:6]:
        assert name in str(caught.value)
    assert "and 2 more" in str(caught.value)
    tables = aggregate(RESOLVED, RECORDS[:3], allow_missing=True)
    assert len(tables["runs"]) == 3
    with pytest.raises(RecordError, match="8 of 8"):
        aggregate(RESOLVED, [], allow_missing=True)


def test_an_unplanned_record_is_refused() -> None:
    smaller = synthetic.small_campaign(
        studies={"batching": synthetic.BATCHING | {"vary": {"model": ["llama-3.2-1b"], "batch_size": [1, 8]}}}
    )
    with pytest.raises(RecordError, match=r"llama-3.2-3b.* is not in the design"):
        aggregate(smaller, RECORDS)
    foreign = synthetic.altered(RECORDS[0], {"identity.campaign": "another"})
    with pytest.raises(RecordError, match="another"):
        aggregate(RESOLVED, [foreign, *RECORDS[1:]])


def test_two_records_of_one_run_are_refused() -> None:
    with pytest.raises(RecordError, match="two records of run"):
        aggregate(RESOLVED, [*RECORDS, RECORDS[0]])


def test_levels_must_be_those_the_setting_is_named_after() -> None:
    with pytest.raises(RecordError, match="its levels make up setting"):
        aggregate(RESOLVED, [synthetic.altered(RECORDS[0], {"levels.batch_size": 3}), *RECORDS[1:]])


# --- comparability -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name", "old", "new"),
    [
        ({"hardware.devices.0.name": "NVIDIA H100"}, "GPU model", "SYNTHETIC GPU", "NVIDIA H100"),
        ({"hardware.devices.0.power_limit_w": 500.0}, "power limit", "700.0 W", "500.0 W"),
        ({"software.driver": "999.1"}, "driver", "SYNTHETIC", "999.1"),
        ({"software.torch": "2.0"}, "torch version", "2.13.0", "2.0"),
        ({"software.transformers": "4.0"}, "transformers version", "5.19.0", "4.0"),
        ({"meter.energy_method": "rapl"}, "energy method", "fake", "rapl"),
        ({"provenance.replay_of": "h200-pilot"}, "replayed campaign", "none: a real run", "h200-pilot"),
        ({"provenance.model_revision": "abc"}, "model revision", "None", "abc"),
        ({"workload.token_ids_sha256": "feed"}, "prompt hash", RECORDS[0].workload.token_ids_sha256, "feed"),
    ],
)
def test_a_mixture_is_refused_and_both_sides_named(changes: dict[str, Any], name: str, old: str, new: str) -> None:
    other = next(i for i, one in enumerate(RECORDS) if i and one.identity.setting == RECORDS[0].identity.setting)
    records = list(RECORDS)
    records[other] = synthetic.altered(records[other], changes)
    with pytest.raises(ComparabilityError) as caught:
        aggregate(RESOLVED, records)
    message = str(caught.value)
    for words in (f"mixed {name}", old, new, records[other].run_id):
        assert words in message
    assert any(record.run_id in message for record in records if record.run_id != records[other].run_id)


def test_models_may_differ_in_revision_and_prompts() -> None:
    records = [
        synthetic.altered(
            one,
            {
                "provenance.model_revision": f"revision of {one.levels.model}",
                "workload.token_ids_sha256": f"{one.levels.model} {one.levels.batch_size}",
            },
        )
        for one in RECORDS
    ]
    assert len(aggregate(RESOLVED, records)["runs"]) == len(RECORDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware.host": "another"},
        {"identity.sitting": "another"},
        {"hardware.devices.0.uuid_hash": "0123456789ab"},
        {"provenance.config_sha256": "another"},
        {"provenance.source_sha256": "another"},
    ],
)
def test_what_is_a_column_may_differ(changes: dict[str, Any]) -> None:
    aggregate(RESOLVED, [synthetic.altered(RECORDS[0], changes), *RECORDS[1:]])


# --- cycles --------------------------------------------------------------------------------------


def _started_later(record: Record, seconds: float, than: Record) -> Record:
    started = pd.Timestamp(than.identity.started_at_utc) + pd.Timedelta(seconds=seconds)
    return synthetic.altered(record, {"identity.started_at_utc": started.isoformat()})


@pytest.mark.parametrize(("seconds", "fits"), [(59.9, False), (60.0, True), (-59.9, False), (-60.0, True)])
def test_cycles_are_apart(seconds: float, fits: bool) -> None:
    other = next(i for i, one in enumerate(RECORDS) if i and one.identity.setting == RECORDS[0].identity.setting)
    records = list(RECORDS)
    records[other] = _started_later(records[other], seconds, than=records[0])
    if fits:
        aggregate(RESOLVED, records)
        return
    with pytest.raises(ComparabilityError, match="60 s apart") as caught:
        aggregate(RESOLVED, records)
    for record in (records[0], records[other]):
        assert record.run_id in str(caught.value)
        assert record.identity.started_at_utc in str(caught.value)


def test_cycles_of_anchors_may_follow_one_another_at_once_but_are_never_one_run() -> None:
    first, other = RECORDS[0], next(one for one in RECORDS[1:] if one.identity.setting == RECORDS[0].identity.setting)
    next_one = _started_later(other, 1.0, than=first)
    check_cycle_separation([first, next_one], 60.0, anchors={"batching"})
    for anchors in (frozenset(), {"launcher"}):
        with pytest.raises(ComparabilityError, match=r"1 s apart. Expected: cycles of one setting at least 60 s apart"):
            check_cycle_separation([first, next_one], 60.0, anchors=anchors)
    same = _started_later(other, 0.0, than=first)
    with pytest.raises(ComparabilityError, match="never one run under two names"):
        check_cycle_separation([first, same], 60.0, anchors={"batching"})


def test_a_campaigns_anchors_are_those_measured_in_every_portion() -> None:
    """Aggregating exempts them, and no other study."""
    anchors = {"question": "SYNTHETIC?", "fixed": {"model": "llama-3.2-1b", "batch_size": 2}, "every_portion": True}
    resolved = synthetic.small_campaign(studies={"batching": synthetic.BATCHING, "anchors": anchors}, portion_size=4)
    records = synthetic.campaign_records(resolved)
    for study, fits in (("anchors", True), ("batching", False)):
        first = next(one for one in records if one.identity.study == study)
        other = next(one for one in records if one is not first and one.identity.setting == first.identity.setting)
        close = [_started_later(other, 1.0, than=first) if one is other else one for one in records]
        if fits:
            aggregate(resolved, close)
        else:
            with pytest.raises(ComparabilityError, match="1 s apart"):
                aggregate(resolved, close)


def test_one_run_under_two_names_is_refused_even_without_a_gap() -> None:
    resolved = synthetic.small_campaign(cycle_gap_min_s=0.0)
    records = synthetic.campaign_records(resolved)
    other = next(i for i, one in enumerate(records) if i and one.identity.setting == records[0].identity.setting)
    records[other] = synthetic.altered(records[0], {"identity.cycle": 2})
    with pytest.raises(ComparabilityError, match="one run under two names"):
        aggregate(resolved, records)


# --- files ---------------------------------------------------------------------------------------


def test_records_are_read_from_their_places(tmp_path: Path) -> None:
    for record in RECORDS:
        write_record(tmp_path / "records" / f"{record.run_id}.json", record)
    read = read_records(tmp_path)
    assert sorted(read, key=lambda one: one.identity.order) == RECORDS
    path = tmp_path / "records" / f"{RECORDS[0].run_id}.json"
    path.rename(path.with_name("elsewhere.json"))
    with pytest.raises(RecordError, match=rf"elsewhere.json: holds the record of run {RECORDS[0].run_id}"):
        read_records(tmp_path)
