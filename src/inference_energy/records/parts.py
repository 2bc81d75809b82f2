"""The parts of a record: immutable, closed, and raw."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    n_input_tokens: int = Field(description="per prompt, padding included; the longest where lengths differ")
    n_output_tokens: int = Field(description="per prompt; the mean asked for where lengths differ")
    n_non_padding_input_tokens: int = Field(description="over all different prompts of a pass")
    seed: int
    token_ids_sha256: str = Field(description="hash of all prompts' token ids, and of their lengths where they differ")
    source: str
    n_input_tokens_of: list[int] | None = Field(None, description="per prompt without padding; null: all are alike")
    n_output_tokens_of: list[int] | None = Field(None, description="per prompt; null: all are alike")


class Tokens(Base):
    """Token audit of an interval, over all its iterations."""

    n_input_tokens: int = Field(description="prompt tokens computed, padding included")
    n_tokens_requested: int = Field(description="output tokens asked for")
    n_tokens_generated: int = Field(description="output tokens the engine returned")
    n_tokens_non_padding: int = Field(description="returned tokens that are no padding")
    n_effective_input_tokens: int | None = Field(
        None, description="prompt tokens without padding; null: as many as n_input_tokens"
    )


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
    iteration_first_token_s: list[float] | None = Field(
        None,
        description="of each iteration: from its start, after the waiting, until each of its prompts had a first token;"
        " null where the engine does not say",
    )
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


class SharedProcess(Base):
    """A process, and the engine in it, that measures several runs."""

    process: str = Field(description="hash that names it")
    position: int = Field(description="place of this run among those it measured, from 0; only the first loads")
    first_run: str = Field(description="the run whose record holds the engine's start")


class Launch(Base):
    """How the process came to be."""

    launcher: Literal["fork", "cold", "in_process"]
    started_to_load_s: float | None = Field(
        description="from the process's start to the start of loading, idle left out; null where an earlier run loaded"
    )
    started_to_first_iteration_s: float | None = Field(
        description="from the process's start to the start of the first warm-up iteration, idle left out"
    )
    parent_n_device_files: int | None = Field(description="open /dev/nvidia* files of the forking parent")
    parent_cuda_initialised: bool | None
    n_processes: int = Field(1, description="that generate")
    start: Start | None = Field(None, description="null where nothing can be gated, and in version 1")
    shared: SharedProcess | None = Field(None, description="null: the process measured this run alone")


class Memory(Base):
    """Memory use of the run."""

    device_peak_bytes: list[int | None]
    host_peak_bytes: int | None


class EngineFacts(Base):
    """An engine that schedules by itself, as it said it was set up; null is unknown."""

    name: Literal["vllm", "vllm_server", "endpoint"]
    version: str | None
    options: dict[str, str | int | float | bool | None] = Field(description="as given to it")
    graph_mode: str | None = Field(description="its CUDA graph mode, such as NONE or FULL_AND_PIECEWISE")
    n_graph_sizes: int | None = Field(description="batch sizes with a captured graph")
    attention_backend: str | None
    quantisation: str | None = Field(description="its name for the weights' format")
    n_kv_blocks: int | None = Field(description="blocks of the KV cache")
    n_tokens_per_kv_block: int | None
    n_sequences_max: int | None = Field(description="sequences that run at a time at most")
    n_step_tokens_max: int | None = Field(description="tokens computed in a step at most")
    n_context_tokens_max: int | None = Field(description="longest prompt and answer together")
    compile_cache: Literal["none", "new", "reused"] | None = Field(
        description="none: nothing is compiled; new: compiled at this start; reused: from an earlier start"
    )
    start_parts_s: dict[str, float] = Field(
        description="parts of its start, as it reports them (weights, compilation, graph capture, ...)"
    )
    n_preemptions: int | None = Field(description="sequences put back while this run's prompts were answered")

    @classmethod
    def sparse(cls, name: str, **known: Any) -> EngineFacts:
        """Facts of an engine of which only `known` is known."""
        unknown = dict.fromkeys(cls.model_fields) | {"options": {}, "start_parts_s": {}}
        return cls.model_validate(unknown | {"name": name} | known)


class EngineSamples(Base):
    """An engine's queues over time; n samples."""

    time_s: list[float] = Field(description="on the run's monotonic clock")
    n_running: list[float] = Field(description="sequences that run")
    n_waiting: list[float] = Field(description="sequences that wait")
    kv_cache_fraction: list[float | None] = Field(description="share of the KV cache in use")


class Requests(Base):
    """Requests of an open loop, in the order of their planned arrival; n requests, times on the run's clock."""

    scheduled_s: list[float] = Field(description="planned arrival")
    sent_s: list[float | None] = Field(description="first byte handed to the connection; null: never sent")
    first_token_s: list[float | None] = Field(description="first token received; null: none came")
    ended_s: list[float | None] = Field(description="last byte received, or the failure")
    n_input_tokens: list[int] = Field(description="sent")
    n_tokens_requested: list[int]
    n_tokens_counted: list[int] = Field(description="received, by our own count")
    n_tokens_reported: list[int | None] = Field(description="as the server's usage says; null: it does not")
    outcome: list[Literal["ok", "refused", "cut_off", "timed_out", "wrong_answer", "too_few_tokens", "too_many_tokens"]]
    detail: list[str | None] = Field(description="what was wrong, in words; null where nothing was")
    client_cpu_s: float = Field(description="processor time of the client while the requests were under way")
    client_wall_s: float = Field(description="from the first planned arrival to the last answer")


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
    vllm: str | None = None


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
        "requests_failed",
        "token_counts_disagree",
        "late_arrivals",
    ]
    value: float | None
    detail: str
