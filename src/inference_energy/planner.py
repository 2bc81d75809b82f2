"""What a campaign will take: runs, time, energy, cost and CO2e, from earlier records.

An estimate has parts that are known (idle, windows of whole iterations that last long enough,
simulated waiting) and parts that come from earlier records on the same model of GPU: seconds of
work per output step, power, launch and load, and what the warm-up takes. These parts are read off a
log-linear least-squares fit over model size, precision, batch, lengths, decoding and parallelism,
corrected by what the three nearest measured settings differ from it; a setting that was measured
itself is taken as measured. How far off this is, is seen by leaving out each measured setting.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_energy.config import ContextFacts, Measurement, ResolvedCampaign, Setting
from inference_energy.design import Run, fractions, served_together, setting_id
from inference_energy.errors import ConfigError, did_you_mean
from inference_energy.history import Observed, earlier
from inference_energy.measure.traffic import expected_wait_s
from inference_energy.measure.windows import Plan
from inference_energy.units import kwh_from_joules

Floats = npt.NDArray[np.float64]

N_NEAREST = 3
#: Distance of two settings that differ in one of these; a doubling of a count is a distance of 1.
CATEGORIES = {
    "warmup": 4.0,
    "launcher": 4.0,
    "engine": 4.0,
    "execution": 2.0,
    "arrival": 2.0,
    "parallelism": 2.0,
    "precision": 2.0,
    "decoding": 1.0,
    "attention": 1.0,
    "weights": 0.5,
}
_RIDGE = 0.01
_LEFT_OUT_MAX = 150
#: What lies between two runs of one GPU where no record tells: the workflow's own time.
_GAP_S = 1.0


@dataclass(frozen=True)
class Forecast:
    """What one run, or many, will take."""

    wall_s: float
    energy_j: float


@dataclass(frozen=True)
class Tariff:
    """What a joule costs and emits, and by which keys of ``config/context.yaml``."""

    grid: str
    price: str
    facility: str
    carbon_g_per_kwh: float
    price_eur_per_kwh: float
    pue: float

    def cost_eur(self, energy_j: float) -> float:
        """Price of the facility's electricity."""
        return kwh_from_joules(energy_j) * self.pue * self.price_eur_per_kwh

    def carbon_g(self, energy_j: float) -> float:
        """Emissions of the facility's electricity."""
        return kwh_from_joules(energy_j) * self.pue * self.carbon_g_per_kwh


def tariff(context: ContextFacts, grid: str, price: str, facility: str) -> Tariff:
    """The facts of these keys.

    Raises
    ------
    ConfigError
        If the context has no such key.
    """
    chosen = (("carbon_g_per_kwh", grid), ("price_eur_per_kwh", price), ("pue", facility))
    for section, key in chosen:
        known = getattr(context, section)
        if key not in known:
            raise ConfigError(f"context.yaml: {section}", f"{key!r} is not there. {did_you_mean(key, known)}")
    values = [float(getattr(context, section)[key].value) for section, key in chosen]
    return Tariff(grid, price, facility, *values)


# --- the estimate --------------------------------------------------------------------------------


class Estimator:
    """Fitted to earlier runs on one model of GPU; gives what another setting takes.

    Parameters
    ----------
    runs : sequence of Observed
        At least one.
    n_parameters : dict
        Of each model to be estimated.
    """

    _QUANTITIES = ("work_s", "power_work_w", "power_rest_w", "overhead_s", "warm_up_ratio")

    def __init__(self, runs: Sequence[Observed], n_parameters: dict[str, float]) -> None:
        self._runs = list(runs)
        self._n_parameters = n_parameters
        self._names = {name: sorted({getattr(run.levels, name) for run in runs}) for name in CATEGORIES}
        x = np.array([self._features(run.levels, run.n_parameters) for run in runs])
        # Per output step and plus one: positive numbers whose logarithms are close to linear in the features.
        self._y = np.log(np.array([self._scaled(run) for run in runs]))
        self._middle = self._y.mean(axis=0)
        penalty = _RIDGE * len(runs) * np.eye(x.shape[1])
        self._weights = np.linalg.solve(x.T @ x + penalty, x.T @ (self._y - self._middle))
        self._residuals = self._y - self._middle - x @ self._weights
        self._places = np.array([_place(run.levels, run.n_parameters) for run in runs])
        self._ids = [setting_id(run.levels) for run in runs]

    def _scaled(self, run: Observed) -> list[float]:
        values = [float(getattr(run, name)) for name in self._QUANTITIES]
        return [values[0] / run.levels.n_output_tokens, *values[1:4], values[4] + 1]

    def _features(self, levels: Setting, n_parameters: float) -> list[float]:
        """Numbers that a logarithm of time or power may depend on linearly."""
        numbers = _place(levels, n_parameters)
        batch = numbers[1]
        levelled = [float(getattr(levels, name) == each) for name, known in self._names.items() for each in known]
        precise = [batch / 6 * float(levels.precision == each) for each in self._names["precision"]]
        return [*(numbers / 6).tolist(), (batch / 6) ** 2, *levelled, *precise]

    def forecast(self, levels: Setting, measurement: Measurement) -> Forecast:
        """What a run of this setting takes."""
        n_parameters = self._n_parameters[levels.model]
        trend = np.array(self._features(levels, n_parameters)) @ self._weights + self._middle
        near, weights = self._nearest(levels, n_parameters)
        exact = self._y[near] if near and self._ids[near[0]] == setting_id(levels) else trend + self._residuals[near]
        found = np.exp(np.average(exact, axis=0, weights=weights))
        work_s, power_w, rest_w = float(found[0]) * levels.n_output_tokens, float(found[1]), float(found[2])
        warm_s = max(float(found[4]) - 1, 0.0) * work_s if levels.warmup == "steady" else 0.0
        iterating_s, waiting_s = _iterating_s(levels, measurement, work_s)
        idle_s = measurement.idle_loaded_s + (measurement.idle_s if levels.engine_process == "own" else 0.0)
        rest_s = float(found[3]) + idle_s + waiting_s
        energy_j = levels.n_gpus * (power_w * (warm_s + iterating_s) + rest_w * rest_s)
        return Forecast(wall_s=warm_s + iterating_s + rest_s, energy_j=energy_j)

    def start(self, levels: Setting) -> Forecast:
        """What starting the engine takes that a run like this shares: the median of those most like it."""
        seen = [run for run in self._runs if run.start_s is not None]
        for name in ("engine", "model", "execution", "precision", "n_gpus"):
            seen = [run for run in seen if getattr(run.levels, name) == getattr(levels, name)] or seen
        if not seen:
            return Forecast(0.0, 0.0)
        energy_j = statistics.median(run.start_energy_j / run.levels.n_gpus for run in seen)
        return Forecast(statistics.median(run.start_s or 0.0 for run in seen), levels.n_gpus * energy_j)

    def forecasts(self, runs: Sequence[Run], measurement: Measurement) -> list[Forecast]:
        """What each run takes; the first of those that share an engine starts it."""
        first = {group[0].run_id for group in served_together(runs)}
        found = []
        for run in runs:
            own = self.forecast(run.levels, measurement)
            start = self.start(run.levels) if run.run_id in first else Forecast(0.0, 0.0)
            found.append(Forecast(own.wall_s + start.wall_s, own.energy_j + start.energy_j))
        return found

    def _nearest(self, levels: Setting, n_parameters: float) -> tuple[list[int], Floats]:
        """Numbers and weights of the nearest runs: those of the setting itself, or of a few others."""
        own = setting_id(levels)
        same = [i for i, each in enumerate(self._ids) if each == own]
        if same:
            return same, np.ones(len(same))
        distances = np.abs(self._places - _place(levels, n_parameters)).sum(axis=1)
        for name, distance in CATEGORIES.items():
            level = getattr(levels, name)
            distances += distance * np.array([getattr(run.levels, name) != level for run in self._runs])
        near = np.argsort(distances, kind="stable")[:N_NEAREST]
        return near.tolist(), 1 / (0.25 + distances[near])


def _place(levels: Setting, n_parameters: float) -> Floats:
    """Where a setting lies: each coordinate counts doublings."""
    counts = (n_parameters, levels.batch_size, levels.n_gpus, levels.n_input_tokens, levels.n_output_tokens)
    return np.log2(np.array(counts, dtype=np.float64))


def _iterating_s(levels: Setting, measurement: Measurement, work_s: float) -> tuple[float, float]:
    """Work and simulated waiting in all windows: whole iterations that fill them, in seconds."""
    windows = Plan(levels, measurement, work_s)
    wait_s = expected_wait_s(levels)
    return windows.n_iterations * (work_s + levels.arrival_span_s), windows.n_iterations * wait_s


@dataclass(frozen=True)
class Miss:
    """How far estimates of measured settings were off when those settings were left out: medians."""

    n_settings: int
    wall_error_fraction: float
    energy_error_fraction: float


def leave_one_out(runs: Sequence[Observed]) -> Miss | None:
    """Estimate each measured setting from the others; None with fewer than three settings."""
    by_setting: dict[str, list[Observed]] = {}
    for run in runs:
        by_setting.setdefault(setting_id(run.levels), []).append(run)
    if len(by_setting) < 3:
        return None
    step = -(-len(by_setting) // _LEFT_OUT_MAX)  # enough of them, evenly chosen, where there are many
    walls, energies = [], []
    for left_out, own in sorted(by_setting.items())[::step]:
        others = [run for name, several in by_setting.items() if name != left_out for run in several]
        found = Estimator(others, {run.levels.model: run.n_parameters for run in own}).forecast(
            own[0].levels, own[0].measurement
        )
        walls.append(abs(found.wall_s / statistics.fmean(run.wall_s for run in own) - 1))
        energies.append(abs(found.energy_j / statistics.fmean(run.energy_j for run in own) - 1))
    return Miss(len(walls), statistics.median(walls), statistics.median(energies))


# --- side by side --------------------------------------------------------------------------------


def finish_s(runs: Sequence[tuple[Setting, float]], n_gpus: int, together: Iterable[Sequence[int]] = ()) -> list[float]:
    """When each run ends, in the given order, on `n_gpus` GPUs side by side.

    A run takes as many GPUs as its setting says, or all if it wants no neighbours; one that wants more
    than there are ends at infinity.

    Parameters
    ----------
    together : iterable of sequences of int
        Places of runs that follow one another in one process, as soon as the first of them begins.
    """
    free_s, groups = [0.0] * n_gpus, {places[0]: places for places in together}
    ends: dict[int, float] = {}
    for place, (levels, _) in enumerate(runs):
        if place in ends:
            continue
        wanted = n_gpus if levels.neighbours == "none" else levels.n_gpus
        free_s.sort()
        end_s = free_s[wanted - 1] if levels.n_gpus <= n_gpus else math.inf
        for each in groups.get(place, (place,)):
            end_s += runs[each][1]
            ends[each] = end_s
        if levels.n_gpus <= n_gpus:
            free_s[:wanted] = [end_s] * wanted
    return [ends[place] for place in range(len(runs))]


# --- the report ----------------------------------------------------------------------------------


def report(
    resolved: ResolvedCampaign,
    runs: Sequence[Run],
    results: Path,
    prices: Tariff,
    device: str | None,
    n_gpus: int = 1,
    time_s: float | None = None,
) -> str:
    """The plan in words: runs, time, energy, cost and CO2e of each study and of all.

    Parameters
    ----------
    device : str or None
        Model of GPU; None, or one without records: that with the most records.
    time_s : float, optional
        Also say how far this much time reaches.
    """
    found, done = earlier(resolved, results, None)
    left = [run for run in runs if run.run_id not in done]
    n_settings = len({(run.study, run.setting) for run in runs})
    lines = [
        f"{resolved.campaign.name}: {len(runs)} runs, {n_settings} settings in {resolved.campaign.n_cycles} cycles;"
        f" {len(runs) - len(left)} runs are measured, {len(left)} are left",
        *describe_fractions(resolved),
    ]
    if not found:
        least_s = sum(_least_s(resolved.campaign.measurement) for _ in left)
        return "\n".join(
            [*lines, f"No earlier records to estimate from. Idle and windows alone: {_duration(least_s)} on one GPU"]
        )
    chosen = device if device in found else max(found, key=lambda name: len(found[name]))
    history = found[chosen]
    lines.append(_basis(history, chosen, device))
    estimator = Estimator(history, _sizes(resolved))
    measurement = resolved.campaign.measurement
    each = estimator.forecasts(left, measurement)
    walls_s = [forecast.wall_s + _GAP_S for forecast in each]
    place = {run.run_id: number for number, run in enumerate(left)}
    together = [[place[run.run_id] for run in group] for group in served_together(left)]
    ends_s = finish_s([(run.levels, wall_s) for run, wall_s in zip(left, walls_s, strict=True)], n_gpus, together)
    lines += _table(left, each, walls_s, prices)
    too_wide = sum(math.isinf(end) for end in ends_s)
    possible = [end for end in ends_s if not math.isinf(end)]
    lines.append(f"On {n_gpus} GPUs side by side: {_duration(max(possible, default=0.0))}" if n_gpus > 1 else "")
    if too_wide:
        lines.append(f"{too_wide} runs take more GPUs than {n_gpus}: they are not in that time")
    lines.append(
        f"Cost: {prices.price}, {prices.price_eur_per_kwh} EUR/kWh. CO2e: {prices.grid}, {prices.carbon_g_per_kwh:g}"
        f" g/kWh. Both times a PUE of {prices.pue:g} ({prices.facility})"
    )
    if time_s is not None:
        lines += _reach(left, ends_s, time_s, n_gpus)
    return "\n".join(line for line in lines if line)


def left(resolved: ResolvedCampaign, runs: Sequence[Run], results: Path, device: str | None) -> str:
    """GPU time of the runs that are left, as the end of a sentence; empty where nothing can be said."""
    found, done = earlier(resolved, results, device)
    missing = [run for run in runs if run.run_id not in done]
    if not found or not missing:
        return ""
    estimator = Estimator(max(found.values(), key=len), _sizes(resolved))
    forecasts = estimator.forecasts(missing, resolved.campaign.measurement)
    gpu_s = sum(run.levels.n_gpus * (one.wall_s + _GAP_S) for run, one in zip(missing, forecasts, strict=True))
    return f"; by earlier records the rest takes {_duration(gpu_s)} of one GPU"


def _sizes(resolved: ResolvedCampaign) -> dict[str, float]:
    return {name: float(facts.n_parameters.value) for name, facts in resolved.models.items()}


def _basis(history: list[Observed], chosen: str, wanted: str | None) -> str:
    settings = len({setting_id(run.levels) for run in history})
    instead = f" ({wanted}, which is here, has none)" if wanted and wanted != chosen else ""
    models = {run.levels.model for run in history}
    miss = leave_one_out(history)
    words = f"From {len(history)} earlier runs, {settings} settings of {', '.join(sorted(models))} on {chosen}{instead}"
    if miss is None:
        return f"{words}: too few to say how far off"
    return (
        f"{words}. Estimates of {miss.n_settings} measured settings that were left out were off by"
        f" {miss.wall_error_fraction:.0%} in time and {miss.energy_error_fraction:.0%} in energy (medians)"
    )


def _least_s(measurement: Measurement) -> float:
    return measurement.idle_s + measurement.n_windows * measurement.window_min_s + measurement.idle_loaded_s


def _table(runs: Sequence[Run], each: list[Forecast], walls_s: list[float], prices: Tariff) -> list[str]:
    """A line a study, and one for all."""
    studies = [*dict.fromkeys(run.study for run in runs), "all"]
    lines = [f"{'study':<24}{'runs':>6}{'settings':>10}{'one GPU':>12}{'energy':>12}{'cost':>10}{'CO2e':>10}"]
    for study in studies:
        mine = [i for i, run in enumerate(runs) if study in (run.study, "all")]
        n_settings = len({(runs[i].study, runs[i].setting) for i in mine})
        wall_s, energy_j = sum(walls_s[i] for i in mine), sum(each[i].energy_j for i in mine)
        lines.append(
            f"{study:<24}{len(mine):>6}{n_settings:>10}{_duration(wall_s):>12}{energy_j / 1000:>9.0f} kJ"
            f"{prices.cost_eur(energy_j):>6.2f} EUR{prices.carbon_g(energy_j):>8.0f} g"
        )
    return lines


def _reach(runs: Sequence[Run], ends_s: list[float], time_s: float, n_gpus: int) -> list[str]:
    """How far a time budget reaches in the order of measuring."""
    reached = [end_s <= time_s for end_s in ends_s]
    lines = [f"{time_s:.0f} s on {n_gpus} GPUs reach {sum(reached)} of {len(runs)} runs:"]
    for what in ("portion", "study"):
        n_runs = Counter(getattr(run, what) for run in runs)
        n_reached = Counter(getattr(run, what) for run, is_reached in zip(runs, reached, strict=True) if is_reached)
        parts = [f"{each} ({n_reached[each]} of {n})" for each, n in n_runs.items() if n_reached[each]]
        lines.append(f"  of each {what}: {', '.join(parts) or 'none'}")
    return lines


def describe_fractions(resolved: ResolvedCampaign) -> list[str]:
    """A line for each balanced fraction: how much of all settings it takes and what it can tell apart."""
    lines = []
    for study, fraction, found in fractions(resolved):
        weakest = min(found.terms, key=lambda term: found.terms[term])
        lines.append(
            f"{study}: {found.n_settings} of {found.n_candidates} settings estimate {found.n_parameters} parameters,"
            f" D-efficiency {found.d_efficiency:.2f}, least sure: {weakest} ({found.terms[weakest]:.2f})"
        )
        if resolved.campaign.studies[study].fraction != fraction:
            lines.append(f"  to spare searching again: studies.{study}.fraction.chosen: {fraction.chosen}")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
