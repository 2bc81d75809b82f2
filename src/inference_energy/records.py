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
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_energy.config import Setting
from inference_energy.errors import RecordError

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)

EnergyMethod = Literal["nvml_total_energy", "rapl", "codecarbon_estimate", "replay", "fake"]
Phase = Literal["idle", "load", "warmup", "window", "idle_loaded"]


class Base(BaseModel):
    """A part of a record: immutable and closed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Identity(Base):
    """Which run this is."""

    campaign: str
    study: str
    setting: str
    cycle: int
    order: int = Field(description="place in the planned order of measuring")
    sitting: str = Field(description="stretch of measuring on one machine without a break")
    started_at_utc: str = Field(description="ISO 8601")
    ended_at_utc: str = Field(description="ISO 8601")


class Workload(Base):
    """What one iteration asks of the model."""

    n_prompts: int = Field(description="answered in one pass, over all processes")
    n_batches: int = Field(description="of one process in a pass")
    n_input_tokens: int = Field(description="per prompt, padding included")
    n_output_tokens: int = Field(description="per prompt")
    n_non_padding_input_tokens: int = Field(description="over all different prompts of a pass")
    seed: int
    token_ids_sha256: str = Field(description="hash of all prompts' token ids")
    source: str


class Tokens(Base):
    """Token audit of an interval, over all its iterations."""

    n_input_tokens: int = Field(description="prompt tokens computed, padding included")
    n_tokens_requested: int = Field(description="output tokens asked for")
    n_tokens_generated: int = Field(description="output tokens the engine returned")
    n_tokens_non_padding: int = Field(description="returned tokens that are no padding")


class CodeCarbonEnergy(Base):
    """CodeCarbon's reading of an interval; CPU and RAM are its estimates, not measurements."""

    duration_s: float
    gpu_energy_j: float
    cpu_energy_j: float
    ram_energy_j: float


class Interval(Base):
    """A stretch of a run between two readings of the meter.

    The meter is read at `opened_s` and `closed_s`; the work ends at `work_ended_s`, with the device
    synchronised. Between the two the run waits for the counter's next tick.
    """

    phase: Phase
    index: int = Field(description="number among the intervals of this phase, from 0")
    opened_s: float = Field(description="on the run's monotonic clock")
    work_ended_s: float
    closed_s: float
    device_opened_s: list[float] | None = Field(
        None, description="tick that opened it, per device, none after opened_s; null: opened_s for all"
    )
    device_closed_s: list[float] | None = Field(
        None, description="tick that closed it, per device, none after closed_s; null: closed_s for all"
    )
    waited_s: float | None = Field(None, description="simulated waiting for requests, mean over processes")
    iteration_duration_s: list[float] = Field(description="of each iteration, device synchronised")
    counter_opened_j: list[float | None] = Field(description="cumulative, per device")
    counter_closed_j: list[float | None] = Field(description="cumulative, per device")
    energy_power_instant_j: list[float | None] = Field(
        description="instant power integrated from opened_s to closed_s, per device"
    )
    energy_power_average_j: list[float | None] = Field(
        description="one-second average power integrated from opened_s to closed_s, per device"
    )
    energy_tail_j: list[float | None] = Field(
        description="instant power integrated from work_ended_s to closed_s, per device"
    )
    uncertainty_j: list[float | None] = Field(
        description="standard uncertainty of the counter's difference: edges, resolution, sampling of the tail"
    )
    codecarbon: CodeCarbonEnergy | None
    tokens: Tokens | None = Field(description="null where nothing is generated")


class Trace(Base):
    """Samples of the whole run; lists over samples, and over devices where nested."""

    time_s: list[float] = Field(description="on the run's monotonic clock, n samples")
    counter_j: list[list[float | None]] = Field(description="cumulative energy, devices x samples")
    power_instant_w: list[list[float | None]] = Field(description="devices x samples")
    power_average_w: list[list[float | None]] = Field(description="one-second average, devices x samples")
    slow_time_s: list[float] = Field(description="times of the slower samples below, m samples")
    sm_clock_mhz: list[list[float | None]] = Field(description="devices x slow samples")
    memory_clock_mhz: list[list[float | None]] = Field(description="devices x slow samples")
    temperature_c: list[list[float | None]] = Field(description="devices x slow samples")
    gpu_utilisation_fraction: list[list[float | None]] = Field(description="NVML's, devices x slow samples")
    throttle_reasons: list[list[int | None]] = Field(description="NVML's bit mask, devices x slow samples")
    n_other_processes: list[list[int | None]] = Field(description="processes that are not ours, devices x slow samples")


class Device(Base):
    """One metered device, whether it takes part or not."""

    name: str
    uuid_hash: str = Field(description="first 12 hex digits of SHA-256 of the UUID")
    participates: bool
    power_limit_w: float | None
    memory_total_bytes: int | None


class Hardware(Base):
    """The machine."""

    host: str = Field(description="hash of the host's identity, 12 hex digits")
    description: str = Field(description="such as 'NVIDIA H200, 16-core host'")
    cpu_name: str
    n_cpus: int
    memory_total_bytes: int
    devices: list[Device]


class Meter(Base):
    """The instrument, as qualified for this sitting."""

    energy_method: EnergyMethod
    period_s: float = Field(description="between two new values of the counter")
    resolution_j: float = Field(description="smallest step of the counter")
    read_latency_s: float = Field(description="median time of one read")
    tick_aligned: bool = Field(description="whether windows open and close on a tick")
    qualification: str | None = Field(description="file of the sitting's qualification")


class Start(Base):
    """How rested the GPUs that take part were when the run started."""

    waited_s: float
    settled: bool = Field(description="whether power and temperature came below their limits in time")
    power_w: list[float | None] = Field(description="instant power at the end of the wait, per device taking part")
    temperature_c: list[float | None] = Field(description="per device taking part")
    power_max_w: float | None = Field(description="limit: idle power of the sitting and what may come on top")
    temperature_max_c: float = Field(description="limit")


class DeviceState(Base):
    """One visible GPU at one moment."""

    uuid_hash: str
    metered: bool
    participates: bool
    power_w: float | None
    temperature_c: float | None
    n_own_processes: int | None = Field(description="of this run")
    n_other_processes: int | None = Field(description="of anyone else")


class DeviceCheck(Base):
    """Every visible GPU at one moment: proof of who worked where."""

    moment: Literal["before", "during", "after"]
    time_s: float = Field(description="on the run's monotonic clock")
    devices: list[DeviceState]


class Launch(Base):
    """How the process came to be."""

    launcher: Literal["fork", "cold", "in_process"]
    started_to_load_s: float = Field(description="from the process's start to the start of loading, idle left out")
    started_to_first_iteration_s: float | None = Field(
        description="from the process's start to the start of the first warm-up iteration, idle left out"
    )
    parent_n_device_files: int | None = Field(description="open /dev/nvidia* files of the forking parent")
    parent_cuda_initialised: bool | None
    n_processes: int = Field(1, description="that generate")
    start: Start | None = Field(None, description="null where nothing can be gated, and in version 1")


class Memory(Base):
    """Memory use of the run."""

    device_peak_bytes: list[int | None]
    host_peak_bytes: int | None


class Software(Base):
    """Versions that matter."""

    python: str
    torch: str | None
    transformers: str | None
    codecarbon: str | None
    cuda: str | None
    driver: str | None
    bitsandbytes: str | None
    inference_energy: str


class Provenance(Base):
    """Where the numbers come from."""

    commit: str | None
    dirty: bool | None
    source_sha256: str = Field(description="hash of the package's source")
    config_sha256: str = Field(description="hash of the resolved campaign")
    command: str
    model_revision: str | None
    weights: Literal["random", "hub"]
    replay_of: str | None = Field(None, description="campaign whose traces were replayed")


class RunWarning(Base):
    """Something a reader should know, as a code with a number."""

    code: Literal[
        "counter_power_disagree",
        "throttled",
        "other_processes",
        "short_trace",
        "no_instant_power",
        "no_codecarbon",
        "counter_not_read",
        "codecarbon_disagree",
        "estimate_only",
        "start_not_settled",
        "neighbour_seen",
        "attempts_failed",
    ]
    value: float | None
    detail: str


class Record(Base):
    """One run."""

    schema_version: Literal[1, 2]
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
