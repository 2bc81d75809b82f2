"""The real vLLM on the CPU, with a tiny model of random weights: ``make test-vllm``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_energy.config import ModelFacts, Setting, read_models
from inference_energy.errors import ConfigError, EngineError
from inference_energy.measure.engines import OutOfDeviceMemory
from inference_energy.measure.engines.vllm import VllmEngine
from inference_energy.measure.workload import Prompts, batches, prompts_for, rows

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
CONTEXT_TOKENS = 256


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    """The tiny model, a little wider: kernels for weights of 4 bits want multiples of 128."""
    tiny = read_models(ROOT / "config" / "models.yaml")["tiny-llama"]
    shape = {**tiny.shape, "intermediate_size": 768, "num_hidden_layers": 2}
    return tiny.model_copy(update={"architecture": tiny.architecture.model_copy(update={"value": shape})})


def _levels(**levels: Any) -> Setting:
    common = {"model": "tiny-llama", "engine": "vllm", "precision": "bfloat16", "batch_size": 4, "n_prompts": 8}
    return Setting(**{**common, "n_input_tokens": 24, "n_output_tokens": 12, **levels})


@pytest.fixture(scope="module")
def engine(facts: ModelFacts) -> Iterator[VllmEngine]:
    """One start with little room, which serves all tests that need no other."""
    levels = _levels(engine_process="shared", kv_cache_tokens=512, n_sequences_max=3, prefix_caching="on")
    started = VllmEngine(levels, facts, SEED, "cpu", CONTEXT_TOKENS)
    started.load()
    yield started
    started.close()


@pytest.fixture
def make(facts: ModelFacts) -> Iterator[Any]:
    made: list[VllmEngine] = []

    def one(**levels: Any) -> VllmEngine:
        made.append(VllmEngine(_levels(**levels), facts, SEED, "cpu", CONTEXT_TOKENS))
        made[-1].load()
        return made[-1]

    yield one
    for each in made:
        each.close()


def _take(engine: VllmEngine, facts: ModelFacts, **levels: Any) -> tuple[Setting, Prompts]:
    setting = _levels(**levels)
    prompts = prompts_for(setting, facts, SEED)
    engine.take(setting, prompts)
    return setting, prompts


def test_each_prompt_gets_the_tokens_drawn_for_it(engine: VllmEngine, facts: ModelFacts) -> None:
    levels, prompts = _take(engine, facts, input_length_cv=0.5, output_length_cv=0.5)
    first, second = batches(levels, prompts)
    lengths = prompts.n_output_tokens
    assert len(set(lengths.tolist())) > 3
    counted = [engine.iterate(waiting=True).n_tokens for _ in range(3)]
    assert counted == [lengths[first].sum(), lengths[second].sum(), lengths[first].sum()]
    asked = [{"prompt_token_ids": ids} for ids in rows(prompts, first)]
    outputs = engine._generate(asked, lengths[first].tolist())
    assert [len(output.outputs[0].token_ids) for output in outputs] == lengths[first].tolist()
    assert [output.prompt_token_ids for output in outputs] == [each["prompt_token_ids"] for each in asked]


def test_a_pass_begins_with_the_first_that_waits(engine: VllmEngine, facts: ModelFacts) -> None:
    _take(engine, facts, batch_size=6, n_prompts=8)
    assert [engine.iterate(waiting=waiting).n_tokens for waiting in (False, False, False, True, True)] == [
        12 * n for n in (6, 2, 6, 6, 2)
    ]


def test_the_first_token_comes_before_the_end(engine: VllmEngine, facts: ModelFacts) -> None:
    _take(engine, facts, batch_size=2, n_prompts=2, n_output_tokens=64)
    engine.prime(4)
    for _ in range(3):
        began_s = time.monotonic()
        generated = engine.iterate(waiting=False)
        duration_s = time.monotonic() - began_s
        assert generated.first_token_s is not None
        assert 0 < generated.first_token_s < duration_s / 2


def test_the_first_token_of_a_batch_is_that_of_its_last_prompt(engine: VllmEngine, facts: ModelFacts) -> None:
    # Three run at a time: the fourth has its first token when one of them has ended.
    _take(engine, facts, batch_size=4, n_prompts=4, n_output_tokens=64)
    engine.prime(4)
    began_s = time.monotonic()
    generated = engine.iterate(waiting=False)
    assert generated.first_token_s is not None
    assert generated.first_token_s > (time.monotonic() - began_s) / 3


def test_queues_and_what_the_engine_is(engine: VllmEngine, facts: ModelFacts) -> None:
    _take(engine, facts, batch_size=8, n_output_tokens=100)
    before_s = time.monotonic()
    engine.iterate(waiting=False)
    seen = engine.observations()
    assert seen.samples is not None
    assert seen.samples.time_s[0] > before_s
    assert np.all(np.diff(seen.samples.time_s) >= 0.05)
    assert max(seen.samples.n_running) == 3
    assert max(seen.samples.n_waiting) == 5
    # 24 + 100 tokens of three sequences: a block of 128 each, of the four there are.
    assert max(share for share in seen.samples.kv_cache_fraction if share is not None) == pytest.approx(3 / 4)
    assert seen.facts.n_kv_blocks == 5
    assert seen.facts.n_tokens_per_kv_block == 128
    assert seen.facts.n_sequences_max == 3
    assert seen.facts.n_context_tokens_max == CONTEXT_TOKENS
    assert seen.facts.graph_mode == "NONE"
    assert seen.facts.compile_cache == "none"
    assert seen.facts.attention_backend == "CPU_ATTN"
    assert seen.facts.quantisation is None
    assert seen.facts.n_preemptions == 0
    assert seen.facts.options["enable_prefix_caching"] is True
    assert 0 < seen.facts.start_parts_s["kv_cache_and_warmup"] < seen.facts.start_parts_s["start"]


def test_sequences_that_outgrow_the_cache_are_put_back(engine: VllmEngine, facts: ModelFacts) -> None:
    # Three sequences begin with a block each and need two in the end, of four.
    _take(engine, facts, batch_size=3, n_prompts=3, n_input_tokens=100, n_output_tokens=60)
    assert engine.iterate(waiting=False).n_tokens == 180
    n_preemptions = engine.observations().facts.n_preemptions
    assert n_preemptions is not None
    assert n_preemptions > 0
    _take(engine, facts)
    assert engine.observations().facts.n_preemptions == 0


def test_nothing_is_left_of_earlier_prompts(engine: VllmEngine, facts: ModelFacts) -> None:
    levels, prompts = _take(engine, facts, batch_size=1, n_prompts=1, n_input_tokens=200, n_output_tokens=2)
    (asked,) = rows(prompts, np.array([0]))

    def cached() -> int:
        return int(engine._generate([{"prompt_token_ids": asked}], [2])[0].num_cached_tokens)

    assert [cached(), cached()] == [0, 128]
    engine.take(levels, prompts)
    assert cached() == 0


def test_requests_that_do_not_fit(engine: VllmEngine, facts: ModelFacts) -> None:
    with pytest.raises(ConfigError, match=r"have 260 tokens\. Expected: 256 at most"):
        _take(engine, facts, n_input_tokens=200, n_output_tokens=60)
    with pytest.raises(ConfigError, match=r"255 tokens, and the longest prompt with its answer has 256"):
        VllmEngine(_levels(kv_cache_tokens=255), facts, SEED, "cpu", CONTEXT_TOKENS)


@pytest.mark.parametrize("decoding", [{"decoding": "multinomial"}, {"decoding": "top_k", "top_k": 5}])
def test_sampling_varies_and_greedy_does_not(engine: VllmEngine, facts: ModelFacts, decoding: dict[str, Any]) -> None:
    def answers() -> set[tuple[int, ...]]:
        asked = rows(prompts, np.array([0]))
        return {
            tuple(engine._generate([{"prompt_token_ids": asked[0]}], [12])[0].outputs[0].token_ids) for _ in range(4)
        }

    _, prompts = _take(engine, facts)
    assert len(answers()) == 1
    _take(engine, facts, **decoding)
    assert len(answers()) > 1


@pytest.mark.parametrize(
    ("precision", "quantisation"),
    [
        ("float16", None),
        ("int8", "compressed-tensors, CPUInt8ScaledMMLinearKernel"),
        ("int4", "compressed-tensors, CPUWNA16LinearKernel"),
    ],
)
def test_every_format_stands_for_the_same_weights(
    make: Any, facts: ModelFacts, precision: str, quantisation: str | None
) -> None:
    """A product with random weights of sd 0.02 has the spread that theory says, in any format."""
    engine = make(precision=precision)
    assert engine.observations().facts.quantisation == quantisation

    def spread(model: Any) -> float:
        import torch

        torch.manual_seed(0)
        layer = model.model.layers[0].mlp.gate_up_proj
        products = layer(torch.randn(64, 256, dtype=torch.float16))[0]
        return float(products.float().std())

    # 4 bits round to steps of 0.57 sd and cut at 4 sd: a variance of 0.57^2 / 12 comes on top.
    step_sd = {"float16": 0, "int8": 4 / 127, "int4": 4 / 7}[precision]
    assert engine._llm.apply_model(spread)[0] == pytest.approx(0.02 * np.sqrt(256 * (1 + step_sd**2 / 12)), rel=0.02)
    _take(engine, facts)
    assert engine.iterate(waiting=True).n_tokens == 48


def test_embeddings_and_norms_are_drawn_as_transformers_draws_them(engine: VllmEngine) -> None:
    def moments(model: Any) -> list[tuple[float, float]]:
        drawn = model.model.embed_tokens.weight.float(), model.model.norm.weight.float()
        return [(float(each.mean()), float(each.std())) for each in drawn]

    (mean, sd), norm = engine._llm.apply_model(moments)[0]
    assert abs(mean) < 2e-4
    assert sd == pytest.approx(0.02, rel=0.02)
    assert norm == (1.0, 0.0)


def test_a_failure_says_why(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"max_num_batched_tokens \(16\) is smaller than max_model_len \(256\)"):
        make(prefill="whole", prefill_chunk_tokens=16)
    with pytest.raises(EngineError, match="engine 'vllm': RuntimeError: "):
        make(precision="float8")  # not on a CPU


def test_memory_that_does_not_suffice_is_a_result(facts: ModelFacts) -> None:
    engine = VllmEngine(_levels(), facts, SEED, "cpu", CONTEXT_TOKENS)
    engine._options |= {"kv_cache_memory_bytes": 1 << 16}
    with pytest.raises(OutOfDeviceMemory, match="No available memory for the cache blocks"):
        engine.load()


def _two_workers(tmp_path: Path, *then: str) -> subprocess.Popen[str]:
    """A process with a tensor-parallel engine: it says 'starting', how many tokens it made, and what `then` says."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, threading, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_vllm_engine as tests\n"
        "from inference_energy.config import read_models\n"
        "def tell():\n"
        "    while len(tests._children(tests.os.getpid())) < 2:\n"
        "        time.sleep(0.1)\n"
        "    print('starting', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        "    facts = read_models(tests.ROOT / 'config' / 'models.yaml')['tiny-llama']\n"
        "    levels = tests._levels(parallelism='tensor', n_gpus=2)\n"
        "    engine = tests.VllmEngine(levels, facts, 7, 'cpu', 256)\n"
        "    engine.load()\n"
        "    engine.take(levels, tests.prompts_for(levels, facts, 7))\n"
        "    print(engine.iterate(waiting=True).n_tokens, flush=True)\n" + "".join(f"    {line}\n" for line in then)
    )
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
    )


@pytest.mark.parametrize("said", ["starting", "48"], ids=["while they start", "while they work"])
def test_workers_of_tensor_parallelism_end_with_the_process(tmp_path: Path, said: str) -> None:
    process = _two_workers(tmp_path, "while True:", "    engine.iterate(waiting=True)")
    try:
        assert process.stdout is not None
        assert any(line == f"{said}\n" for line in process.stdout)
        children = _children(process.pid)
        assert len(children) >= 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline_s = time.monotonic() + 120  # one that still imports finds out when it has
    while any(_runs(child) for child in children) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not [child for child in children if _runs(child)]


def test_workers_of_tensor_parallelism_end_when_their_engine_is_closed(tmp_path: Path) -> None:
    closed = "print(len(engine._workers), 'of two', sum(worker.is_alive() for worker in engine._workers))"
    said, _ = _two_workers(tmp_path, "engine.close()", closed).communicate(timeout=180)
    assert "2 of two 0" in said.splitlines()
    assert "were killed" not in said


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
