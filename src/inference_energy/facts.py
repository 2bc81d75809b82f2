"""Facts from the outside world, each with its unit, source and year: models, hardware, context."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from inference_energy.errors import ConfigError
from inference_energy.validation import Base, read_mapping, validated


class Fact(Base):
    """A value from the outside world, with where it comes from."""

    value: float | int | str | dict[str, Any]
    unit: str
    source: str
    year: int


class Quantity(Fact):
    """A fact that is a number; text such as ``1e12``, which YAML reads as text, becomes the number."""

    value: float | int


class ModelFacts(Base):
    """What is known of a language model's architecture (``config/models.yaml``)."""

    hub_name: Fact | None = Field(description="name on the Hugging Face hub; null for a shape of our own")
    revision: Fact | None = Field(
        description="commit of the hub repository that is loaded; null: none is pinned, only its shape can be used"
    )
    tokenizer: Literal["hub", "byte"] = Field(
        description="hub: the model's own; byte: one token per byte, for models without a vocabulary"
    )
    model_type: Literal["llama", "qwen2", "mistral"] = Field(
        "llama", description="family of architectures, as transformers and a config.json call it"
    )
    architecture: Fact = Field(description="keyword arguments of the family's configuration in transformers")
    n_parameters: Quantity = Field(description="number of parameters, shared embeddings counted once")

    @property
    def shape(self) -> dict[str, Any]:
        """Keyword arguments of the family's configuration, such as ``transformers.LlamaConfig``."""
        return cast("dict[str, Any]", self.architecture.value)  # held by the validator below

    def hub_identity(self) -> tuple[str, str]:
        """Name and pinned revision on the hub.

        Raises
        ------
        ConfigError
            If the model is a shape of our own, or no commit is pinned.
        """
        if self.hub_name is None:
            raise ConfigError("model", "has no hub_name and revision", "both, to load weights or a tokenizer")
        if self.revision is None:
            raise ConfigError(
                f"model {self.hub_name.value}",
                "has no pinned revision",
                "the commit whose weights or tokenizer are loaded",
                "Look the commit up on the hub and give it as revision in config/models.yaml, or use weights: random",
            )
        return str(self.hub_name.value), str(self.revision.value)

    @model_validator(mode="after")
    def _shape_is_a_mapping(self) -> ModelFacts:
        if not isinstance(self.architecture.value, dict):
            raise ValueError("architecture.value must be a mapping of configuration arguments")
        return self


class HardwareFacts(Base):
    """Peak rates of one kind of accelerator (``config/hardware.yaml``)."""

    power_limit_w: Quantity = Field(description="default limit of the board")
    memory_bytes: Quantity = Field(description="as printed in the datasheet")
    memory_bandwidth_bytes_per_s: Quantity = Field(description="peak")
    peak_flop_per_s: dict[Literal["float32", "tf32", "float16", "bfloat16", "float8", "int8"], Quantity] = Field(
        description="peak dense rate by number format; formats the hardware lacks are left out"
    )


class ContextFacts(Base):
    """What turns joules into policy: ``config/context.yaml``."""

    carbon_g_per_kwh: dict[str, Quantity] = Field(description="greenhouse gases of a grid's electricity")
    price_eur_per_kwh: dict[str, Quantity] = Field(description="price of electricity")
    pue: dict[str, Quantity] = Field(description="energy of a facility over energy of its computers")
    appliance_energy_j: dict[str, Quantity] = Field(description="everyday uses of electricity, for comparison")
    household_yearly_energy_kwh: dict[str, Quantity] = Field(description="electricity of a household in a year")
    n_requests_per_day: dict[str, Quantity] = Field(description="sizes of a service, for scaled-up estimates")


def read_models(path: Path) -> dict[str, ModelFacts]:
    """The facts of every known model, by name."""
    return {name: validated(ModelFacts, facts, f"{path}: {name}") for name, facts in read_mapping(path).items()}


def read_hardware(path: Path) -> dict[str, HardwareFacts]:
    """The facts of every known accelerator, by the name its driver reports."""
    return {name: validated(HardwareFacts, facts, f"{path}: {name}") for name, facts in read_mapping(path).items()}


def read_context(path: Path) -> ContextFacts:
    """Carbon, price, PUE and appliances."""
    return validated(ContextFacts, read_mapping(path), str(path))
