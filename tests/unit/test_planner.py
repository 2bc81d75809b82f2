"""The planner on synthetic records of known time and energy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import synthetic

from inference_energy import history, planner
from inference_energy.config import ResolvedCampaign, Setting, read_context
from inference_energy.design import expand
from inference_energy.records import write_record

BATCHES = [1, 2, 4, 8, 16, 32, 64]
CONTEXT = read_context(synthetic.REPOSITORY / "config" / "context.yaml")
TARIFF = planner.tariff(CONTEXT, "Germany", "household in Germany", "computers alone")


def _campaign(batches: list[int], **changes: Any) -> ResolvedCampaign:
    vary = {"model": ["llama-3.2-1b", "llama-3.2-3b"], "precision": ["float16", "float32"], "batch_size": batches}
    return synthetic.small_campaign(studies={"batching": {"question": "SYNTHETIC?", "vary": vary}}, **changes)


def _measured(results: Path, resolved: ResolvedCampaign, n_runs: int | None = None) -> None:
    folder = results / resolved.campaign.name
    folder.mkdir(parents=True)
    (folder / "campaign.yaml").write_text(resolved.dump(), encoding="utf-8")
    for record in synthetic.campaign_records(resolved, cycle_cv=0.0, window_cv=0.0)[:n_runs]:
        write_record(folder / "records" / f"{record.run_id}.json", record)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    _measured(folder, _campaign(BATCHES))
    return folder


@pytest.fixture(scope="module")
def runs(results: Path) -> list[history.Observed]:
    found, done = history.earlier(_campaign(BATCHES), results, None)
    assert len(done) == 56
    assert list(found) == ["SYNTHETIC GPU"]
    return found["SYNTHETIC GPU"]


def test_a_record_is_read_as_it_was_made(runs: list[history.Observed]) -> None:
    for run in runs:
        assert run.work_s == pytest.approx(synthetic.step_duration_s(run.levels) * 16, rel=1e-9)
        assert run.power_work_w == pytest.approx(synthetic.power_w(run.levels), rel=0.1)  # windows end in a tail


def test_a_measured_setting_is_forecast_as_measured(runs: list[history.Observed]) -> None:
    """Time to what the synthetic maker adds between intervals; energy to how it spreads the rest."""
    resolved = _campaign(BATCHES, measurement={"window_min_s": 0.5, "idle_s": synthetic.IDLE_S})
    estimator = planner.Estimator(runs, {run.levels.model: run.n_parameters for run in runs})
    for run in runs:
        found = estimator.forecast(run.levels, resolved.campaign.measurement)
        assert found.wall_s == pytest.approx(run.wall_s, rel=0.01)
        assert found.energy_j == pytest.approx(run.energy_j, rel=0.05)


def test_longer_windows_and_longer_idle_are_known_exactly(runs: list[history.Observed]) -> None:
    estimator = planner.Estimator(runs, {run.levels.model: run.n_parameters for run in runs})
    short = _campaign(BATCHES).campaign.measurement
    more = short.model_copy(update={"idle_s": short.idle_s + 10, "n_windows": 2 * short.n_windows})
    levels = runs[0].levels
    iteration_s = runs[0].work_s
    added_s = short.n_windows * math.ceil(short.window_min_s / iteration_s) * iteration_s
    gained_s = estimator.forecast(levels, more).wall_s - estimator.forecast(levels, short).wall_s
    assert gained_s == pytest.approx(10 + added_s, rel=1e-9)


def test_settings_between_and_beyond_the_measured_ones(runs: list[history.Observed]) -> None:
    estimator = planner.Estimator(runs, {run.levels.model: run.n_parameters for run in runs})
    measurement = runs[0].measurement.model_copy(update={"window_min_s": 0.01})  # one iteration a window
    for batch in (3, 12, 48, 128):
        levels = runs[0].levels.model_copy(update={"batch_size": batch})
        found, iteration_s = estimator.forecast(levels, measurement), synthetic.step_duration_s(levels) * 16
        exact = estimator.forecast(levels.model_copy(update={"batch_size": 8}), measurement)
        assert found.wall_s - exact.wall_s == pytest.approx(0.0, abs=20 * iteration_s * 0.2)


def test_simulated_waiting_is_added(runs: list[history.Observed]) -> None:
    estimator = planner.Estimator(runs, {run.levels.model: run.n_parameters for run in runs})
    waits = {"traffic": "constant", "delay_min_s": 1.0, "delay_max_s": 1.0}
    levels = Setting.model_validate(runs[0].levels.model_dump() | waits)
    measurement = runs[0].measurement  # windows of 0.5 s: each holds one iteration and its wait
    found = estimator.forecast(levels, measurement).wall_s
    still = runs[0].overhead_s + measurement.idle_s + measurement.idle_loaded_s
    warm_s = runs[0].warm_up_ratio * runs[0].work_s
    assert found == pytest.approx(still + warm_s + 5 * (1.0 + runs[0].work_s), rel=0.1)


def test_leaving_out_says_how_far_off_estimates_are(runs: list[history.Observed]) -> None:
    miss = planner.leave_one_out(runs)
    assert miss is not None
    assert miss.n_settings == 28
    assert 0 < miss.wall_error_fraction < 0.1
    assert 0 < miss.energy_error_fraction < 0.1
    assert planner.leave_one_out(runs[:1]) is None


def _sharing(batches: list[int]) -> ResolvedCampaign:
    fixed = {"model": "llama-3.2-1b", "engine": "vllm", "engine_process": "shared", "execution": "graphs"}
    return synthetic.small_campaign(studies={"s": {"question": "?", "fixed": fixed, "vary": {"batch_size": batches}}})


def _later(content: dict[str, Any], by_s: float, by_j: float) -> None:
    """Let an engine start that much later, with so much more energy."""
    for one in content["intervals"]:
        if one["phase"] not in ("idle", "load"):
            one["opened_s"], one["closed_s"] = one["opened_s"] + by_s, one["closed_s"] + by_s
            for edge in ("counter_opened_j", "counter_closed_j"):
                one[edge] = [value + by_j for value in one[edge]]
    content["process_ended_s"] += by_s
    content["counter_ended_j"] = [value + by_j for value in content["counter_ended_j"]]


def test_the_start_of_a_shared_engine_is_told_apart_and_counts_once() -> None:
    """SYNTHETIC: of three runs in one engine the first starts it; then a start that takes 40 s and 5000 J more."""
    resolved = _sharing([1, 2, 4])
    measurement, observed = resolved.campaign.measurement, []
    records = [record for record in synthetic.campaign_records(resolved) if record.identity.cycle == 1]
    for place, record in enumerate(records):
        shared = {"process": "p", "position": place, "first_run": records[0].run_id}
        content = synthetic.altered(record, {"launch.shared": shared}).model_dump(mode="json")
        if place > 0:
            content["intervals"] = [one for one in content["intervals"] if one["phase"] not in ("idle", "load")]
        found = history.observed(content, resolved.models, measurement)
        assert found is not None
        observed.append(found)
        if place == 0:
            _later(content, 40.0, 5000.0)
            later = history.observed(content, resolved.models, measurement)
            assert later is not None
            assert (later.wall_s, later.energy_j) == pytest.approx((found.wall_s, found.energy_j), rel=1e-9)
            assert later.overhead_s == pytest.approx(found.overhead_s, rel=1e-6)
            assert later.start_s == pytest.approx((found.start_s or 0.0) + 40.0, rel=1e-9)
            assert later.start_energy_j == pytest.approx(found.start_energy_j + 5000.0, rel=1e-9)
    assert [one.start_s is None for one in observed] == [False, True, True]
    estimator = planner.Estimator(observed, {"llama-3.2-1b": observed[0].n_parameters})
    runs = expand(_sharing([1, 2, 4, 8]))
    each = estimator.forecasts(runs, measurement)
    added_s = [
        one.wall_s - estimator.forecast(run.levels, measurement).wall_s for one, run in zip(each, runs, strict=True)
    ]
    assert added_s == pytest.approx([observed[0].start_s, 0, 0, 0] * 2, abs=1e-9)  # one engine a cycle


def test_requests_take_at_least_until_the_last_arrives(runs: list[history.Observed]) -> None:
    estimator = planner.Estimator(runs, {run.levels.model: run.n_parameters for run in runs})
    asked: dict[str, Any] = {"engine": "vllm_server", "arrival": "fixed", "arrival_requests_per_s": 2.0}
    levels = Setting(model="llama-3.2-1b", batch_size=1, n_prompts=301, **asked)
    assert levels.arrival_span_s == 150.0
    assert estimator.forecast(levels, runs[0].measurement).wall_s > 150.0


def test_runs_that_follow_one_another_take_one_gpu() -> None:
    one = Setting(model="m")
    runs = [(one, 30.0), (one, 10.0), (one, 5.0), (one, 5.0)]
    assert planner.finish_s(runs, 2, [[0, 2, 3]]) == [30.0, 10.0, 35.0, 40.0]


def test_side_by_side() -> None:
    one = Setting(model="m")
    four = Setting(model="m", parallelism="replicas", n_gpus=4)
    alone = Setting(model="m", neighbours="none")
    assert planner.finish_s([(one, 10.0)] * 8, 4) == [10.0] * 4 + [20.0] * 4
    assert planner.finish_s([(one, 10.0), (four, 5.0), (one, 1.0)], 4) == [10.0, 15.0, 16.0]
    assert planner.finish_s([(one, 10.0), (alone, 5.0)], 2) == [10.0, 15.0]
    assert planner.finish_s([(four, 1.0), (one, 1.0)], 1) == [math.inf, 1.0]


def test_the_report_leaves_out_what_is_measured(tmp_path: Path) -> None:
    resolved = _campaign(BATCHES)
    _measured(tmp_path, resolved, n_runs=40)
    said = planner.report(resolved, expand(resolved), tmp_path, TARIFF, "SYNTHETIC GPU", 2, 30.0)
    assert "56 runs, 28 settings in 2 cycles; 40 runs are measured, 16 are left" in said
    assert "From 40 earlier runs, 28 settings" in said
    assert "On 2 GPUs side by side" in said
    assert "household in Germany, 0.3943 EUR/kWh" in said
    assert "30 s on 2 GPUs reach" in said
    nothing = planner.report(resolved, expand(resolved), tmp_path / "none", TARIFF, None)
    assert "No earlier records to estimate from" in nothing


def test_joules_become_cost_and_emissions() -> None:
    assert TARIFF.cost_eur(3.6e6) == pytest.approx(0.3943, rel=1e-12)
    assert TARIFF.carbon_g(3.6e6) == pytest.approx(400.0, rel=1e-12)
    with pytest.raises(planner.ConfigError, match="'Atlantis' is not there"):
        planner.tariff(CONTEXT, "Atlantis", "household in Germany", "computers alone")
