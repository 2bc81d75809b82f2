"""The facts in ``config/models.yaml`` describe the architectures that transformers builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from inference_energy.errors import ConfigError
from inference_energy.facts import ModelFacts, read_models

MODELS = read_models(Path(__file__).resolve().parents[2] / "config" / "models.yaml")
PINNED = {"llama-3.2-1b", "llama-3.2-3b"}


def _config(facts: ModelFacts) -> Any:
    return AutoConfig.for_model(facts.model_type, **facts.shape)


@pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)
def test_the_number_of_parameters(facts: ModelFacts) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_config(facts))
    assert sum(p.numel() for p in model.parameters()) == facts.n_parameters.value  # tied weights are listed once


@pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)
def test_every_architecture_argument_is_one(facts: ModelFacts) -> None:
    config = _config(facts)
    known = AutoConfig.for_model(facts.model_type).to_dict()
    for name, value in facts.shape.items():
        assert name in known or name == "head_dim", name
        found = getattr(config, name)
        assert found == value if not isinstance(value, dict) else value.items() <= found.items(), name


@pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)
def test_no_layer_looks_at_a_part_of_the_context_only(facts: ModelFacts) -> None:
    """A sliding window would make long prompts cheaper than the shape says."""
    config = _config(facts)
    assert getattr(config, "sliding_window", None) is None
    assert set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}


def test_a_hub_model_has_a_pinned_commit_or_says_that_it_has_none() -> None:
    assert {name for name, facts in MODELS.items() if facts.revision} == PINNED
    for name in PINNED:
        revision = str(MODELS[name].hub_identity()[1])
        assert len(revision) == 40
        int(revision, 16)
    with pytest.raises(ConfigError, match=r"model Qwen/Qwen2\.5-7B: has no pinned revision.*or use weights: random"):
        MODELS["qwen2.5-7b"].hub_identity()
    with pytest.raises(ConfigError, match="has no hub_name and revision"):
        MODELS["tiny-llama"].hub_identity()
