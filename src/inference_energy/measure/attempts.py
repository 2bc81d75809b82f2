"""Try a run again where it fails by chance; a run that fails every time becomes a result with its reasons.

Each failed attempt is a line of ``results/<campaign>/attempts/<study>/<setting>.c<cycle>.jsonl``, so
that attempts count over interruptions of the workflow. An interrupted attempt is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inference_energy import provenance
from inference_energy.config import ResolvedCampaign
from inference_energy.design import Run
from inference_energy.errors import MeterError
from inference_energy.records import (
    Identity,
    Launch,
    Memory,
    Meter,
    Record,
    RunWarning,
    write_record,
)

if TYPE_CHECKING:
    from inference_energy.measure.session import Request
    from inference_energy.qualification import Qualification

#: After so many failed attempts a run is kept as a result.
N_ATTEMPTS_MAX = 3
#: How a process ends that somebody stopped on purpose.
STOPPED = frozenset({-signal.SIGTERM, -signal.SIGINT})
INTERRUPTED = 130
_TEMPORARY = re.compile(r"\.(\d+)\.tmp$")


@dataclass(frozen=True)
class Attempt:
    """One failed attempt of a run."""

    failed_at_utc: str
    kind: str
    message: str
    exit_status: int


def log_path(campaign_folder: Path, run: Run) -> Path:
    """Where the failed attempts of `run` are written."""
    return campaign_folder / "attempts" / f"{run.run_id}.jsonl"


def read(path: Path) -> list[Attempt]:
    """The failed attempts in a file, oldest first; a line that was cut off by a full disk does not count."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            found.append(Attempt(**json.loads(line)))
    return found


def append_line(path: Path, content: object) -> None:
    """Add one line of JSON to a file to which other processes add too: a single write to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(content) + "\n").encode())
    finally:
        os.close(file)


def remove_leftovers(*folders: Path) -> None:
    """Delete temporary files of processes that are gone: a killed process cannot clean up."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            named = _TEMPORARY.search(path.name)
            if named and not Path(f"/proc/{named[1]}").exists():
                path.unlink(missing_ok=True)


def carry_out(request: Request, run: Run, resolved: ResolvedCampaign, launch: Callable[[Request], int]) -> int:
    """Start a run until there is a record, at most :data:`N_ATTEMPTS_MAX` times over all calls.

    Parameters
    ----------
    request : Request
        Names the record; `attempt`, `failure` and `started_s` are filled in for each attempt.
    launch : callable
        :func:`inference_energy.measure.launcher.launch`.

    Returns
    -------
    int
        0 if the record is there, be it of status ``failed``; else the exit status of an attempt that is not to be
        repeated: the machine or the configuration is to blame, or somebody stopped it.
    """
    output = Path(request.output)
    log = log_path(Path(request.campaign_file).parent, run)
    reason_file = log.with_name(f".{log.stem}.reason.json")
    while True:
        failed = read(log)
        if len(failed) >= N_ATTEMPTS_MAX:
            write_record(output, failed_record(request, run, resolved, failed))
            return 0
        log.parent.mkdir(parents=True, exist_ok=True)
        reason_file.unlink(missing_ok=True)
        status = launch(replace(request, attempt=len(failed) + 1, failure=str(reason_file), started_s=time.monotonic()))
        reason = _take(reason_file)
        _remove_if_empty(log.parent)
        if status == 0 or output.exists():  # it may have failed in a run that followed
            return 0
        if status in STOPPED or (reason is not None and reason["kind"] in ("KeyboardInterrupt", "SystemExit")):
            return INTERRUPTED
        if reason is None:
            reason = {"kind": "Crash", "message": f"the process ended with {_how(status)}", "retry": True}
        if not reason["retry"] or _latest_qualification(request) is None:
            return status  # before there was an instrument, no setting is to blame
        append_line(log, asdict(Attempt(provenance.now_utc(), str(reason["kind"]), str(reason["message"]), status)))


def _take(path: Path) -> dict[str, object] | None:
    """What the measuring process said of its failure; None if it said nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    finally:
        path.unlink(missing_ok=True)
    return content if isinstance(content, dict) and {"kind", "message", "retry"} <= set(content) else None


def _remove_if_empty(folder: Path) -> None:
    """A campaign without failures has no folder of attempts."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


# --- the record of a run that fails every time ---------------------------------------------------


def failed_record(request: Request, run: Run, resolved: ResolvedCampaign, failed: list[Attempt]) -> Record:
    """The result of a run none of whose attempts gave a record: why, and nothing measured."""
    from inference_energy.measure.bench import Origin
    from inference_energy.measure.circumstances import provenance_of, software
    from inference_energy.measure.devices import describe, find_devices
    from inference_energy.measure.sampler import empty_trace

    found = find_devices(resolved.campaign.measurement.device)
    if found.kind == "gpu":  # as many as it takes: which ones it had is not known any more
        n_gpus = min(run.levels.n_gpus, len(found.names))
        found = found.view(range(n_gpus), n_gpus)
    hardware = describe(found)
    unknown: list[float | None] = [None] * len(hardware.devices)
    reasons = "; ".join(dict.fromkeys(f"{attempt.kind}: {attempt.message}" for attempt in failed))
    instrument = _latest_qualification(request)
    if instrument is None:
        raise MeterError(f"run {run.run_id}", "failed, and no qualification is there any more", "", "Run again")
    origin = Origin(request.launcher, request.started_s, command=request.command)
    return Record(
        schema_version=3,
        identity=Identity(
            campaign=run.campaign,
            study=run.study,
            setting=run.setting,
            cycle=run.cycle,
            order=run.order,
            sitting=instrument.sitting,
            started_at_utc=failed[0].failed_at_utc,
            ended_at_utc=failed[-1].failed_at_utc,
        ),
        status="failed",
        status_detail=reasons,
        n_attempts=len(failed),
        levels=run.levels,
        workload=None,
        hardware=hardware,
        meter=_meter(instrument),
        launch=Launch(
            launcher=run.levels.launcher,
            started_to_load_s=0.0,
            started_to_first_iteration_s=None,
            parent_n_device_files=None,
            parent_cuda_initialised=None,
            n_processes=run.levels.n_gpus,
        ),
        process_started_s=0.0,
        process_ended_s=0.0,
        monotonic_started_s=request.started_s,
        counter_started_j=unknown,
        counter_ended_j=unknown,
        intervals=[],
        trace=empty_trace(),
        memory=Memory(device_peak_bytes=[None] * len(hardware.devices), host_peak_bytes=None),
        software=software(found.driver),
        provenance=provenance_of(run.levels, resolved, origin),
        warnings=[RunWarning(code="attempts_failed", value=float(len(failed)), detail=reasons)],
    )


def _meter(instrument: Qualification) -> Meter:
    """The instrument that was there; nothing was measured with it."""
    return Meter(
        energy_method=instrument.energy_method,
        period_s=instrument.period_s,
        resolution_j=instrument.resolution_j,
        read_latency_s=instrument.read_latency_s,
        tick_aligned=instrument.energy_method == "nvml_total_energy",
        qualification=None,
    )


def _latest_qualification(request: Request) -> Qualification | None:
    """The newest qualification in the campaign's folder, if there is any."""
    from inference_energy import qualification

    paths = (Path(request.campaign_file).parent / "qualification").glob("*.json")
    newest = max(paths, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else qualification.read(newest)
