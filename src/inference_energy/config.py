"""The configuration: what may be asked for, validated once, with every unknown key refused.

Scientific values live in YAML only (``config/``); the models here give them a shape. From these
models come ``config/schema.json`` (for editors) and the description of every factor in the data
dictionary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from inference_energy.errors import ConfigError, did_you_mean
from inference_energy.factors import (  # a setting is part of the configuration: others ask for it here
    FACTORS as FACTORS,
    FIRST_FACTORS as FIRST_FACTORS,
    Precision as Precision,
    Setting as Setting,
)
from inference_energy.facts import (  # facts are part of the configuration: others ask for them here
    ContextFacts as ContextFacts,
    Fact as Fact,
    HardwareFacts as HardwareFacts,
    ModelFacts as ModelFacts,
    read_context as read_context,
    read_hardware as read_hardware,
    read_models as read_models,
)
from inference_energy.validation import Base, canonical_json, read_mapping, unknown_key_error, validated

NAME = r"^[a-z0-9][a-z0-9.-]*$"


# --- a campaign ----------------------------------------------------------------------------------


def _known_factors(levels: dict[str, Any]) -> dict[str, Any]:
    for name in levels:
        if name not in Setting.model_fields:
            raise unknown_key_error(name, "factor", did_you_mean(name, FACTORS))
    return levels


_FACTOR_SCHEMAS = Setting.model_json_schema()["properties"]
Levels = Annotated[
    dict[str, Any],
    AfterValidator(_known_factors),
    Field(json_schema_extra={"properties": _FACTOR_SCHEMAS, "additionalProperties": False}),
]
Axes = Annotated[
    dict[str, list[Any]],
    AfterValidator(_known_factors),
    Field(
        json_schema_extra={
            "properties": {
                name: {"type": "array", "items": {k: v for k, v in schema.items() if k != "default"}}
                for name, schema in _FACTOR_SCHEMAS.items()
            },
            "additionalProperties": False,
        }
    ),
]


class Fraction(Base):
    """A part of a study's combinations from which its effects can still be estimated."""

    n_settings: int = Field(ge=2, description="how many of the combinations are measured")
    interactions: bool = Field(
        True, description="whether all two-way interactions must be estimable, or main effects only"
    )
    seed: int | None = Field(None, description="of the search; null: the campaign's")
    chosen: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        description="places of the chosen among all combinations, from 0, as `inference-energy plan` prints them; null:"
        " searched for each time the design is made, which takes a second or more",
    )

    @model_validator(mode="after")
    def _as_many_as_asked_for(self) -> Fraction:
        if self.chosen is not None and len(set(self.chosen)) != self.n_settings:
            raise ValueError(
                f"chosen names {len(set(self.chosen))} different combinations and n_settings is {self.n_settings}: drop"
                " chosen to have it searched for anew"
            )
        return self


def _known_factor(name: str) -> str:
    return next(iter(_known_factors({name: None})))


FactorName = Annotated[str, AfterValidator(_known_factor)]


class Study(Base):
    """Settings chosen for one question: `vary` is crossed, `settings` are taken as they are."""

    question: str = Field(description="what the study asks, in one sentence")
    fixed: Levels = Field(default_factory=dict, description="levels that differ from the campaign's base")
    vary: Axes = Field(default_factory=dict, description="factor: levels; all combinations are measured")
    settings: list[Levels] = Field(default_factory=list, description="settings by hand, crossed with `vary`")
    leave_out: list[Axes] = Field(
        default_factory=list,
        description="each entry is factor: levels; a combination with one of the levels of each factor is left out",
    )
    fraction: Fraction | None = Field(None, description="measure a part of the combinations; null: all")
    together: list[FactorName] = Field(
        default_factory=list, description="settings that differ in these factors only are in one portion"
    )
    n_per_portion: float | None = Field(
        None,
        gt=0,
        description="settings of this study in a portion, as long as there are any; null: in proportion to its size",
    )
    every_portion: bool = Field(
        False, description="anchors: measured anew at the start of every portion in every cycle, to compare sittings"
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
    n_priming_tokens: int = Field(
        0, ge=0, description="output tokens of a short first generation, which pays for lazy initialisation; 0: none"
    )
    n_iterations_max: int = Field(60, ge=2, description="cap; reaching it fails the run")
    duration_max_s: float = Field(180, gt=0, description="cap; reaching it fails the run")

    @model_validator(mode="after")
    def _cap_leaves_room(self) -> WarmUp:
        if self.n_iterations_max < self.n_agree:
            raise ValueError("n_iterations_max must be at least n_agree")
        return self


class StartGate(Base):
    """When a GPU counts as rested, so that a run may start on it."""

    power_above_idle_max_w: float = Field(
        15, gt=0, description="instant power may exceed the sitting's idle power by this much"
    )
    temperature_max_c: float = Field(50, gt=0, description="hottest GPU at the start")
    wait_max_s: float = Field(5, ge=0, description="then the run starts all the same, with a warning")


class Endpoint(Base):
    """A server on this machine that somebody else started: the engine `endpoint` sends it requests."""

    url: str = Field(
        pattern=r"^http://[^/:]+:\d+$",
        description="such as http://127.0.0.1:8080; its meter is read here, so it runs here",
    )
    served_model: str = Field(description="what the server calls its model")
    dialect: Literal["vllm", "sglang", "tgi", "openai"] = Field(
        "openai", description="what it understands beyond OpenAI's protocol; tgi takes prompts as text"
    )
    key_variable: str | None = Field(None, description="environment variable that holds an API key; null: no key")
    answer_timeout_s: float = Field(600, gt=0, description="longest time from a request's arrival to its last token")


class Measurement(Base):
    """How every run of a campaign is measured."""

    source: Literal["live", "replay"] = Field("live", description="live: a real run; replay: recorded traces")
    replay_of: str | None = Field(None, description="archived campaign whose traces a replay uses")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: the first GPU, else the CPU")
    start: StartGate = Field(default_factory=StartGate, description="when a GPU counts as rested")
    idle_s: float = Field(1.0, gt=0, description="idle before loading, with no context on the device")
    idle_loaded_s: float = Field(0.5, gt=0, description="idle after the windows, with the model loaded")
    n_windows: int = Field(5, ge=5, description="measured windows of a run")
    window_min_s: float = Field(
        3.0, gt=0, description="shortest window; whole iterations (one batch of every process) fill it"
    )
    sample_period_s: float = Field(0.025, gt=0, description="how often power is sampled")
    warm_up: WarmUp = Field(default_factory=WarmUp, description="when a run counts as warm")
    counter_power_tolerance_fraction: float = Field(
        0.02, gt=0, description="counter against integrated power: beyond it a window carries a warning"
    )
    lock_wait_s: float = Field(30, ge=0, description="how long to wait for a device another run holds")
    codecarbon_country: str = Field("DEU", pattern="^[A-Z]{3}$", description="ISO code CodeCarbon assumes")
    endpoint: Endpoint | None = Field(None, description="server for the engine `endpoint`; null: none")

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
    portion_size: int | None = Field(
        None, ge=1, description="settings of a portion, each a thin version of all studies; null: all are one portion"
    )
    block_by: list[FactorName] = Field(
        default_factory=list, description="runs with the same levels of these factors stay together within a portion"
    )
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

    confidence: float = Field(gt=0, lt=1, description="level of every interval")
    n_bootstrap: int = Field(ge=100, description="resamples of every bootstrap")
    seed: int = Field(description="seed of every bootstrap")
    equivalence_margin_fraction: float = Field(gt=0, lt=1, description="ratios within 1 ± this are equal")
    decoding_margin_fraction: float = Field(
        gt=0, lt=1, description="the same for ways of decoding: the band that the published study names"
    )
    time_to_first_token_max_s: float = Field(
        gt=0, description="limit on the 95th percentile over requests, for the best way to serve them"
    )
    inter_token_latency_max_s: float = Field(
        gt=0, description="the same of the mean gap between a request's output tokens"
    )


class Report(Base):
    """What the policy report assumes."""

    grid: str = Field(description="key of context.yaml: carbon_g_per_kwh")
    price: str = Field(description="key of context.yaml: price_eur_per_kwh")
    pue: str = Field(description="key of context.yaml: pue")
    household: str = Field(description="key of context.yaml: household_yearly_energy_kwh")
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
    portions: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="ask for these portions only; null: all. For measuring in several sittings"
    )
    studies: list[str] | None = Field(None, description="ask for these studies only; null: all")
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


def read_campaign(path: Path) -> Campaign:
    """The design in ``config/campaigns/<name>.yaml``."""
    content = read_mapping(path)
    if set(content) != {"campaign"}:
        found = ", ".join(map(str, content)) or "none"
        raise ConfigError(str(path), f"its top-level keys are: {found}", "one key, campaign")
    return validated(Campaign, content["campaign"], str(path))


def read_resolved(path: Path) -> ResolvedCampaign:
    """A campaign that :func:`resolve` wrote."""
    return validated(ResolvedCampaign, read_mapping(path), str(path))


def resolve(campaign: Campaign, models: dict[str, ModelFacts], where: str) -> ResolvedCampaign:
    """`campaign` with the facts of the models it names.

    Raises
    ------
    ConfigError
        If a model is unknown.
    """
    named = dict(_models_named(campaign))
    for name, key in named.items():
        if name not in models:
            raise ConfigError(
                f"{where}: {key}", f"{name!r} is no model of config/models.yaml. {did_you_mean(name, models)}"
            )
    return ResolvedCampaign(campaign=campaign, models={name: models[name] for name in sorted(named)})


def _models_named(campaign: Campaign) -> Iterator[tuple[str, str]]:
    """Every model that a setting names, with the key that names it."""
    for study_name, study in campaign.studies.items():
        for levels in study.settings or [{}]:
            for key, source in (
                (f"studies.{study_name}.vary", study.vary),
                (f"studies.{study_name}.settings", levels),
                (f"studies.{study_name}.fixed", study.fixed),
                ("base", campaign.base),
            ):
                if "model" in source:
                    found = source["model"] if source is study.vary else [source["model"]]
                    yield from ((str(name), f"{key}.model") for name in found)
                    break


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
    """JSON schema of the configuration, for editors.

    No top-level key is required: a file may hold a part of the configuration, as a campaign does.
    """
    schema = StudyConfig.model_json_schema()
    del schema["required"]
    return schema
