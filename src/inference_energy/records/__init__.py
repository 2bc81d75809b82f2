"""The record: what one run left behind, raw and permanent.

One JSON file per run, written to a temporary name and renamed, so that a killed run leaves no half
record. Nothing in it is derived, and nothing rewrites it. Energies are lists over the visible
devices, never sums; unknown is ``null`` with a warning code, never zero.

Schema history
--------------
1
    First version: one device takes part.
2
    Several devices and processes: ``device_opened_s``, ``device_closed_s`` and ``waited_s`` of an interval, ``start``
    and ``n_processes`` of a launch, ``device_checks``, ``n_attempts``, the status ``failed``, and warnings on them. An
    iteration is one batch of every process (a pass had one batch in every record of version 1). All of these have
    defaults, so version 1 reads as version 2.
3
    Engines that schedule by themselves, prompts of several lengths, requests that arrive: ``engine``,
    ``engine_samples`` and ``requests``, ``iteration_first_token_s`` and ``n_effective_input_tokens``, the share in a
    process (``shared`` of a launch, whose ``started_to_load_s`` may be null), lengths of the workload. All of these
    have defaults, so versions 1 and 2 read as version 3.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from inference_energy.config import Setting
from inference_energy.errors import RecordError
from inference_energy.records.parts import (  # a record is known by this module: others ask for its parts here
    Base as Base,
    CodeCarbonEnergy as CodeCarbonEnergy,
    Device as Device,
    DeviceCheck as DeviceCheck,
    DeviceState as DeviceState,
    EnergyMethod as EnergyMethod,
    EngineFacts as EngineFacts,
    EngineSamples as EngineSamples,
    Hardware as Hardware,
    Identity as Identity,
    Interval as Interval,
    Launch as Launch,
    Memory as Memory,
    Meter as Meter,
    Phase as Phase,
    Provenance as Provenance,
    Requests as Requests,
    RunWarning as RunWarning,
    SharedProcess as SharedProcess,
    Software as Software,
    Start as Start,
    Tokens as Tokens,
    Trace as Trace,
    Workload as Workload,
)

SCHEMA_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)


class Record(Base):
    """One run."""

    schema_version: Literal[1, 2, 3]
    identity: Identity
    status: Literal["ok", "out_of_memory", "failed"]
    status_detail: str | None
    n_attempts: int = Field(1, description="times the run was started until it gave this result")
    levels: Setting
    workload: Workload | None
    hardware: Hardware
    meter: Meter
    launch: Launch
    process_started_s: float = Field(description="on the run's monotonic clock: 0 by definition")
    process_ended_s: float = Field(description="last reading of the counter")
    monotonic_started_s: float = Field(description="the host's monotonic clock at the process's start")
    counter_started_j: list[float | None] = Field(description="cumulative at the process's start, per device")
    counter_ended_j: list[float | None] = Field(description="cumulative at the process's end, per device")
    intervals: list[Interval]
    trace: Trace
    device_checks: list[DeviceCheck] = Field(default_factory=list)
    engine: EngineFacts | None = Field(None, description="null for transformers")
    engine_samples: EngineSamples | None = Field(None, description="null where the engine does not say")
    requests: Requests | None = Field(None, description="null where prompts are given in batches")
    memory: Memory
    software: Software
    provenance: Provenance
    warnings: list[RunWarning]

    @property
    def run_id(self) -> str:
        """``<study>/<setting>.c<cycle>``."""
        return f"{self.identity.study}/{self.identity.setting}.c{self.identity.cycle}"


def write_record(path: Path, record: Record) -> None:
    """Write `record` whole or not at all.

    Raises
    ------
    RecordError
        If the file cannot be written; nothing is left behind.
    """
    write_text_atomically(path, record.model_dump_json() + "\n")


def write_text_atomically(path: Path, text: str) -> None:
    """Write text as UTF-8; see :func:`write_atomically`."""
    write_atomically(path, text.encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to disk, then rename it.

    Raises
    ------
    RecordError
        If the disk is full or the folder is not writable; the old file, if any, stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        action = "Free some space and run again: no record is lost" if error.errno == errno.ENOSPC else ""
        raise RecordError(
            str(path), f"cannot be written: {error.strerror}", "a writable folder with room", action
        ) from error


def read_record(path: Path) -> Record:
    """Read one record of any schema version in the history.

    Raises
    ------
    RecordError
        If the file is missing, no JSON, of an unknown version, or lacks a field.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(str(path), "no such record", "", "Measure it: inference-energy measure") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(str(path), f"is no JSON: {error}", "a record", "Delete it: the run is repeated") from error
    return parse_record(content, str(path))


def parse_record(content: Any, where: str) -> Record:
    """Validate the content of one record; `where` names it in an error."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE_VERSIONS:
        raise RecordError(
            where,
            f"schema version {version!r}",
            f"version {' or '.join(map(str, READABLE_VERSIONS))}",
            "Use the release that wrote it, or measure it again",
        )
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise RecordError(
            f"{where}: {path}", first["msg"], f"a record of version {SCHEMA_VERSION}", "Delete it: the run is repeated"
        ) from error
