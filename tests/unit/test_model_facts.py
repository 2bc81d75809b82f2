"""The facts in ``config/models.yaml`` describe the architectures that transformers builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from inference_energy.facts import ModelFacts, read_models

MODELS = read_models(Path(__file__).resolve().parents[2] / "config" / "models.yaml")


@pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)
def test_the_number_of_parameters(facts: ModelFacts) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**facts.shape))
    assert sum(p.numel() for p in model.parameters()) == facts.n_parameters.value  # tied weights are listed once


@pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)
def test_every_architecture_argument_is_one(facts: ModelFacts) -> None:
    config = LlamaConfig(**facts.shape)
    for name, value in facts.shape.items():
        found = getattr(config, name)
        assert found == value if not isinstance(value, dict) else value.items() <= found.items(), name


@pytest.mark.parametrize("name", [name for name, facts in MODELS.items() if facts.hub_name])
def test_a_hub_model_has_a_pinned_commit(name: str) -> None:
    revision = MODELS[name].revision
    assert revision is not None
    assert len(str(revision.value)) == 40
    int(str(revision.value), 16)
