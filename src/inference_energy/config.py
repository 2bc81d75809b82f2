"""The configuration: what may be asked for, validated once, with every unknown key refused.

Scientific values live in YAML only (``config/``); the models here give them a shape. From these
models come ``config/schema.json`` (for editors) and the description of every factor in the data
dictionary.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference_energy.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
NAME = r"^[a-z0-9][a-z0-9.-]*$"


class Base(BaseModel):
    """A section of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- facts with a source -------------------------------------------------------------------------


class Fact(Base):
    """A value from the outside world, with where it comes from."""

    value: float | int | str | dict[str, Any]
    unit: str
    source: str
    year: int


class ModelFacts(Base):
    """What is known of a language model's architecture (``config/models.yaml``)."""

    hub_name: Fact | None = Field(description="name on the Hugging Face hub; null for a shape of our own")
    revision: Fact | None = Field(description="commit of the hub repository that is loaded")
    tokenizer: Literal["hub", "byte"] = Field(
        description="hub: the model's own; byte: one token per byte, for models without a vocabulary"
    )
    architecture: Fact = Field(description="keyword arguments of transformers.LlamaConfig")
    n_parameters: Fact = Field(description="number of parameters, shared embeddings counted once")

    @property
    def shape(self) -> dict[str, Any]:
        """Keyword arguments of ``transformers.LlamaConfig``."""
        assert isinstance(self.architecture.value, dict)  # held by the validator below
        return self.architecture.value

    @model_validator(mode="after")
    def _shape_is_a_mapping(self) -> ModelFacts:
        if not isinstance(self.architecture.value, dict):
            raise ValueError("architecture.value must be a mapping of LlamaConfig arguments")
        return self


class HardwareFacts(Base):
    """Peak rates of one kind of accelerator (``config/hardware.yaml``)."""

    power_limit_w: Fact
    memory_bytes: Fact
    memory_bandwidth_bytes_per_s: Fact
    peak_flop_per_s: dict[Literal["float32", "tf32", "float16", "bfloat16", "int8"], Fact]


class ContextFacts(Base):
    """What turns joules into policy: ``config/context.yaml``."""

    carbon_g_per_kwh: dict[str, Fact]
    price_eur_per_kwh: dict[str, Fact]
    pue: dict[str, Fact]
    appliance_energy_j: dict[str, Fact]


# --- one setting ---------------------------------------------------------------------------------

Precision = Literal["float32", "tf32", "float16", "bfloat16", "int8", "int4"]


class Setting(Base):
    """One full assignment of levels to factors. The defaults are the studies' common baseline."""

    model: str = Field(description="key of config/models.yaml")
    engine: Literal["transformers"] = Field("transformers", description="software that generates")
    weights: Literal["random", "hub"] = Field(
        "random", description="random: the exact shape with random values; hub: the pinned revision"
    )
    precision: Precision = Field("float16", description="number format of weights and arithmetic")
    batch_size: int = Field(8, ge=1, le=4096, description="prompts generated together")
    n_prompts: int | None = Field(
        None, ge=1, description="prompts of one iteration, in batches; null: one batch"
    )
    n_input_tokens: int = Field(128, ge=1, description="length of every prompt")
    n_output_tokens: int = Field(128, ge=1, description="tokens generated for every prompt")
    prompts: str = Field(
        "random", description="random: token ids from the seed; text:PATH; hub:DATASET:COLUMN"
    )
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
        "none", description="how several GPUs share the work"
    )
    n_gpus: int = Field(1, ge=1, le=64, description="GPUs that take part")
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
                raise ValueError(f"decoding {self.decoding!r} with {method}={level!r}: give {method} if"
                                 f" and only if decoding is {method!r}")
        if self.decoding == "greedy" and self.sampling_temperature is not None:
            raise ValueError("greedy decoding does not sample: drop sampling_temperature")
        if (self.parallelism == "none") != (self.n_gpus == 1):
            raise ValueError(f"parallelism {self.parallelism!r} with n_gpus={self.n_gpus}: one GPU has no"
                             " parallelism, several need one of replicas, replicas_duplicated, tensor")
        delays = (self.delay_min_s, self.delay_max_s)
        if (self.traffic == "none") != (delays == (None, None)):
            raise ValueError(f"traffic {self.traffic!r} with delays {delays}: give delay_min_s and"
                             " delay_max_s if and only if there is traffic")
        if self.delay_min_s is not None and (self.delay_max_s is None or self.delay_max_s < self.delay_min_s):
            raise ValueError(f"delays {delays}: delay_max_s must be at least delay_min_s")
        if (self.traffic == "burst") != (self.burst_interval_s is not None and self.burst_size is not None):
            raise ValueError("traffic 'burst' needs burst_interval_s and burst_size, and nothing else has them")
        if self.n_prompts is not None and self.n_prompts < self.batch_size:
            raise ValueError(f"n_prompts={self.n_prompts} is smaller than batch_size={self.batch_size}")
        return self

    @property
    def n_prompts_per_iteration(self) -> int:
        """Prompts of one iteration."""
        return self.n_prompts or self.batch_size


FACTORS: tuple[str, ...] = tuple(Setting.model_fields)


# --- a campaign ----------------------------------------------------------------------------------


def _known_factors(levels: dict[str, Any]) -> dict[str, Any]:
    for name in levels:
        if name not in Setting.model_fields:
            raise ValueError(f"{name} is not a factor. {did_you_mean(name, FACTORS)}")
    return levels


Levels = Annotated[dict[str, Any], AfterValidator(_known_factors)]


class Study(Base):
    """Settings chosen for one question: `vary` is crossed, `settings` are taken as they are."""

    question: str = Field(description="what the study asks, in one sentence")
    fixed: Levels = Field(default_factory=dict, description="levels that differ from the campaign's base")
    vary: Annotated[dict[str, list[Any]], AfterValidator(_known_factors)] = Field(
        default_factory=dict, description="factor: levels; all combinations are measured"
    )
    settings: list[Levels] = Field(
        default_factory=list, description="settings by hand, crossed with `vary`"
    )

    @model_validator(mode="after")
    def _something_varies(self) -> Study:
        for factor, levels in self.vary.items():
            if not levels:
                raise ValueError(f"vary.{factor} has no levels")
        return self


class WarmUp(Base):
    """When a run counts as warm."""

    n_agree: int = Field(3, ge=2, description="last iterations that must agree")
    agreement_fraction: float = Field(
        0.05, gt=0, lt=1, description="largest (longest - shortest) / mean duration of them"
    )
    n_iterations_max: int = Field(60, ge=2, description="cap; reaching it fails the run")
    duration_max_s: float = Field(180, gt=0, description="cap; reaching it fails the run")

    @model_validator(mode="after")
    def _cap_leaves_room(self) -> WarmUp:
        if self.n_iterations_max < self.n_agree:
            raise ValueError("n_iterations_max must be at least n_agree")
        return self


class Measurement(Base):
    """How every run of a campaign is measured."""

    source: Literal["live", "replay"] = Field("live", description="live: a real run; replay: recorded traces")
    replay_of: str | None = Field(None, description="archived campaign whose traces a replay uses")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: the first GPU, else the CPU")
    idle_s: float = Field(1.0, gt=0, description="idle before loading, with no context on the device")
    idle_loaded_s: float = Field(0.5, gt=0, description="idle after the windows, with the model loaded")
    n_windows: int = Field(5, ge=5, description="measured windows of a run")
    window_min_s: float = Field(3.0, gt=0, description="shortest window; whole iterations fill it")
    sample_period_s: float = Field(0.025, gt=0, description="how often power is sampled")
    warm_up: WarmUp = Field(default_factory=WarmUp, description="when a run counts as warm")
    counter_power_tolerance_fraction: float = Field(
        0.02, gt=0, description="counter against integrated power: beyond it a window carries a warning"
    )
    lock_wait_s: float = Field(30, ge=0, description="how long to wait for a device another run holds")
    codecarbon_country: str = Field("DEU", pattern="^[A-Z]{3}$", description="ISO code CodeCarbon assumes")

    @model_validator(mode="after")
    def _replay_names_its_archive(self) -> Measurement:
        if (self.source == "replay") != (self.replay_of is not None):
            raise ValueError("replay_of names the archived campaign if and only if source is replay")
        return self


class Campaign(Base):
    """All runs of one design on one kind of machine."""

    name: str = Field(pattern=NAME, description="folder under results/")
    title: str = Field(description="one line for headings")
    description: str = Field(description="what it is for, and what a reader must know")
    seed: int = Field(description="seed of order, weights and prompts")
    n_cycles: int = Field(2, ge=2, description="passes over all settings")
    cycle_gap_min_s: float = Field(0, ge=0, description="least time between a setting's two cycles")
    base: Levels = Field(default_factory=dict, description="levels of every setting unless a study says otherwise")
    studies: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Study] = Field(min_length=1)
    measurement: Measurement = Field(default_factory=Measurement)


class CampaignChoice(Base):
    """A campaign to carry through the workflow."""

    name: str = Field(pattern=NAME, description="campaign: config/campaigns/<name>.yaml")
    source: Literal["measured", "archived"] = Field(
        description="measured: run what is missing here; archived: results/<name>/records.parquet"
    )


class Analysis(Base):
    """Settings of the statistics."""

    confidence: float = Field(0.95, gt=0, lt=1, description="level of every interval")
    n_bootstrap: int = Field(2000, ge=100, description="resamples of every bootstrap")
    seed: int = Field(description="seed of every bootstrap")
    equivalence_margin_fraction: float = Field(0.02, gt=0, lt=1, description="ratios within 1 ± this are equal")


class Report(Base):
    """What the policy report assumes."""

    grid: str = Field(description="key of context.yaml: carbon_g_per_kwh")
    price: str = Field(description="key of context.yaml: price_eur_per_kwh")
    pue: str = Field(description="key of context.yaml: pue")
    n_response_tokens: int = Field(ge=1, description="tokens of one response in comparisons")


class StudyConfig(Base):
    """The whole configuration after merging (``default.yaml``, ``--configfile``, ``--config``)."""

    campaigns: list[CampaignChoice] = Field(min_length=1, description="campaigns to analyse and report")
    campaign: Campaign | None = Field(
        None, description="a design given directly: then it alone is measured and analysed"
    )
    cycles: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="ask for these cycles only; null: all. For measuring in several sittings"
    )
    results_dir: str = Field("results", description="where results go")
    analysis: Analysis
    report: Report


class ResolvedCampaign(Base):
    """One campaign with the facts of its models: all that a run needs (``results/<name>/campaign.yaml``)."""

    campaign: Campaign
    models: dict[str, ModelFacts]

    def sha256(self) -> str:
        """Hash of the resolved design, recorded with every run."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def dump(self) -> str:
        """YAML text that :func:`read_resolved` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# --- reading -------------------------------------------------------------------------------------


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_yaml(path: Path) -> Any:
    """Parse one YAML file.

    Raises
    ------
    ConfigError
        If the file is missing or is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file", "a YAML file", "Check the name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"not readable as YAML: {error}", "a YAML file") from error


def validated(model: type[Model], value: Any, where: str) -> Model:
    """`value` as a `model`, or one clear error that names the first key at fault.

    Raises
    ------
    ConfigError
        Names the file, the key, what was found and what is known.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _config_error(model, error, where) from error


def _config_error(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"] if part != "function-after")
    path = f"{where}: {location}" if location else where
    others = f"{error.error_count() - 1} more after this" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        found = f"unknown key. {did_you_mean(str(first['loc'][-1]), _keys_at(model, first['loc'][:-1]))}"
        return ConfigError(path, found, "", others)
    if first["type"] == "missing":
        return ConfigError(path, "this key is missing", "a value", others)
    found = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        found += f"; found {first['input']!r}"
    return ConfigError(path, found, "", others)


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Field names that are allowed at `location` below `model`."""
    from typing import get_args

    def models_in(annotation: Any) -> list[Any]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [found for part in get_args(annotation) for found in models_in(part)]

    current = [model]
    for part in location:
        below: list[Any] = []
        for candidate in current:
            field = candidate.model_fields.get(str(part))
            below += models_in(field.annotation) if field else []
        current = below or current
    return sorted({name for candidate in current for name in candidate.model_fields})


def read_models(path: Path) -> dict[str, ModelFacts]:
    """The facts of every known model, by name."""
    return {name: validated(ModelFacts, facts, f"{path}: {name}") for name, facts in read_yaml(path).items()}


def read_hardware(path: Path) -> dict[str, HardwareFacts]:
    """The facts of every known accelerator, by the name its driver reports."""
    return {name: validated(HardwareFacts, facts, f"{path}: {name}") for name, facts in read_yaml(path).items()}


def read_context(path: Path) -> ContextFacts:
    """Carbon, price, PUE and appliances."""
    return validated(ContextFacts, read_yaml(path), str(path))


def read_campaign(path: Path) -> Campaign:
    """The design in ``config/campaigns/<name>.yaml``."""
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"campaign"}:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(str(path), f"top-level keys are {found}", "one key, campaign")
    return validated(Campaign, content["campaign"], str(path))


def read_resolved(path: Path) -> ResolvedCampaign:
    """A campaign that :func:`resolve` wrote."""
    return validated(ResolvedCampaign, read_yaml(path), str(path))


def resolve(campaign: Campaign, models: dict[str, ModelFacts], where: str) -> ResolvedCampaign:
    """`campaign` with the facts of the models it names.

    Raises
    ------
    ConfigError
        If a model is unknown.
    """
    names = _models_named(campaign)
    for name in names:
        if name not in models:
            raise ConfigError(where, f"{name!r} is no model of config/models.yaml. {did_you_mean(name, models)}")
    return ResolvedCampaign(campaign=campaign, models={name: models[name] for name in sorted(names)})


def _models_named(campaign: Campaign) -> set[str]:
    names: set[str] = set()
    for study in campaign.studies.values():
        for levels in (study.vary.get("model"), [study.fixed.get("model")], [s.get("model") for s in study.settings],
                       [campaign.base.get("model")]):
            found = {level for level in levels or [] if level is not None}
            if found:
                names |= found
                break
    return names


def load(merged: dict[str, Any], where: str = "configuration") -> StudyConfig:
    """Validate the merged configuration once.

    Parameters
    ----------
    merged : dict
        What Snakemake or :func:`merge` made of ``default.yaml`` and what overrides it.
    where : str
        What to call it in an error.
    """
    return validated(StudyConfig, merged, where)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, mapping by mapping (as Snakemake merges config files)."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, for editors."""
    return StudyConfig.model_json_schema()
