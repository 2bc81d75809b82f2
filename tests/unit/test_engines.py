"""The engine on the CPU: real transformers, real processes, a tiny model with random weights."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_energy.config import ModelFacts, Setting, read_models
from inference_energy.errors import EngineError
from inference_energy.measure.audit import Audited
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.engines.several import SeveralProcesses
from inference_energy.measure.engines.transformers import TransformersEngine
from inference_energy.measure.workload import batches, prompts_for, rows

ROOT = Path(__file__).resolve().parents[2]
SEED = 7


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    """The tiny model, a little wider: bitsandbytes' CPU kernels want multiples of 32."""
    tiny = read_models(ROOT / "config" / "models.yaml")["tiny-llama"]
    shape = {**tiny.shape, "intermediate_size": 704, "num_hidden_layers": 2}
    return tiny.model_copy(update={"architecture": tiny.architecture.model_copy(update={"value": shape})})


def _levels(**levels: Any) -> Setting:
    return Setting(
        **{
            "model": "tiny-llama",
            "precision": "float32",
            "batch_size": 2,
            "n_input_tokens": 8,
            "n_output_tokens": 4,
            **levels,
        }
    )


@pytest.fixture
def make(facts: ModelFacts) -> Iterator[Any]:
    made: list[Any] = []

    def engine(**levels: Any) -> Any:
        setting = _levels(**levels)
        kind = TransformersEngine if setting.n_gpus == 1 else SeveralProcesses
        made.append(kind(setting, facts, prompts_for(setting, facts, SEED), SEED, "cpu"))
        made[-1].load()
        return made[-1]

    yield engine
    for one in made:
        one.close()


def _linear(engine: TransformersEngine) -> Any:
    return engine._model.model.layers[0].self_attn.q_proj


@pytest.mark.parametrize(
    ("precision", "kind", "weight", "rest"),
    [
        ("float32", "Linear", "torch.float32", "torch.float32"),
        ("float16", "Linear", "torch.float16", "torch.float16"),
        ("bfloat16", "Linear", "torch.bfloat16", "torch.bfloat16"),
        ("int8", "Linear8bitLt", "torch.int8", "torch.float16"),
        ("int4", "Linear4bit", "torch.uint8", "torch.float16"),
    ],
)
def test_every_precision_is_loaded_as_users_load_it(
    make: Any, precision: str, kind: str, weight: str, rest: str
) -> None:
    engine = make(precision=precision)
    assert type(_linear(engine)).__name__ == kind
    assert str(_linear(engine).weight.dtype) == weight
    assert str(engine._model.lm_head.weight.dtype) == rest
    assert str(engine._model.model.norm.weight.dtype) == rest
    assert engine.iterate(waiting=False).n_non_padding_tokens == 8


def test_int4_is_normal_float_with_half_precision_arithmetic(make: Any) -> None:
    linear = _linear(make(precision="int4"))
    assert linear.weight.quant_type == "nf4"
    assert str(linear.compute_dtype) == "torch.float16"


def test_quantised_weights_are_those_of_the_unquantised_model(make: Any) -> None:
    """What is quantised is the random model itself, not another one."""
    plain = _linear(make(precision="float16")).weight.detach().float()
    packed = _linear(make(precision="int8"))
    restored = packed.weight.float() * packed.weight.SCB[:, None].float() / 127
    assert float((restored - plain).abs().max()) < 0.01 * float(plain.abs().max())


def test_batches_go_round_the_prompts_and_the_last_may_be_smaller(make: Any) -> None:
    engine = make(batch_size=2, n_prompts=5)
    assert [engine.iterate(waiting=False).n_tokens for _ in range(4)] == [8, 8, 4, 8]


def test_waiting_begins_a_pass_and_takes_its_time(make: Any) -> None:
    engine = make(batch_size=2, n_prompts=5, traffic="constant", delay_min_s=0.05, delay_max_s=0.06)
    engine.iterate(waiting=False)
    started_s = time.monotonic()
    generated = engine.iterate(waiting=True)
    assert 0.05 <= generated.waited_s <= 0.06
    assert time.monotonic() - started_s > generated.waited_s
    assert [engine.iterate(waiting=True).n_tokens for _ in range(2)] == [8, 4]


def test_priming_generates_without_moving_on(make: Any) -> None:
    engine = make(batch_size=2, n_prompts=3)
    engine.prime(2)
    assert [engine.iterate(waiting=False).n_tokens for _ in range(2)] == [8, 4]


# --- several lengths -----------------------------------------------------------------------------------

MIXED: dict[str, Any] = {"n_prompts": 6, "n_input_tokens": 20, "input_length_cv": 1.0}


def test_prompts_of_several_lengths_are_answered_as_if_they_were_alone(make: Any, facts: ModelFacts) -> None:
    """Each batch is padded to its own longest, and padding changes no token."""
    engine = make(**MIXED, output_length_cv=1.0)
    prompts = prompts_for(engine._levels, facts, SEED)
    lengths = prompts.n_input_tokens
    assert len(set(lengths)) == 6
    for batch, indices in zip(engine._batches, batches(engine._levels, prompts), strict=True):
        assert batch.ids.shape == (2, lengths[indices].max())
        together = engine._generate(batch, batch.generation)
        for row, alone in enumerate(rows(prompts, indices)):
            ids = batch.ids.new_tensor([alone])
            expected = engine._model.generate(
                input_ids=ids, attention_mask=ids.new_ones(ids.shape), generation_config=batch.generation
            )
            assert together[row].tolist() == expected[0, len(alone) :].tolist()


def test_a_static_batch_generates_until_its_longest_answer_ends(make: Any, facts: ModelFacts) -> None:
    engine = make(n_prompts=6, n_output_tokens=10, output_length_cv=1.0)
    asked = prompts_for(engine._levels, facts, SEED).n_output_tokens.reshape(3, 2)
    for n_output in asked:
        generated = engine.iterate(waiting=True)
        assert generated.n_tokens == 2 * n_output.max() > n_output.sum()
        assert generated.n_non_padding_tokens == n_output.sum()


def test_sorted_by_length_there_is_less_padding(make: Any) -> None:
    drawn, sorted_ = make(**MIXED), make(**MIXED, batch_order="by_length")
    n_computed = [sum(batch.ids.numel() for batch in engine._batches) for engine in (drawn, sorted_)]
    n_tokens = [sum(int(batch.mask.sum()) for batch in engine._batches) for engine in (drawn, sorted_)]
    assert n_computed[1] < n_computed[0]
    assert n_tokens == [120, 120]


@pytest.mark.parametrize("levels", [{}, {**MIXED, "output_length_cv": 1.0}, {"parallelism": "replicas", "n_gpus": 2}])
def test_the_audit_agrees_with_what_transformers_returns(make: Any, facts: ModelFacts, levels: dict[str, Any]) -> None:
    engine = make(**levels)
    audited = Audited(engine, engine._levels, prompts_for(engine._levels, facts, SEED), "run")
    for waiting in (False, False, True, True, True, True):
        audited.iterate(waiting=waiting)
    first_tokens_s = audited.first_tokens_s()
    assert first_tokens_s is not None
    assert len(first_tokens_s) == 4


# --- the first token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_output_tokens", [1, 40])
def test_the_first_token_comes_after_one_forward_pass(make: Any, n_output_tokens: int) -> None:
    engine = make(n_output_tokens=n_output_tokens)
    engine.iterate(waiting=False)
    started_s = time.perf_counter()
    generated = engine.iterate(waiting=False)
    duration_s = time.perf_counter() - started_s
    assert generated.n_tokens == 2 * n_output_tokens
    assert generated.first_token_s is not None
    assert 0 < generated.first_token_s < duration_s * (1 if n_output_tokens == 1 else 0.5)


def test_the_first_token_is_awaited_after_the_waiting_and_through_a_slow_prefill(make: Any) -> None:
    """A forward pass made 0.1 s slower the first time only: the first token comes that much later."""
    engine = make(n_output_tokens=2, traffic="constant", delay_min_s=0.3, delay_max_s=0.31)
    engine.iterate(waiting=False)

    def slow(*_: Any) -> None:
        slow_hook.remove()
        time.sleep(0.1)

    slow_hook = engine._model.model.register_forward_hook(slow)
    assert 0.1 < engine.iterate(waiting=True).first_token_s < 0.3


def test_nothing_is_left_in_the_model_to_slow_the_tokens_after_the_first(make: Any) -> None:
    engine = make(n_output_tokens=3)
    hooks: list[int] = []
    forward = engine._model.forward

    def noting(*arguments: Any, **keywords: Any) -> Any:
        hooks.append(len(engine._model._forward_hooks))
        return forward(*arguments, **keywords)

    engine._model.forward = noting
    engine.iterate(waiting=False)
    assert hooks == [1, 0, 0]
    assert not engine._model._forward_hooks


def test_the_first_token_of_several_processes_is_that_of_the_slowest(make: Any, monkeypatch: Any) -> None:
    engine = make(parallelism="replicas", n_gpus=2)
    for first_s, expected in (((0.2, 0.3), 0.3), ((0.2, None), None)):
        answers = [Generated(8, 8, 0.0, each) for each in first_s]
        monkeypatch.setattr(engine, "_ask", lambda *_, answers=answers: answers)
        assert engine.iterate(waiting=False).first_token_s == expected


# --- other families --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "name", "extra"),
    [("qwen2", "Qwen2ForCausalLM", {}), ("mistral", "MistralForCausalLM", {"sliding_window": None})],
)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_families_are_built_from_their_shapes(
    facts: ModelFacts, model_type: str, name: str, extra: dict[str, Any], precision: str
) -> None:
    shape = {key: value for key, value in facts.shape.items() if key != "head_dim"} | extra
    other = facts.model_copy(
        update={"model_type": model_type, "architecture": facts.architecture.model_copy(update={"value": shape})}
    )
    levels = _levels(precision=precision)
    engine = TransformersEngine(levels, other, prompts_for(levels, other, SEED), SEED, "cpu")
    engine.load()
    assert type(engine._model).__name__ == name
    assert (_linear(engine).bias is not None) == (model_type == "qwen2")
    assert engine.iterate(waiting=False).n_non_padding_tokens == 8


# --- several processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallelism", "n_tokens"), [("replicas", 16), ("replicas_duplicated", 16), ("tensor", 8)])
def test_tokens_are_counted_over_all_processes(make: Any, parallelism: str, n_tokens: int) -> None:
    engine = make(parallelism=parallelism, n_gpus=2)
    engine.prime(2)
    engine.forward_passes(1)
    generated = engine.iterate(waiting=False)
    assert generated.n_tokens == generated.n_non_padding_tokens == n_tokens
    assert engine.device_uuids() == engine.memory_peak_bytes() == []


def test_replicas_share_the_prompts_and_duplicates_repeat_them(facts: ModelFacts) -> None:
    for parallelism, same in (("replicas", False), ("replicas_duplicated", True)):
        levels = _levels(parallelism=parallelism, n_gpus=2, n_prompts=4)
        prompts = prompts_for(levels, facts, SEED)
        shares = [prompts.share(levels, process).token_ids for process in range(2)]
        assert np.array_equal(*shares) is same
        assert sum(len(share) for share in shares) == levels.n_prompts_answered_per_pass


def test_tensor_parallelism_splits_each_layer_and_computes_the_same(facts: ModelFacts) -> None:
    """The split model's weights are a share of each layer; its greedy tokens are the whole model's."""
    whole, split = _levels(), _levels(parallelism="tensor", n_gpus=2)
    one = TransformersEngine(whole, facts, prompts_for(whole, facts, SEED), SEED, "cpu")
    one.load()
    ids, mask = one._batches[0].ids, one._batches[0].mask
    expected = one._model.generate(input_ids=ids, attention_mask=mask)[:, 8:].tolist()

    class Telling(SeveralProcesses):
        def _member_engine(self, number: int, port: int | None) -> Any:
            engine: Any = super()._member_engine(number, port)

            def tell() -> Any:
                tokens = engine._model.generate(input_ids=ids, attention_mask=mask)[:, 8:].tolist()
                return tokens, list(_linear(engine).weight.to_local().shape)

            engine.tell = tell
            return engine

    engine = Telling(split, facts, prompts_for(split, facts, SEED), SEED, "cpu")
    try:
        engine.load()
        answers = engine._ask("tell")
    finally:
        engine.close()
    assert [tokens for tokens, _ in answers] == [expected, expected]
    assert [shape for _, shape in answers] == [[128, 256], [128, 256]]  # of 256 x 256


def test_a_process_that_dies_ends_the_run_with_its_reason(make: Any) -> None:
    engine = make(parallelism="replicas", n_gpus=2)
    os.kill(engine._members[1].process.pid, signal.SIGKILL)
    others = [member.process.pid for member in engine._members]
    with pytest.raises(EngineError, match="process 1 ended with status -9 during iterate"):
        engine.iterate(waiting=False)
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)


def test_an_error_in_a_process_is_told_in_one_line_and_shown_whole(make: Any, capfd: Any) -> None:
    engine = make(parallelism="replicas", n_gpus=2)
    with pytest.raises(EngineError, match=r"process [01], prime: ValueError: `max_new_tokens` must be greater"):
        engine.prime(-1)
    assert "Traceback" in capfd.readouterr().err


def test_one_process_out_of_memory_is_the_runs_result(facts: ModelFacts) -> None:
    class Small(SeveralProcesses):
        def _member_engine(self, number: int, port: int | None) -> Any:
            engine = super()._member_engine(number, port)
            if number == 1:
                engine.load = _out_of_memory  # type: ignore[method-assign]
            return engine

    levels = _levels(parallelism="replicas", n_gpus=2)
    engine = Small(levels, facts, prompts_for(levels, facts, SEED), SEED, "cpu")
    with pytest.raises(OutOfDeviceMemory, match="no room"):
        engine.load()
    assert engine.memory_peak_bytes() == []


def _out_of_memory() -> None:
    raise OutOfDeviceMemory("no room")
