"""The factors of a deployment, and a setting: one full assignment of their levels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from inference_energy.validation import Base

Precision = Literal["float32", "tf32", "float16", "bfloat16", "float8", "int8", "int4"]

#: Engines of vLLM's kind: they schedule sequences by themselves, and one start can serve several settings.
SCHEDULING_ENGINES = ("vllm", "vllm_server", "endpoint")
#: Those that answer requests over HTTP.
SERVERS = ("vllm_server", "endpoint")


class Setting(Base):
    """One full assignment of levels to factors. The defaults are the studies' common baseline."""

    model: str = Field(description="key of config/models.yaml")
    engine: Literal["transformers", "vllm", "vllm_server", "endpoint"] = Field(
        "transformers",
        description="software that generates. vllm: offline, in the measuring process; vllm_server: its server for"
        " requests, on this machine; endpoint: a server that somebody else started (measurement.endpoint)",
    )
    weights: Literal["random", "hub"] = Field(
        "random", description="random: the exact shape with random values; hub: the pinned revision"
    )
    precision: Precision = Field("float16", description="number format of weights and arithmetic")
    batch_size: int = Field(8, ge=1, le=4096, description="prompts generated together by one process")
    n_prompts: int | None = Field(
        None,
        ge=1,
        description="prompts of one pass, in batches: shared by the processes of replicas, repeated by each process"
        " of replicas_duplicated; null: one batch a process",
    )
    n_input_tokens: int = Field(128, ge=1, description="length of a prompt; the mean where input_length_cv > 0")
    n_output_tokens: int = Field(
        128, ge=1, description="tokens generated for a prompt; the mean where output_length_cv > 0"
    )
    prompts: str = Field("random", description="random: token ids from the seed; text:PATH; hub:DATASET:COLUMN")
    attention: Literal["sdpa", "sdpa_no_cudnn", "eager"] = Field(
        "sdpa_no_cudnn",
        description="sdpa: PyTorch picks the kernel; sdpa_no_cudnn: the same without cuDNN's, which"
        " builds a plan for every length; eager: plain matrix products",
    )
    decoding: Literal["greedy", "multinomial", "top_k", "top_p"] = Field(
        "greedy", description="how the next token is chosen"
    )
    sampling_temperature: float | None = Field(None, gt=0, description="divides the logits; null: 1")
    top_k: int | None = Field(None, ge=1, description="candidates kept by top_k")
    top_p: float | None = Field(None, gt=0, le=1, description="probability mass kept by top_p")
    parallelism: Literal["none", "replicas", "replicas_duplicated", "tensor"] = Field(
        "none",
        description="how several GPUs share the work. replicas: a process a GPU, each with the whole model and its"
        " share of the prompts; replicas_duplicated: the same, each with all prompts (published code); tensor: each"
        " layer is split over the GPUs",
    )
    n_gpus: int = Field(1, ge=1, le=64, description="GPUs that take part, one process each")
    neighbours: Literal["allowed", "none"] = Field(
        "allowed",
        description="allowed: other runs may be measured on other GPUs of the machine meanwhile; none: it is alone",
    )
    traffic: Literal["none", "constant", "burst"] = Field(
        "none", description="simulated waiting between batches or queries"
    )
    delay_min_s: float | None = Field(None, ge=0, description="shortest simulated delay")
    delay_max_s: float | None = Field(None, ge=0, description="longest simulated delay")
    delay_every: Literal["batch", "query"] = Field(
        "batch", description="what a delay precedes: a batch (published code) or a query (published text)"
    )
    burst_interval_s: float | None = Field(None, gt=0, description="pause between bursts")
    burst_size: int | None = Field(None, ge=1, description="batches or queries in a burst")
    launcher: Literal["fork", "cold"] = Field(
        "fork", description="fork: from a parent that holds the imports; cold: a new interpreter"
    )
    warmup: Literal["steady", "forward_passes"] = Field(
        "steady", description="steady: iterations until they agree; forward_passes: three short passes"
    )
    execution: Literal["eager_mode", "graphs"] = Field(
        "eager_mode",
        description="eager_mode: kernels are launched one by one; graphs: vLLM's compiled code and CUDA graphs",
    )
    engine_process: Literal["own", "shared"] = Field(
        "own",
        description="own: an engine is started for every run; shared: one start serves runs of a study that differ in"
        " their workload only",
    )
    prefill: Literal["whole", "chunked"] = Field(
        "whole", description="chunked: vLLM splits long prompts and computes the pieces beside decoding steps"
    )
    prefill_chunk_tokens: int | None = Field(
        None, ge=1, description="tokens that vLLM computes in a step at most; null: its default"
    )
    prefix_caching: Literal["off", "on"] = Field("off", description="whether vLLM reuses what prompts begin with")
    n_sequences_max: int | None = Field(
        None, ge=1, description="sequences that vLLM runs at a time at most; null: its default"
    )
    kv_cache_tokens: int | None = Field(
        None, ge=1, description="size of vLLM's KV cache; null: what memory is left for it"
    )
    device_memory_fraction: float | None = Field(
        None, gt=0, le=1, description="share of a GPU's memory that vLLM may take; null: 0.9"
    )
    input_length_cv: float = Field(
        0, ge=0, le=2, description="spread of prompt lengths: lognormal with mean n_input_tokens; 0: all are alike"
    )
    output_length_cv: float = Field(
        0, ge=0, le=2, description="spread of answer lengths: lognormal with mean n_output_tokens; 0: all are alike"
    )
    batch_order: Literal["drawn", "by_length"] = Field(
        "drawn", description="how prompts are put into batches: as they were drawn, or sorted by length (buckets)"
    )
    arrival: Literal["none", "burst", "fixed", "uniform", "poisson", "gamma"] = Field(
        "none",
        description="when requests reach a server. none: all prompts of a batch are given at once; burst: all at the"
        " start; fixed: one gap; uniform: gaps uniform from 0 to twice their mean; poisson: exponential gaps; gamma:"
        " gaps of a stated spread. Requests are sent whether or not earlier ones were answered",
    )
    arrival_requests_per_s: float | None = Field(None, gt=0, description="mean rate of arrival")
    arrival_cv: float | None = Field(None, gt=0, description="spread of gamma's gaps: 1 is poisson, more is burstier")

    @model_validator(mode="after")
    def _levels_fit_together(self) -> Setting:
        needs = {"top_k": self.top_k, "top_p": self.top_p}
        for method, level in needs.items():
            if (self.decoding == method) != (level is not None):
                raise ValueError(
                    f"decoding {self.decoding!r} with {method}={level!r}: give {method} if"
                    f" and only if decoding is {method!r}"
                )
        if self.decoding == "greedy" and self.sampling_temperature is not None:
            raise ValueError("greedy decoding does not sample: drop sampling_temperature")
        if (self.parallelism == "none") != (self.n_gpus == 1):
            raise ValueError(
                f"parallelism {self.parallelism!r} with n_gpus={self.n_gpus}: one GPU has no"
                " parallelism, several need one of replicas, replicas_duplicated, tensor"
            )
        delays = (self.delay_min_s, self.delay_max_s)
        if (self.traffic == "none") != (delays == (None, None)):
            raise ValueError(
                f"traffic {self.traffic!r} with delays {delays}: give delay_min_s and"
                " delay_max_s if and only if there is traffic"
            )
        if self.delay_min_s is not None and (self.delay_max_s is None or self.delay_max_s < self.delay_min_s):
            raise ValueError(f"delays {delays}: delay_max_s must be at least delay_min_s")
        bursts = (self.burst_interval_s is not None, self.burst_size is not None)
        if bursts != ((True, True) if self.traffic == "burst" else (False, False)):
            raise ValueError("traffic 'burst' needs burst_interval_s and burst_size, and nothing else has them")
        if self.traffic == "none" and self.delay_every != "batch":
            raise ValueError(
                f"delay_every={self.delay_every!r} without traffic: no delay precedes anything; drop delay_every"
            )
        if self.parallelism == "tensor" and self.engine == "transformers" and self.precision in ("int8", "int4"):
            raise ValueError(
                f"tensor parallelism with precision {self.precision!r}: bitsandbytes' packed weights cannot be split"
                " over GPUs; use replicas"
            )
        _engine_fits(self)
        _arrival_fits(self)
        n_sharing = self.n_gpus if self.parallelism == "replicas" else 1
        if self.n_prompts is not None and (self.n_prompts % n_sharing or self.n_prompts < n_sharing * self.batch_size):
            raise ValueError(
                f"n_prompts={self.n_prompts} is no multiple of {n_sharing} processes, or less than one batch of"
                f" {self.batch_size} for each"
                if n_sharing > 1
                else f"n_prompts={self.n_prompts} is smaller than batch_size={self.batch_size}"
            )
        return self

    @property
    def n_prompts_per_process(self) -> int:
        """Prompts that one process answers in a pass."""
        n_sharing = self.n_gpus if self.parallelism == "replicas" else 1
        return self.n_prompts // n_sharing if self.n_prompts else self.batch_size

    @property
    def n_prompts_per_pass(self) -> int:
        """Different prompts of a pass, over all processes."""
        return self.n_prompts_per_process * (self.n_gpus if self.parallelism == "replicas" else 1)

    @property
    def n_prompts_answered_per_pass(self) -> int:
        """Answers of a pass, over all processes; duplicated prompts count as often as they are answered."""
        return self.n_prompts_per_process * (1 if self.parallelism in ("none", "tensor") else self.n_gpus)

    @property
    def arrival_span_s(self) -> float:
        """Mean time from the first to the last planned arrival of a pass; 0 where requests do not arrive by a rate."""
        return (self.n_prompts_per_pass - 1) / self.arrival_requests_per_s if self.arrival_requests_per_s else 0.0

    @property
    def n_batches_per_pass(self) -> int:
        """Batches of one process in a pass."""
        return -(-self.n_prompts_per_process // self.batch_size)


#: Factors of an engine that schedules sequences by itself, with the level that others have.
_OF_SCHEDULING: dict[str, object] = {
    "execution": "eager_mode",
    "engine_process": "own",
    "prefill": "whole",
    "prefill_chunk_tokens": None,
    "prefix_caching": "off",
    "n_sequences_max": None,
    "kv_cache_tokens": None,
    "device_memory_fraction": None,
    "arrival": "none",
}


def _engine_fits(levels: Setting) -> None:
    """Raise ValueError where a level means nothing to the setting's engine."""
    if levels.engine in SCHEDULING_ENGINES:
        if levels.parallelism in ("replicas", "replicas_duplicated"):
            raise ValueError(
                f"engine {levels.engine!r} with parallelism {levels.parallelism!r}: one engine, none or tensor"
            )
        if levels.traffic != "none":
            raise ValueError(f"engine {levels.engine!r} with traffic {levels.traffic!r}: use arrival")
        if levels.precision == "tf32":
            raise ValueError(f"engine {levels.engine!r} with precision 'tf32': float32, or another engine")
        if levels.warmup != "steady":
            raise ValueError(f"engine {levels.engine!r} with warmup {levels.warmup!r}: steady")
        return
    for factor, usual in _OF_SCHEDULING.items():
        if getattr(levels, factor) != usual:
            raise ValueError(
                f"engine {levels.engine!r} with {factor}={getattr(levels, factor)!r}: only"
                f" {', '.join(SCHEDULING_ENGINES)} have it; drop {factor}"
            )
    if levels.precision == "float8":
        raise ValueError(f"engine {levels.engine!r} with precision 'float8': only vLLM loads it")


def _arrival_fits(levels: Setting) -> None:
    """Raise ValueError where requests, their rate and their server do not go together."""
    timed = levels.arrival not in ("none", "burst")
    if timed != (levels.arrival_requests_per_s is not None):
        raise ValueError(
            f"arrival {levels.arrival!r} with arrival_requests_per_s={levels.arrival_requests_per_s}: give the rate if"
            " and only if arrival is fixed, uniform, poisson or gamma"
        )
    if (levels.arrival == "gamma") != (levels.arrival_cv is not None):
        raise ValueError("give arrival_cv if and only if arrival is 'gamma'")
    if (levels.engine in SERVERS) != (levels.arrival != "none"):
        raise ValueError(
            f"engine {levels.engine!r} with arrival {levels.arrival!r}: requests arrive at {' or '.join(SERVERS)},"
            " and nowhere else"
        )
    if levels.arrival != "none" and (levels.batch_size != 1 or levels.n_prompts is None):
        raise ValueError(
            f"arrival {levels.arrival!r} with batch_size={levels.batch_size} and n_prompts={levels.n_prompts}: requests"
            " come one by one (batch_size 1), n_prompts of them; n_sequences_max limits how many run together"
        )
    if levels.batch_order == "by_length" and (levels.input_length_cv == 0 or levels.n_prompts is None):
        raise ValueError("batch_order 'by_length' needs prompts of several lengths: give input_length_cv and n_prompts")


FACTORS: tuple[str, ...] = tuple(Setting.model_fields)

#: Factors that say what is asked of an engine: one that is started once can serve all their levels.
WORKLOAD_FACTORS: frozenset[str] = frozenset(
    (
        *("batch_size", "n_prompts", "n_input_tokens", "n_output_tokens", "prompts", "input_length_cv"),
        *("output_length_cv", "batch_order", "arrival", "arrival_requests_per_s", "arrival_cv"),
        *("decoding", "sampling_temperature", "top_k", "top_p"),
    )
)

#: The factors that were there when the first campaign was archived. A factor that comes later counts in
#: a setting's name only where it differs from its default, so that archived settings keep their names.
FIRST_FACTORS: frozenset[str] = frozenset(
    (
        *("model", "engine", "weights", "precision", "batch_size", "n_prompts", "n_input_tokens", "n_output_tokens"),
        *("prompts", "attention", "decoding", "sampling_temperature", "top_k", "top_p", "parallelism", "n_gpus"),
        *(
            "traffic",
            "delay_min_s",
            "delay_max_s",
            "delay_every",
            "burst_interval_s",
            "burst_size",
            "launcher",
            "warmup",
        ),
    )
)
