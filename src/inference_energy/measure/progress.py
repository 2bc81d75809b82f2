"""Progress of a campaign: runs done, joules so far, time left."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from inference_energy.records import Record, read_record


def report(output: Path, n_planned: int, wall_s: float) -> str:
    """Add the run in `output` to ``logs/progress.jsonl`` and say where the campaign stands.

    Parameters
    ----------
    output : Path
        ``results/<campaign>/records/<study>/<run>.json``.
    n_planned : int
        Runs of the design.
    wall_s : float
        What this run took, its launch included.
    """
    record = read_record(output)
    folder = output.parent.parent
    n_done = sum(1 for _ in folder.glob("*/*.json"))
    log = folder.parent / "logs" / "progress.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"run": record.run_id, "wall_s": wall_s, "energy_j": _run_energy_j(record)}) + "\n")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    spent_j = sum(line["energy_j"] or 0.0 for line in lines)
    left_s = (n_planned - n_done) * statistics.fmean(line["wall_s"] for line in lines)
    return (
        f"[{n_done}/{n_planned}] {record.run_id}: {_outcome(record)}; {spent_j / 1000:.1f} kJ so far,"
        f" about {left_s / 60:.0f} min left"
    )


def _run_energy_j(record: Record) -> float | None:
    pairs = list(zip(record.counter_started_j, record.counter_ended_j, strict=True))
    known = [ended - started for started, ended in pairs if started is not None and ended is not None]
    return sum(known) if known else None


def _outcome(record: Record) -> str:
    if record.status != "ok":
        return record.status.replace("_", " ")
    windows = [interval for interval in record.intervals if interval.phase == "window"]
    lead = next(i for i, device in enumerate(record.hardware.devices) if device.participates)
    energy_j, n_tokens = 0.0, 0
    for window in windows:
        opened_j, closed_j, tail_j = (
            window.counter_opened_j[lead],
            window.counter_closed_j[lead],
            window.energy_tail_j[lead],
        )
        if opened_j is None or closed_j is None or window.tokens is None:
            return "no energy"
        energy_j += closed_j - opened_j - (tail_j or 0.0)
        n_tokens += window.tokens.n_tokens_non_padding
    warned = f", {len(record.warnings)} warnings" if record.warnings else ""
    return f"{1000 * energy_j / n_tokens:.3g} mJ per output token{warned}"
