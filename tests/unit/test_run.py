"""A run on fakes: the known energy comes back, failures become what they should."""

from __future__ import annotations

import itertools

import pytest
from fake_run import IDLE_W, FakeRun

from inference_energy.errors import MeterError, SteadyStateError, TokenCountError
from inference_energy.records import Interval, Record


def _phases(record: Record) -> list[str]:
    return [interval.phase for interval in record.intervals]


def _windows(record: Record) -> list[Interval]:
    return [interval for interval in record.intervals if interval.phase == "window"]


def _energy_j(interval: Interval, device: int = 0) -> float:
    opened, closed, tail = (
        interval.counter_opened_j[device],
        interval.counter_closed_j[device],
        interval.energy_tail_j[device],
    )
    assert opened is not None
    assert closed is not None
    assert tail is not None
    return closed - opened - tail


WHOLE = ["idle", "load", "warmup", *["window"] * 5, "idle_loaded"]


def test_a_run_goes_through_all_phases() -> None:
    record = FakeRun().measured()
    assert _phases(record) == WHOLE
    assert [window.index for window in _windows(record)] == [0, 1, 2, 3, 4]
    assert record.status == "ok"
    assert record.status_detail is None
    assert record.meter.energy_method == "fake"
    assert record.warnings == []


@pytest.mark.parametrize("takes_part", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_the_known_energy_of_each_device_comes_back_within_its_uncertainty(takes_part: tuple[int, ...]) -> None:
    n = len(takes_part)
    levels = {"parallelism": "replicas", "n_gpus": n} if n > 1 else {}
    run = FakeRun(durations_s=itertools.cycle([0.7, 0.71, 0.69]), n_devices=3, takes_part=takes_part, levels=levels)
    record = run.measured()
    assert record.warnings == []
    for window in _windows(record):
        for device in range(3):
            true_j = run.true_energy_j(window.opened_s, window.work_ended_s, device)
            uncertainty_j = window.uncertainty_j[device]
            assert uncertainty_j is not None
            assert abs(_energy_j(window, device) - true_j) < 2 * uncertainty_j
            assert uncertainty_j < 0.006 * true_j
            if device not in takes_part:
                assert true_j == pytest.approx(IDLE_W * (window.work_ended_s - window.opened_s))


def test_several_devices_are_metered_from_tick_to_tick_and_their_tokens_add_up() -> None:
    levels = {"parallelism": "replicas", "n_gpus": 2}
    record = FakeRun(takes_part=(0, 1), levels=levels, durations_s=itertools.cycle([0.7])).measured()
    assert record.launch.n_processes == 2
    assert record.memory.device_peak_bytes == [10**9, 10**9]
    for window in _windows(record):
        assert window.device_opened_s is not None
        assert window.device_closed_s is not None
        assert max(window.device_opened_s) == window.opened_s
        assert max(window.device_closed_s) == window.closed_s
        assert min(window.device_closed_s) > window.work_ended_s
        assert len(set(window.device_opened_s)) == 2
        assert window.tokens is not None
        assert window.tokens.n_tokens_generated == len(window.iteration_duration_s) * 2 * 4 * 16


def test_simulated_waiting_is_part_of_the_windows_and_not_of_the_warm_up() -> None:
    levels = {"traffic": "constant", "delay_min_s": 0.2, "delay_max_s": 0.4}
    run = FakeRun(levels=levels, durations_s=itertools.cycle([0.7]))
    record = run.measured()
    assert record.intervals[2].iteration_duration_s == pytest.approx([0.7] * 3)
    for window in _windows(record):
        n = len(window.iteration_duration_s)
        assert window.waited_s == pytest.approx(sum(window.iteration_duration_s) - 0.7 * n)
        assert 0.2 * n <= window.waited_s <= 0.4 * n
        true_j = run.true_energy_j(window.opened_s, window.work_ended_s)
        assert _energy_j(window) == pytest.approx(true_j, abs=2 * (window.uncertainty_j[0] or 0.0))
        assert true_j == pytest.approx(0.7 * n * 400 + (window.waited_s or 0.0) * 120, abs=2)


def test_every_interval_opens_where_the_one_before_closed_save_for_codecarbons_edge() -> None:
    followed, alone = FakeRun().measured(), FakeRun(has_codecarbon=False).measured()
    gaps = [[b.opened_s - a.closed_s for a, b in itertools.pairwise(record.intervals)] for record in (followed, alone)]
    assert gaps[0] == [0, 0, pytest.approx(0.1, abs=0.005), 0, 0, 0, 0, 0]
    assert gaps[1] == [0] * 8


def test_the_ledger_closes() -> None:
    run = FakeRun(has_codecarbon=False)
    record = run.measured()
    for device in (0, 1):
        parts = [after - before for after, before in zip(*_edges(record, device), strict=True)]
        before_j = record.intervals[0].counter_opened_j[device] - record.counter_started_j[device]
        after_j = record.counter_ended_j[device] - record.intervals[-1].counter_closed_j[device]
        whole_j = record.counter_ended_j[device] - record.counter_started_j[device]
        assert before_j + sum(parts) + after_j == pytest.approx(whole_j, abs=1e-9)
        assert whole_j == pytest.approx(run.true_energy_j(0, record.process_ended_s, device), abs=0.2 * 400)


def _edges(record: Record, device: int) -> tuple[list[float], list[float]]:
    return (
        [i.counter_closed_j[device] or 0.0 for i in record.intervals],
        [i.counter_opened_j[device] or 0.0 for i in record.intervals],
    )


def test_windows_hold_whole_iterations_and_their_tokens() -> None:
    record = FakeRun(durations_s=itertools.cycle([0.7])).measured()
    for window in _windows(record):
        assert len(window.iteration_duration_s) == 5  # four take 2.8 s, less than 3
        assert window.tokens is not None
        assert window.tokens.n_tokens_requested == 5 * 4 * 16
        assert window.tokens.n_tokens_generated == window.tokens.n_tokens_non_padding == 5 * 4 * 16
        assert window.tokens.n_input_tokens == 5 * 4 * 16
        assert window.work_ended_s - window.opened_s >= 3.0
        assert sum(window.iteration_duration_s) == pytest.approx(window.work_ended_s - window.opened_s, abs=0.01)


def test_codecarbons_laps_belong_to_their_intervals() -> None:
    record = FakeRun().measured()
    for interval in record.intervals:
        lap = interval.codecarbon
        if interval.phase in ("window", "idle_loaded"):
            assert lap is not None
            assert lap.duration_s == pytest.approx(interval.closed_s - interval.opened_s, abs=0.01)
        else:
            assert lap is None
    assert all(i.codecarbon is None for i in FakeRun(has_codecarbon=False).measured().intervals)


def test_the_warm_up_ends_when_iterations_agree() -> None:
    durations_s = itertools.chain([3.0, 1.0, 0.71, 0.70], itertools.repeat(0.7))
    warm_up = FakeRun(durations_s=durations_s).measured().intervals[2]
    assert warm_up.iteration_duration_s == pytest.approx([3.0, 1.0, 0.71, 0.70, 0.7])
    assert warm_up.tokens is not None
    assert warm_up.tokens.n_tokens_requested == 5 * 64


def test_forward_passes_generate_nothing() -> None:
    record = FakeRun(levels={"warmup": "forward_passes"}).measured()
    warm_up = record.intervals[2]
    assert warm_up.iteration_duration_s == []
    assert warm_up.tokens is None
    assert warm_up.work_ended_s - warm_up.opened_s == pytest.approx(0.03, abs=0.005)


def test_launch_times_leave_idle_out() -> None:
    launch = FakeRun(measurement={"idle_s": 5.0}).measured().launch
    assert launch.started_to_load_s < 0.3
    assert launch.started_to_first_iteration_s == pytest.approx(launch.started_to_load_s + 0.35, abs=0.1)
    assert launch.parent_n_device_files == 0
    assert launch.parent_cuda_initialised is False


def test_times_count_from_the_process_start() -> None:
    record = FakeRun().measured()
    assert record.monotonic_started_s == 1000.0
    assert 0 < record.intervals[0].opened_s < 0.3
    assert record.process_ended_s >= record.intervals[-1].closed_s
    assert record.trace.time_s[0] < record.intervals[0].opened_s


# --- results that are no success ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "reached"),
    [
        ("load", ["idle"]),
        (0, ["idle", "load"]),
        (2, ["idle", "load"]),
        (3, ["idle", "load", "warmup"]),
        (8, ["idle", "load", "warmup", "window"]),
        (27, ["idle", "load", "warmup", *["window"] * 4]),
    ],
)
def test_out_of_memory_is_a_result_with_what_was_reached(where: str | int, reached: list[str]) -> None:
    record = FakeRun(engine={"out_of_memory_at": where}).measured()
    assert record.status == "out_of_memory"
    assert "no memory" in (record.status_detail or "")
    assert _phases(record) == reached
    assert record.counter_ended_j[0] > record.counter_started_j[0]
    assert (record.launch.started_to_first_iteration_s is None) == (where == "load")
    assert record.memory.device_peak_bytes == [10**9, None]


@pytest.mark.parametrize("wrong", [{"n_lost_tokens": 1}, {"n_padding_tokens": 1}, {"n_lost_tokens": -1}])
def test_tokens_that_disagree_fail_the_run(wrong: dict[str, int]) -> None:
    with pytest.raises(TokenCountError, match=r"fakes/.*64 of each"):
        FakeRun(engine=wrong).measured()


def test_a_run_that_never_gets_steady_fails() -> None:
    with pytest.raises(SteadyStateError, match="no steady state after 60 iterations"):
        FakeRun(durations_s=itertools.cycle([0.5, 1.0])).measured()


def test_an_engine_on_another_device_fails_the_run() -> None:
    with pytest.raises(MeterError, match=r"runs on GPU-other, the meter reads GPU-fake-0"):
        FakeRun(engine={"uuids": ["GPU-other"]}).measured()


def test_a_counter_that_stops_fails_the_run() -> None:
    with pytest.raises(MeterError, match="stood still"):
        FakeRun(counter={"stops_at_s": 1005.0}).measured()


def test_a_cpu_engine_has_no_uuid_to_compare() -> None:
    assert FakeRun(engine={"uuids": []}).measured().status == "ok"


def test_other_processes_are_a_warning() -> None:
    (warning,) = FakeRun(other_processes=2).measured().warnings
    assert (warning.code, warning.value) == ("other_processes", 2)


def test_a_counter_without_ticks_is_read_at_once() -> None:
    run = FakeRun(counter={"ticks": False})
    record = run.measured()
    assert record.meter.tick_aligned is False
    for window in _windows(record):
        assert window.closed_s - window.work_ended_s < 0.005
        assert window.energy_tail_j == [0.0, 0.0]
        assert window.uncertainty_j[0] == pytest.approx(0.1 * 400 / 6**0.5, rel=0.05)
