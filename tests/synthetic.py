"""SYNTHETIC records: nothing here was measured.

Power is piecewise linear, every kink is a sample of the trace, and counters are its exact integral.
So a table's energies are known in closed form, integrals by the trapezoidal rule are exact, and the
energy ledger closes to the last digit. The law behind the levels::

    energy per output token = E1(model, precision) * batch_size ** -0.85      (J)
    duration of a step      = S1(model, precision) * batch_size ** 0.05       (s)

each times log-normal noise between settings' cycles and between windows (0 on request).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.config import ResolvedCampaign, Setting, read_campaign, read_models, resolve
from inference_energy.design import Run, expand
from inference_energy.factors import SCHEDULING_ENGINES
from inference_energy.records import Record

REPOSITORY = Path(__file__).parents[1]
IDLE_W, LOAD_W, IDLE_LOADED_W = 78.0, 110.0, 123.0
IDLE_S, LOAD_S, IDLE_LOADED_S = 1.0, 0.5, 0.5
REST_S, TAIL_S, GAP_S = 0.1, 0.05, 0.4  # between intervals; work's end to closing tick; between runs
LAUNCH_S = 0.2  # process start to first sample and first reading of the counter
STEP_1_S = {"llama-3.2-1b": 0.009, "llama-3.2-3b": 0.016, "tiny-llama": 0.002}
STEP_1_S |= {"qwen2.5-0.5b": 0.006, "llama-3.1-8b": 0.03, "codellama-34b": 0.08}
POWER_1_W = {"llama-3.2-1b": 150.0, "llama-3.2-3b": 165.0, "tiny-llama": 130.0}
POWER_1_W |= {"qwen2.5-0.5b": 140.0, "llama-3.1-8b": 200.0, "codellama-34b": 250.0}
#: Duration of a step in an engine that schedules by itself over one in transformers, and of one in fewer bits.
FASTER = {"eager_mode": 0.7, "graphs": 0.4}
FEWER_BITS = {"float8": 0.7, "int4": 0.8}
STARTED = datetime(2000, 1, 1, tzinfo=UTC)  # a date that no one takes for real


def resolved_campaign(name: str = "h200-pilot", /, **changes: Any) -> ResolvedCampaign:
    """A campaign of ``config/campaigns`` with top-level keys replaced by `changes`."""
    campaign = read_campaign(REPOSITORY / f"config/campaigns/{name}.yaml")
    content = campaign.model_dump(mode="json") | changes
    models = read_models(REPOSITORY / "config/models.yaml")
    return resolve(type(campaign).model_validate(content), models, name)


def small_campaign(**changes: Any) -> ResolvedCampaign:
    """Two models, two batch sizes and two cycles, with short windows; for tests of single runs."""
    content: dict[str, Any] = {
        "name": "synthetic",
        "seed": 1,
        "cycle_gap_min_s": 60.0,
        "base": {"n_input_tokens": 16, "n_output_tokens": 16, "precision": "float16"},
        "measurement": {"window_min_s": 0.5},
        "studies": {"batching": BATCHING},
    }
    return resolved_campaign(**(content | changes))


BATCHING = {
    "question": "SYNTHETIC?",
    "vary": {"model": ["llama-3.2-1b", "llama-3.2-3b"], "batch_size": [1, 8]},
}
LAUNCHER = {
    "question": "SYNTHETIC?",
    "fixed": {"model": "llama-3.2-1b", "batch_size": 8},
    "vary": {"launcher": ["fork", "cold"]},
}


def altered(record: Record, changes: dict[str, Any]) -> Record:
    """`record` with other values at dotted paths: ``{"software.driver": "1", "intervals.0.index": 2}``."""
    content = record.model_dump()
    for path, value in changes.items():
        *parents, last = path.split(".")
        part: Any = content
        for name in parents:
            part = part[int(name)] if isinstance(part, list) else part[name]
        part[int(last) if isinstance(part, list) else last] = value
    return Record.model_validate(content)


def step_duration_s(levels: Setting) -> float:
    """Duration of one decoding step without noise."""
    slower = 1.3 if levels.precision in ("float32", "tf32") else 1.0
    faster = FASTER[levels.execution] * FEWER_BITS.get(levels.precision, 1.0) if schedules(levels) else 1.0
    return STEP_1_S[levels.model] * slower * faster * levels.batch_size**0.05


def schedules(levels: Setting) -> bool:
    """Whether the engine schedules by itself."""
    return levels.engine in SCHEDULING_ENGINES


def prompts_s(levels: Setting) -> float:
    """What prompts take besides the first step, which is all in transformers, to keep the law short."""
    return 1e-5 * levels.n_input_tokens * levels.batch_size if schedules(levels) else 0.0


def power_w(levels: Setting) -> float:
    """Power of one GPU that takes part, in windows and warm-up."""
    hotter = 1.6 if levels.precision in ("float32", "tf32") else 1.0
    return POWER_1_W[levels.model] * hotter * levels.batch_size**0.1


def waiting_s(levels: Setting) -> float:
    """Simulated waiting before each batch; a GPU draws the power of work meanwhile, to keep the law short."""
    if levels.traffic == "none":
        return 0.0
    n_delays = levels.batch_size if levels.delay_every == "query" else 1
    pause = levels.burst_interval_s / levels.burst_size if levels.traffic == "burst" else 0.0
    return n_delays * (levels.delay_min_s + levels.delay_max_s) / 2 + pause


def iteration_duration_s(levels: Setting) -> float:
    """Duration of one batch of every process without noise, its waiting included; of the pass where requests arrive."""
    if levels.arrival != "none":
        return levels.n_prompts_per_pass / (levels.arrival_requests_per_s or 10.0)
    return step_duration_s(levels) * levels.n_output_tokens + prompts_s(levels) + waiting_s(levels)


def n_answering(levels: Setting) -> int:
    """Processes that answer prompts of their own."""
    return 1 if levels.parallelism in ("none", "tensor") else levels.n_gpus


def energy_j_per_output_token(levels: Setting) -> float:
    """Gross energy per output token of full batches without noise, GPUs that take part."""
    n_tokens = levels.batch_size * levels.n_output_tokens * n_answering(levels)
    return power_w(levels) * levels.n_gpus * iteration_duration_s(levels) / n_tokens


@dataclass(frozen=True)
class Piece:
    """An interval on the run's clock with its power; in the tail the device waits."""

    phase: str
    index: int
    opened_s: float
    work_ended_s: float
    closed_s: float
    power_w: float
    iterations_s: tuple[float, ...]


class Timeline:
    """Power of one device over a run: linear between kinks."""

    def __init__(self, kinks: Iterable[tuple[float, float]]) -> None:
        self.times, self.powers = (np.array(values) for values in zip(*kinks, strict=True))
        steps = np.diff(self.times) * (self.powers[1:] + self.powers[:-1]) / 2
        self.energies = np.concatenate([[0.0], np.cumsum(steps)])

    def power(self, time_s: float) -> float:
        return float(np.interp(time_s, self.times, self.powers))

    def energy(self, time_s: float) -> float:
        """Exact integral from the first kink to `time_s`, which must be a kink."""
        index = int(np.searchsorted(self.times, time_s))
        assert self.times[index] == time_s
        return float(self.energies[index])


def campaign_records(
    resolved: ResolvedCampaign,
    *,
    energy_method: str = "fake",
    cycle_cv: float = 0.01,
    window_cv: float = 0.005,
    n_windows: int = 5,
    out_of_memory: Iterable[str] = (),
    failed: Iterable[str] = (),
    extra_devices: int = 0,
    n_lanes: int | None = None,
) -> list[Record]:
    """SYNTHETIC records of every run of the design, one sitting per traversal of the design.

    Parameters
    ----------
    out_of_memory, failed : iterable of str
        Run ids that fail for want of memory, or for another reason at every attempt.
    extra_devices : int
        Visible devices that take part in no run; they draw idle power throughout.
    n_lanes : int, optional
        GPUs of the machine, on which runs are measured side by side, each metering its own; all that are alone
        meter the whole machine. None: one run after the other, and all devices metered.
    """
    rng = np.random.default_rng(resolved.campaign.seed)
    runs = expand(resolved)
    n_devices = n_lanes or max(run.levels.n_gpus for run in runs) + extra_devices
    without_memory, without_luck = set(out_of_memory), set(failed)
    records: list[Record] = []
    machine = Machine([1000.0] * n_devices, [5000.0 + 100 * device for device in range(n_devices)])
    offset = STARTED
    for _, cycle_runs in itertools.groupby(runs, key=lambda run: run.traversal):
        machine.meet()
        for run in cycle_runs:
            noise = np.exp(rng.normal(0, cycle_cv) + rng.normal(0, window_cv, n_windows))
            pieces = _pieces(run, resolved, noise, fails=run.run_id in without_memory)
            alone = n_lanes is None or run.levels.neighbours == "none"
            metered, clock_s = machine.claim(n_devices if alone else run.levels.n_gpus)
            counters = [machine.counters_j[device] for device in metered]
            record = _record(run, resolved, pieces, metered, counters, clock_s, offset, energy_method, n_devices)
            machine.release(metered, record)
            records.append(_as_failed(record) if run.run_id in without_luck else record)
        offset += timedelta(seconds=resolved.campaign.cycle_gap_min_s + 60)
    return records


@dataclass
class Machine:
    """When each GPU is free, and its counter then; a GPU that waits draws idle power."""

    free_s: list[float]
    counters_j: list[float]

    def claim(self, n_devices: int) -> tuple[list[int], float]:
        """The GPUs that are free first, and when all of them are."""
        chosen = sorted(sorted(range(len(self.free_s)), key=lambda device: self.free_s[device])[:n_devices])
        self._wait(chosen)
        return chosen, self.free_s[chosen[0]]

    def meet(self) -> None:
        """Wait until all are free."""
        self._wait(list(range(len(self.free_s))))

    def release(self, devices: list[int], record: Record) -> None:
        """Take over the counters after a run, and rest."""
        for device, counter_j in zip(devices, record.counter_ended_j, strict=True):
            self.free_s[device] += record.process_ended_s + GAP_S
            self.counters_j[device] = counter_j + (GAP_S + LAUNCH_S) * IDLE_W

    def _wait(self, devices: list[int]) -> None:
        until_s = max(self.free_s[device] for device in devices)
        for device in devices:
            self.counters_j[device] += (until_s - self.free_s[device]) * IDLE_W
            self.free_s[device] = until_s


def _as_failed(record: Record) -> Record:
    """The record of a run that failed at every attempt: nothing was read."""
    empty = {name: [] for name in type(record.trace).model_fields}
    changes = {"status": "failed", "status_detail": "SYNTHETIC: it broke", "n_attempts": 3, "intervals": []}
    nothing = {"workload": None, "trace": empty, "device_checks": [], "warnings": []}
    devices = len(record.hardware.devices)
    counters = {"counter_started_j": [None] * devices, "counter_ended_j": [None] * devices}
    return altered(record, changes | nothing | counters)


def _pieces(run: Run, resolved: ResolvedCampaign, noise: np.ndarray, fails: bool) -> list[Piece]:
    """Intervals of one run in order; an out-of-memory run ends after loading."""
    levels, measurement = run.levels, resolved.campaign.measurement
    iteration_s = iteration_duration_s(levels)
    n_iterations = int(np.ceil(measurement.window_min_s / iteration_s))
    if levels.arrival != "none":
        n_iterations, noise = 1, noise[:1]
    elif levels.input_length_cv or levels.output_length_cv:  # whole passes
        n_iterations = levels.n_batches_per_pass * -(-n_iterations // levels.n_batches_per_pass)
    unready = levels.attention == "sdpa" and levels.precision == "float16"  # first pass: plans are built
    cold = 4.0 if unready else 1.2
    if levels.warmup == "steady":
        warm_up, noise = [cold * iteration_s] + [iteration_s] * measurement.warm_up.n_agree, noise.copy()
    else:
        warm_up, noise = [0.02] * 3, noise * np.array([cold if i == 0 else 1.0 for i in range(len(noise))])
    parts: list[tuple[str, int, float, list[float]]] = [("idle", 0, IDLE_W, [IDLE_S]), ("load", 0, LOAD_W, [LOAD_S])]
    if not fails:
        parts.append(("warmup", 0, power_w(levels), warm_up))
        parts += [
            ("window", index, power_w(levels), [iteration_s * factor] * n_iterations)
            for index, factor in enumerate(noise)
        ]
        parts.append(("idle_loaded", 0, IDLE_LOADED_W, [IDLE_LOADED_S]))
    pieces, time_s = [], LAUNCH_S + REST_S
    for phase, index, power, durations in parts:
        ended = time_s + sum(durations)
        tail = TAIL_S if phase in ("warmup", "window") else 0.0
        iterations = tuple(durations) if tail else ()
        pieces.append(Piece(phase, index, time_s, ended, ended + tail, power, iterations))
        time_s = ended + tail + REST_S
    return pieces


def _n_answers(levels: Setting, n_iterations: int) -> int:
    """Prompts answered in so many iterations by all processes; the last batch of a pass may be smaller."""
    if levels.arrival != "none":
        return n_iterations * levels.n_prompts_per_pass
    sizes = [levels.batch_size] * levels.n_batches_per_pass
    sizes[-1] = levels.n_prompts_per_process - levels.batch_size * (len(sizes) - 1)
    return sum(sizes[index % len(sizes)] for index in range(n_iterations)) * n_answering(levels)


def _timeline(pieces: list[Piece], works: bool, ended_s: float) -> Timeline:
    kinks = [(LAUNCH_S, IDLE_W)]
    for piece in pieces:
        power = piece.power_w if works else IDLE_W
        kinks += [(piece.opened_s, power), (piece.work_ended_s, power)]
        if piece.closed_s > piece.work_ended_s:
            waiting = IDLE_LOADED_W if works else IDLE_W
            kinks += [(float(np.nextafter(piece.work_ended_s, np.inf)), waiting), (piece.closed_s, waiting)]
    return Timeline([*kinks, (ended_s, IDLE_W)])


def _record(
    run: Run,
    resolved: ResolvedCampaign,
    pieces: list[Piece],
    metered: list[int],
    counters: list[float],
    clock_s: float,
    offset: datetime,
    energy_method: str,
    n_devices: int,
) -> Record:
    ended_s = pieces[-1].closed_s + REST_S
    lines = [_timeline(pieces, place < run.levels.n_gpus, ended_s) for place in range(len(metered))]
    started = offset + timedelta(seconds=clock_s)
    complete = pieces[-1].phase == "idle_loaded"
    levels = run.levels
    n_prompts = levels.n_prompts_per_pass
    workload = {
        "n_prompts": levels.n_prompts_answered_per_pass,
        "n_batches": levels.n_batches_per_pass,
        "n_input_tokens": levels.n_input_tokens,
        "n_output_tokens": levels.n_output_tokens,
        "n_non_padding_input_tokens": n_prompts * levels.n_input_tokens,
        "seed": resolved.campaign.seed,
        "source": levels.prompts,
        "token_ids_sha256": _digest(f"{levels.model} {n_prompts} {levels.n_input_tokens} {levels.prompts}", 64),
    }
    return Record.model_validate(
        {
            "schema_version": 2,
            "identity": {
                "campaign": run.campaign,
                "study": run.study,
                "setting": run.setting,
                "cycle": run.cycle,
                "order": run.order,
                "sitting": f"SYNTHETIC-{run.traversal}",
                "started_at_utc": started.isoformat(),
                "ended_at_utc": (started + timedelta(seconds=ended_s)).isoformat(),
            },
            "status": "ok" if complete else "out_of_memory",
            "status_detail": None if complete else "SYNTHETIC: no memory left",
            "levels": levels.model_dump(),
            "workload": workload if complete else None,
            "hardware": _hardware(metered, levels.n_gpus),
            "meter": {
                "energy_method": energy_method,
                "period_s": 0.1,
                "resolution_j": 0.001,
                "read_latency_s": 0.004,
                "tick_aligned": True,
                "qualification": None,
            },
            "launch": {
                "launcher": levels.launcher,
                "started_to_load_s": 0.4,
                "started_to_first_iteration_s": (0.8 if levels.launcher == "fork" else 8.0) if complete else None,
                "parent_n_device_files": 0,
                "parent_cuda_initialised": False,
                "n_processes": levels.n_gpus,
                "start": {
                    "waited_s": 0.5,
                    "settled": True,
                    "power_w": [IDLE_W + 2.0] * levels.n_gpus,
                    "temperature_c": [30.0] * levels.n_gpus,
                    "power_max_w": IDLE_W + 15.0,
                    "temperature_max_c": 50.0,
                },
            },
            "process_started_s": 0.0,
            "process_ended_s": ended_s,
            "monotonic_started_s": clock_s,
            "counter_started_j": counters,
            "counter_ended_j": [counter + line.energy(ended_s) for counter, line in zip(counters, lines, strict=True)],
            "intervals": [_interval(piece, lines, counters, levels) for piece in pieces],
            "trace": _trace(pieces, lines, counters, levels.n_gpus),
            "device_checks": _device_checks(metered, levels, n_devices, ended_s),
            "memory": {"device_peak_bytes": [10**9] * len(counters), "host_peak_bytes": 2 * 10**9},
            "software": {
                "python": "3.12",
                "torch": "2.13.0",
                "transformers": "5.19.0",
                "codecarbon": "3.3.2",
                "cuda": "13.0",
                "driver": "SYNTHETIC",
                "bitsandbytes": None,
                "inference_energy": "0.1.0",
            },
            "provenance": {
                "commit": None,
                "dirty": None,
                "source_sha256": "SYNTHETIC",
                "config_sha256": resolved.sha256(),
                "command": "SYNTHETIC: tests/synthetic.py",
                "model_revision": None,
                "weights": levels.weights,
                "replay_of": None,
            },
            "warnings": [],
        }
    )


def _device_checks(metered: list[int], levels: Setting, n_devices: int, ended_s: float) -> list[dict[str, Any]]:
    """Every visible GPU before, during and after; each that is not metered is at work for another run."""

    def state(device: int, works: bool) -> dict[str, Any]:
        takes_part, others = device in metered[: levels.n_gpus], device not in metered
        return {
            "uuid_hash": _digest(f"device {device}", 12),
            "metered": device in metered,
            "participates": takes_part,
            "power_w": power_w(levels) if (works and takes_part) or others else IDLE_W,
            "temperature_c": 40.0,
            "n_own_processes": int(works and takes_part),
            "n_other_processes": int(others),
        }

    moments = (("before", 0.0), ("during", ended_s / 2), ("after", ended_s))
    return [
        {
            "moment": moment,
            "time_s": time_s,
            "devices": [state(device, moment == "during") for device in range(n_devices)],
        }
        for moment, time_s in moments
    ]


def _hardware(metered: list[int], n_taking_part: int) -> dict[str, Any]:
    devices = [
        {
            "name": "SYNTHETIC GPU",
            "uuid_hash": _digest(f"device {device}", 12),
            "participates": index < n_taking_part,
            "power_limit_w": 700.0,
            "memory_total_bytes": 141 * 10**9,
        }
        for index, device in enumerate(metered)
    ]
    return {
        "host": _digest("host", 12),
        "description": "SYNTHETIC, not measured",
        "cpu_name": "SYNTHETIC CPU",
        "n_cpus": 2,
        "memory_total_bytes": 8 * 10**9,
        "devices": devices,
    }


def _interval(piece: Piece, lines: list[Timeline], counters: list[float], levels: Setting) -> dict[str, Any]:
    opened, ended, closed = (
        [line.energy(time) for line in lines] for time in (piece.opened_s, piece.work_ended_s, piece.closed_s)
    )
    energies = [after - before for after, before in zip(closed, opened, strict=True)]
    n_answers = _n_answers(levels, len(piece.iterations_s))
    n_tokens = n_answers * levels.n_output_tokens
    tokens = {
        "n_input_tokens": n_answers * levels.n_input_tokens,
        "n_tokens_requested": n_tokens,
        "n_tokens_generated": n_tokens,
        "n_tokens_non_padding": n_tokens,
    }
    generates = piece.iterations_s and piece.iterations_s[0] != 0.02  # three forward passes generate nothing
    codecarbon = (
        {
            "duration_s": closed_s,
            "gpu_energy_j": 1.01 * sum(energies),
            "cpu_energy_j": 40.0 * closed_s,
            "ram_energy_j": 10.0 * closed_s,
        }
        if (closed_s := piece.closed_s - piece.opened_s)
        else None
    )
    return {
        "phase": piece.phase,
        "index": piece.index,
        "opened_s": piece.opened_s,
        "work_ended_s": piece.work_ended_s,
        "closed_s": piece.closed_s,
        "waited_s": waiting_s(levels) * len(piece.iterations_s),
        "iteration_duration_s": list(piece.iterations_s),
        "counter_opened_j": [counter + energy for counter, energy in zip(counters, opened, strict=True)],
        "counter_closed_j": [counter + energy for counter, energy in zip(counters, closed, strict=True)],
        "energy_power_instant_j": energies,
        "energy_power_average_j": energies,
        "energy_tail_j": [after - before for after, before in zip(closed, ended, strict=True)],
        "uncertainty_j": [0.5] * len(lines),
        "codecarbon": codecarbon if piece.phase == "window" else None,
        "tokens": tokens if generates else None,
    }


def _trace(
    pieces: list[Piece], lines: list[Timeline], counters: list[float], n_taking_part: int, sample_period_s: float = 0.5
) -> dict[str, Any]:
    """Samples at every kink and every `sample_period_s`; slow samples once a second."""
    line = lines[0]
    times = np.union1d(line.times, np.arange(line.times[0], line.times[-1], sample_period_s))
    dense = [Timeline((time, one.power(time)) for time in times) for one in lines]
    slow = [float(second) for second in range(int(times[-1]) + 1)]
    works = [any(p.phase == "window" and p.opened_s <= second <= p.closed_s for p in pieces) for second in slow]

    def slowly(working: float, idle: float) -> list[list[float]]:
        return [
            [working if work and device < n_taking_part else idle for work in works] for device in range(len(lines))
        ]

    powers = [one.powers.tolist() for one in dense]
    return {
        "time_s": times.tolist(),
        "power_instant_w": powers,
        "power_average_w": powers,
        "counter_j": [(counter + one.energies).tolist() for counter, one in zip(counters, dense, strict=True)],
        "slow_time_s": slow,
        "sm_clock_mhz": slowly(1980.0, 345.0),
        "memory_clock_mhz": slowly(3201.0, 3201.0),
        "temperature_c": slowly(45.0, 30.0),
        "gpu_utilisation_fraction": slowly(0.9, 0.0),
        "throttle_reasons": slowly(0, 0),
        "n_other_processes": slowly(0, 0),
    }


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(f"SYNTHETIC {text}".encode()).hexdigest()[:length]
