"""The factors of a deployment, and a setting: one full assignment of their levels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from inference_energy.validation import Base

Precision = Literal["float32", "tf32", "float16", "bfloat16", "int8", "int4"]


class Setting(Base):
    """One full assignment of levels to factors. The defaults are the studies' common baseline."""

    model: str = Field(description="key of config/models.yaml")
    engine: Literal["transformers"] = Field("transformers", description="software that generates")
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
    n_input_tokens: int = Field(128, ge=1, description="length of every prompt")
    n_output_tokens: int = Field(128, ge=1, description="tokens generated for every prompt")
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
        if self.parallelism == "tensor" and self.precision in ("int8", "int4"):
            raise ValueError(
                f"tensor parallelism with precision {self.precision!r}: bitsandbytes' packed weights cannot be split"
                " over GPUs; use replicas"
            )
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
    def n_batches_per_pass(self) -> int:
        """Batches of one process in a pass."""
        return -(-self.n_prompts_per_process // self.batch_size)


FACTORS: tuple[str, ...] = tuple(Setting.model_fields)

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
