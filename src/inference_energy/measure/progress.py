"""Progress of a campaign: runs done, joules so far, time left, failures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_energy.measure import attempts
from inference_energy.records import Record, read_record

#: The pace is that of so many last runs.
N_RUNS_OF_PACE = 20
#: A stretch without a finished run that is a pause, not a slow run.
PAUSE_S = 900.0


@dataclass(frozen=True)
class Line:
    """One finished run, as ``logs/progress.jsonl`` keeps it."""

    run: str
    finished_s: float  # of the day's clock, seconds since 1970
    wall_s: float
    energy_j: float | None
    status: str


@dataclass(frozen=True)
class Standing:
    """Where a campaign stands.

    Attributes
    ----------
    left_s : float or None
        From the pace of the last runs, side by side or not; None before there is one.
    """

    n_done: int
    n_planned: int
    energy_j: float
    left_s: float | None
    n_failed_runs: int
    n_failed_attempts: int

    def sentence(self) -> str:
        """In words: joules, time, failures."""
        parts = [f"{self.energy_j / 1000:.1f} kJ so far"]
        if self.n_failed_attempts:
            parts.append(f"{self.n_failed_attempts} failed attempts, {self.n_failed_runs} runs failed for good")
        if self.n_done < self.n_planned and self.left_s is not None:
            parts.append(f"about {self.left_s / 60:.0f} min left")
        return ", ".join(parts)


def report(output: Path, run_ids: list[str], wall_s: float, also: Sequence[Path] = ()) -> str:
    """Add the run in `output`, and those that its process measured too, to ``logs/progress.jsonl``; say what is left.

    Parameters
    ----------
    output : Path
        ``results/<campaign>/records/<study>/<run>.json``.
    run_ids : list of str
        Runs of the design.
    wall_s : float
        What all of them took, the launch included.
    also : sequence of Path
        Records of the runs that followed in its engine.
    """
    record, folder = read_record(output), output.parents[2]
    followed = {path: read_record(path) for path in also}
    walls_s = [one.process_ended_s for one in followed.values()]
    walls_s.insert(0, wall_s - sum(walls_s))
    for (path, one), took_s in zip({output: record, **followed}.items(), walls_s, strict=True):
        line = {
            "run": one.run_id,
            "finished_s": path.stat().st_mtime,
            "wall_s": took_s,
            "energy_j": run_energy_j(one),
            "status": one.status,
        }
        attempts.append_line(_log(folder), line)
    now = standing(folder, run_ids)
    more = f", {len(followed)} runs followed in its engine" if followed else ""
    return f"[{now.n_done}/{now.n_planned}] {record.run_id}: {_outcome(record)}{more}; {now.sentence()}"


def standing(folder: Path, run_ids: list[str]) -> Standing:
    """Where the campaign in `folder` stands, of the runs that are asked for."""
    asked = asked_for(folder, run_ids)
    n_done = sum((folder / "records" / f"{run_id}.json").exists() for run_id in asked)
    lines = read(folder)
    n_failed_attempts = sum(len(attempts.read(path)) for path in (folder / "attempts").glob("*/*.jsonl"))
    return Standing(
        n_done=n_done,
        n_planned=len(asked),
        energy_j=sum(line.energy_j or 0.0 for line in lines),
        left_s=left_s(lines, len(asked) - n_done),
        n_failed_runs=sum(line.status == "failed" for line in lines),
        n_failed_attempts=n_failed_attempts,
    )


def asked_path(folder: Path) -> Path:
    """Where the workflow says which runs it asks for, one a line: they may be fewer than the design's."""
    return folder / "logs" / "asked_for.txt"


def asked_for(folder: Path, run_ids: list[str]) -> list[str]:
    """Those of a design's runs that the workflow asks for; all where it does not say."""
    path = asked_path(folder)
    if not path.exists():
        return run_ids
    named = set(path.read_text(encoding="utf-8").split())
    return [run_id for run_id in run_ids if run_id in named] or run_ids


def read(folder: Path) -> list[Line]:
    """Finished runs in the order of finishing, each once; a line that was cut off does not count."""
    path, found = _log(folder), dict[str, Line]()
    if not path.exists():
        return []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            line = Line(**json.loads(text))
            found.pop(line.run, None)  # a run whose record was deleted counts where it was measured again
            found[line.run] = line
    return list(found.values())


def left_s(lines: list[Line], n_left: int) -> float | None:
    """Seconds for `n_left` runs at the pace of the last ones, side by side as they were.

    The pace is that since the last pause; a single run says only how long it took itself.
    """
    if not lines:
        return None
    recent = [lines[-1]]
    for line in reversed(lines[-N_RUNS_OF_PACE:-1]):
        if recent[-1].finished_s - line.finished_s > PAUSE_S:
            break
        recent.append(line)
    if len(recent) == 1:
        return n_left * lines[-1].wall_s
    return n_left * (recent[0].finished_s - recent[-1].finished_s) / (len(recent) - 1)


def _log(folder: Path) -> Path:
    return folder / "logs" / "progress.jsonl"


def run_energy_j(record: Record) -> float | None:
    """Energy of a whole run by the counters of the devices that take part, in joules; None if none was read."""
    pairs = zip(record.counter_started_j, record.counter_ended_j, record.hardware.devices, strict=True)
    known = [
        ended - started
        for started, ended, device in pairs
        if device.participates and started is not None and ended is not None
    ]
    return sum(known) if known else None


def _outcome(record: Record) -> str:
    if record.status != "ok":
        return record.status.replace("_", " ")
    taking_part = [i for i, device in enumerate(record.hardware.devices) if device.participates]
    energy_j, n_tokens = 0.0, 0
    for window in (interval for interval in record.intervals if interval.phase == "window"):
        for i in taking_part:
            opened_j, closed_j = window.counter_opened_j[i], window.counter_closed_j[i]
            if opened_j is None or closed_j is None or window.tokens is None:
                return "no energy"
            energy_j += closed_j - opened_j - (window.energy_tail_j[i] or 0.0)
        n_tokens += window.tokens.n_tokens_non_padding if window.tokens else 0
    warned = f", {len(record.warnings)} warnings" if record.warnings else ""
    return f"{1000 * energy_j / n_tokens:.3g} mJ per output token{warned}"
