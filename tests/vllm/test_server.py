"""vLLM's own server, for real, on the CPU: started once, asked, and ended without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_energy.config import ModelFacts, Setting, read_models
from inference_energy.errors import EngineError
from inference_energy.measure.completions import requests_warnings
from inference_energy.measure.engines.server import VllmServerEngine
from inference_energy.measure.serving import processes_of
from inference_energy.measure.workload import prompts_for

pytestmark = pytest.mark.vllm

MODELS = Path(__file__).parents[2] / "config" / "models.yaml"
SEED = 7
N_CONTEXT_TOKENS = 256


def _levels(**levels: Any) -> Setting:
    asked: dict[str, Any] = {"engine": "vllm_server", "arrival": "poisson", "arrival_requests_per_s": 20.0}
    asked |= {"batch_size": 1, "n_prompts": 20, "n_input_tokens": 32, "n_output_tokens": 24, "precision": "float32"}
    return Setting(model="tiny-llama", n_sequences_max=4, **(asked | levels))


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return read_models(MODELS)["tiny-llama"]


@pytest.fixture(scope="module")
def engine(facts: ModelFacts) -> Iterator[VllmServerEngine]:
    engine = VllmServerEngine(_levels(), facts, SEED, "cpu", N_CONTEXT_TOKENS)
    engine.load()
    session = engine._server.processes()[0]  # type: ignore[union-attr]
    assert len(processes_of(session)) >= 3  # the guardian, the server, the engine
    yield engine
    engine.close()
    assert processes_of(session) == []


def test_every_request_gets_the_tokens_that_it_asked_for(engine: VllmServerEngine, facts: ModelFacts) -> None:
    levels = _levels(output_length_cv=0.5, input_length_cv=0.5)
    prompts = prompts_for(levels, facts, SEED)
    engine.take(levels, prompts)
    engine.prime(2)
    engine.iterate(waiting=False)
    generated = engine.iterate(waiting=True)
    observed = engine.observations()

    total = int(prompts.n_output_tokens.sum())
    assert generated.n_tokens == generated.n_non_padding_tokens == total
    requests = observed.requests
    assert requests is not None
    assert requests.outcome == ["ok"] * 20
    assert requests.detail == [None] * 20  # input tokens, too, are as many as the server counted
    assert requests.n_tokens_counted == requests.n_tokens_reported == prompts.n_output_tokens.tolist()
    assert {warning.code for warning in requests_warnings(requests)} <= {"late_arrivals"}  # on a busy machine
    for sent_s, first_s, ended_s in zip(requests.sent_s, requests.first_token_s, requests.ended_s, strict=True):
        assert sent_s < first_s <= ended_s  # type: ignore[operator]


def test_it_says_how_it_is_set_up(engine: VllmServerEngine, facts: ModelFacts) -> None:
    levels = _levels(arrival="burst", arrival_requests_per_s=None, n_output_tokens=128)
    engine.take(levels, prompts_for(levels, facts, SEED))
    engine.iterate(waiting=True)
    observed = engine.observations()

    found = observed.facts
    assert (found.name, found.graph_mode, found.n_graph_sizes, found.compile_cache) == (
        "vllm_server",
        "NONE",
        0,
        "none",
    )
    assert (found.n_sequences_max, found.n_context_tokens_max) == (4, N_CONTEXT_TOKENS)
    assert found.version
    assert found.attention_backend
    assert found.n_kv_blocks
    assert found.n_tokens_per_kv_block
    assert found.n_preemptions == 0
    assert found.start_parts_s["start"] > 0
    samples = observed.samples
    assert samples is not None
    assert max(samples.n_running) <= 4
    assert max(a + b for a, b in zip(samples.n_running, samples.n_waiting, strict=True)) > 4  # of twenty at once


def test_an_option_that_vllm_does_not_know_is_named(facts: ModelFacts) -> None:
    engine = VllmServerEngine(_levels(), facts, SEED, "cpu", N_CONTEXT_TOKENS)
    engine._options["no_such_option"] = 3
    with pytest.raises(EngineError, match="no-such-option"):
        engine.load()
    engine.close()
