"""What earlier runs took: read from records and archives without their traces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.config import Measurement, ModelFacts, ResolvedCampaign, Setting, read_resolved


@dataclass(frozen=True)
class Observed:
    """What one earlier run took; powers are means per GPU that takes part.

    The first run of an engine that others share started it: that is told apart, and no part of the rest.
    """

    levels: Setting
    n_parameters: float
    measurement: Measurement
    work_s: float  # of one iteration, without simulated waiting; of requests, from the last mean arrival to the end
    warm_up_ratio: float  # duration of the warm-up over work_s
    overhead_s: float  # launch, load, ticks and the rest
    power_work_w: float
    power_rest_w: float
    wall_s: float
    energy_j: float
    start_s: float | None = None  # until the shared engine stood; None: it stood already, or is no other run's
    start_energy_j: float = 0.0


def earlier(
    resolved: ResolvedCampaign, results: Path, device: str | None
) -> tuple[dict[str, list[Observed]], set[str]]:
    """Earlier runs by the name of their device, and the ids of this campaign's runs that are measured.

    Parameters
    ----------
    device : str or None
        Only runs on this model of GPU; None: on any.
    """
    folder = results / resolved.campaign.name
    paths = {path.relative_to(folder / "records").as_posix(): path for path in (folder / "records").glob("*/*.json")}
    contents = [(_without_trace(path.read_text(encoding="utf-8")), resolved) for path in paths.values()]
    done = {name.removesuffix(".json") for name in paths}
    for archive in sorted(results.glob("*/records.parquet")):
        of = resolved if archive.parent == folder else read_resolved(archive.parent / "campaign.yaml")
        rows = [json.loads(text) for text in _archived(archive)]
        if archive.parent == folder:
            rows = [row for row in rows if _run_id(row) not in done]
            done |= {_run_id(row) for row in rows}
        contents += [(row, of) for row in rows]
    found: dict[str, list[Observed]] = {}
    for content, of in contents:
        name = content["hardware"]["devices"][0]["name"]
        if content["status"] == "ok" and not content["provenance"]["replay_of"] and device in (None, name):
            run = observed(content, of.models, of.campaign.measurement)
            if run is not None:
                found.setdefault(name, []).append(run)
    return found, done


def _archived(path: Path) -> list[str]:
    """Records without their traces."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    texts: list[str] = pq.read_table(path, columns=["record_json"])["record_json"].to_pylist()
    return texts


def _without_trace(text: str) -> Any:
    """The content of a record, its trace cut out before parsing: it is most of the text, and holds lists only."""
    head, found, rest = text.partition('"trace":{')
    return json.loads(head + '"trace":{}' + rest.partition("}")[2] if found else text)


def _run_id(content: dict[str, Any]) -> str:
    identity = content["identity"]
    return f"{identity['study']}/{identity['setting']}.c{identity['cycle']}"


def observed(content: dict[str, Any], models: dict[str, ModelFacts], measurement: Measurement) -> Observed | None:
    """One record's content as what a run takes; None where energy or windows are not known."""
    levels = Setting.model_validate(content["levels"])
    if levels.model not in models:
        return None
    parts = [i for i, device in enumerate(content["hardware"]["devices"]) if device["participates"]]
    by_phase: dict[str, list[dict[str, Any]]] = {}
    for interval in content["intervals"]:
        by_phase.setdefault(interval["phase"], []).append(interval)
    windows = by_phase.get("window", [])
    n_iterations = sum(len(window["iteration_duration_s"]) for window in windows)
    readings = [content[end][i] for end in ("counter_started_j", "counter_ended_j") for i in parts]
    readings += [w[edge][i] for w in windows for edge in ("counter_opened_j", "counter_closed_j") for i in parts]
    if not n_iterations or None in readings:
        return None
    waited_s = sum(window.get("waited_s") or 0.0 for window in windows)
    iterating_s = sum(sum(window["iteration_duration_s"]) for window in windows)
    work_s = max((iterating_s - waited_s) / n_iterations - levels.arrival_span_s, 1e-6)
    warm_s = sum(sum(interval["iteration_duration_s"]) for interval in by_phase.get("warmup", []))
    idle_s = sum(i["closed_s"] - i["opened_s"] for name in ("idle", "idle_loaded") for i in by_phase.get(name, []))
    start_s, start_j = _start(content, by_phase, parts)
    wall_s = content["process_ended_s"] - (start_s or 0.0)
    idle_s -= 0.0 if start_s is None else sum(i["closed_s"] - i["opened_s"] for i in by_phase.get("idle", []))
    window_s = sum(window["closed_s"] - window["opened_s"] for window in windows)
    window_j = sum(window["counter_closed_j"][i] - window["counter_opened_j"][i] for window in windows for i in parts)
    energy_j = sum(content["counter_ended_j"][i] - content["counter_started_j"][i] for i in parts) - start_j
    busy_s, n = max(window_s - waited_s, 1e-6) + warm_s, len(parts)
    rest_w = _rest_power_w(by_phase, parts, energy_j, wall_s)
    working_w = max((window_j / n - rest_w * waited_s) / max(window_s - waited_s, 1e-6), rest_w)
    resting_s = max(wall_s - busy_s, 1e-6)
    return Observed(
        levels=levels,
        n_parameters=float(models[levels.model].n_parameters.value),
        measurement=measurement,
        work_s=work_s,
        warm_up_ratio=warm_s / work_s,
        overhead_s=max(wall_s - idle_s - iterating_s - warm_s, 1e-3),
        power_work_w=max(working_w, 1e-3),
        power_rest_w=max((energy_j / n - working_w * busy_s) / resting_s, 1e-3),
        wall_s=wall_s,
        energy_j=energy_j,
        start_s=start_s,
        start_energy_j=start_j,
    )


def _start(
    content: dict[str, Any], by_phase: dict[str, list[dict[str, Any]]], parts: list[int]
) -> tuple[float | None, float]:
    """Seconds and joules from the process's start, its idle interval included, until a shared engine stood."""
    shared, warmup = content["launch"].get("shared"), by_phase.get("warmup")
    if shared is None or shared["position"] > 0 or not warmup:
        return None, 0.0
    opened_j = warmup[0]["counter_opened_j"]
    return warmup[0]["opened_s"], sum(opened_j[i] - content["counter_started_j"][i] for i in parts)


def _rest_power_w(by_phase: dict[str, list[dict[str, Any]]], parts: list[int], energy_j: float, wall_s: float) -> float:
    """Mean power per GPU while a loaded model waits; the run's mean where that was not measured."""
    for interval in by_phase.get("idle_loaded", []):
        used = [interval["counter_closed_j"][i] - interval["counter_opened_j"][i] for i in parts]
        return float(sum(used) / len(parts) / max(interval["closed_s"] - interval["opened_s"], 1e-6))
    return energy_j / len(parts) / max(wall_s, 1e-6)
