"""The audit of tokens: what each iteration must return, worked by hand, and what happens if it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference_energy.config import Setting
from inference_energy.errors import TokenCountError
from inference_energy.measure.audit import Audited, asked
from inference_energy.measure.engines import Generated
from inference_energy.measure.workload import Prompts
from inference_energy.records import Tokens

#: Five prompts of 3, 1, 4, 2 and 5 tokens that ask for 10, 2, 6, 6 and 1.
INPUTS, OUTPUTS = (3, 1, 4, 2, 5), (10, 2, 6, 6, 1)


def _prompts(inputs: tuple[int, ...] = INPUTS, outputs: tuple[int, ...] = OUTPUTS) -> Prompts:
    mask = np.array([[0] * (5 - n) + [1] * n for n in inputs])
    return Prompts(mask * 9, mask, np.array(outputs))


def _levels(**levels: Any) -> Setting:
    mixed = {"input_length_cv": 1.0, "output_length_cv": 1.0}
    return Setting(**{"model": "m", "batch_size": 2, "n_prompts": 5, "n_input_tokens": 3, **mixed, **levels})


def _tokens(computed: int, requested: int, generated: int, effective: int | None) -> Tokens:
    return Tokens(
        n_input_tokens=computed,
        n_tokens_requested=requested,
        n_tokens_generated=generated,
        n_tokens_non_padding=requested,
        n_effective_input_tokens=effective,
    )


class _Engine:
    """Returns what it is told to, in turn."""

    def __init__(self, *answers: Generated) -> None:
        self._answers = iter(answers)

    def iterate(self, *, waiting: bool) -> Generated:
        del waiting
        return next(self._answers)


def _audited(levels: Setting, *answers: Generated) -> Audited:
    engine: Any = _Engine(*answers)
    return Audited(engine, levels, _prompts(), "study/setting.c1")


# --- what is asked for -----------------------------------------------------------------------------------


def test_a_static_batch_is_padded_to_its_longest_prompt_and_answer() -> None:
    assert asked(_levels(), _prompts()) == [
        _tokens(6, 12, 20, 4),
        _tokens(8, 12, 12, 6),
        _tokens(5, 1, 1, None),
    ]


def test_an_engine_that_schedules_pads_nothing() -> None:
    assert asked(_levels(engine="vllm"), _prompts()) == [
        _tokens(4, 12, 12, None),
        _tokens(6, 12, 12, None),
        _tokens(5, 1, 1, None),
    ]


def test_where_one_length_is_given_a_shorter_text_is_padded_to_it() -> None:
    levels = _levels(input_length_cv=0, output_length_cv=0, n_input_tokens=5)
    found = asked(levels, _prompts(outputs=(7,) * 5))
    assert found == [_tokens(10, 14, 14, 4), _tokens(10, 14, 14, 6), _tokens(5, 7, 7, None)]


def test_replicas_share_the_batches_and_duplicates_repeat_them() -> None:
    shared = _levels(parallelism="replicas", n_gpus=2, n_prompts=4, batch_size=1)
    prompts = _prompts(INPUTS[:4], OUTPUTS[:4])
    assert asked(shared, prompts) == [_tokens(7, 16, 16, None), _tokens(3, 8, 8, None)]
    repeated = _levels(parallelism="replicas_duplicated", n_gpus=3, n_prompts=4)
    assert asked(repeated, prompts) == [_tokens(18, 36, 60, 12), _tokens(24, 36, 36, 18)]
    one_model = _levels(parallelism="tensor", n_gpus=2, n_prompts=4)
    assert asked(one_model, prompts) == [_tokens(6, 12, 20, 4), _tokens(8, 12, 12, 6)]


def test_sorted_by_length_each_batch_is_asked_for_its_own() -> None:
    found = asked(_levels(batch_order="by_length"), _prompts())
    assert sorted(tokens.n_input_tokens for tokens in found) == [4, 5, 8]  # of 1 and 2, of 5, of 3 and 4
    assert sum(tokens.n_tokens_requested for tokens in found) == 25


# --- what comes back -------------------------------------------------------------------------------------


def test_an_iteration_of_a_pass_is_expected_to_be_shorter_than_the_longest_batch_of_the_warm_up() -> None:
    prefill = {"n_output_tokens": 1, "output_length_cv": 0.0}
    # Batches of 6, 8 and 5 prompt tokens; the warm-up repeats the last, with the longest prompt.
    assert _audited(_levels(**prefill)).mean_over_warm_up() == pytest.approx((6 + 8 + 5) / 3 / 5)
    assert _audited(_levels(**prefill, input_length_cv=0.0)).mean_over_warm_up() == 1.0  # it goes round
    assert _audited(_levels()).mean_over_warm_up() == 1.0


def test_counts_add_up_until_they_are_asked_for() -> None:
    audited = _audited(_levels(), Generated(20, 12, 0.5, 0.1), Generated(12, 12, 0.25, 0.2), Generated(1, 1))
    for _ in range(2):
        audited.iterate(waiting=True)
    assert audited.tokens() == _tokens(14, 24, 32, 10)
    assert audited.waited_s() == 0.75
    assert audited.first_tokens_s() == [0.1, 0.2]
    audited.iterate(waiting=True)
    assert audited.tokens() == _tokens(5, 1, 1, None)
    assert audited.waited_s() == 0
    assert audited.first_tokens_s() is None
    assert audited.tokens() == _tokens(0, 0, 0, None)
    assert audited.first_tokens_s() == []


def test_the_windows_begin_with_a_pass() -> None:
    audited = _audited(_levels(), Generated(1, 1, 0.0, 9.0), Generated(20, 12, 0.0, 0.1), Generated(12, 12, 0.0, 0.2))
    audited.iterate(waiting=False)
    audited.tokens()
    audited.iterate(waiting=True)
    audited.iterate(waiting=True)
    assert audited.tokens() == _tokens(14, 24, 32, 10)
    assert audited.first_tokens_s() == [0.1, 0.2]  # without the warm-up's


@pytest.mark.parametrize("answer", [Generated(20, 11), Generated(19, 12), Generated(12, 12), Generated(20, 20)])
def test_a_static_batch_that_returns_anything_else_is_an_error(answer: Generated) -> None:
    with pytest.raises(TokenCountError, match=r"run study/setting\.c1: .* tokens generated.*: 20 and 12\."):
        _audited(_levels(), answer).iterate(waiting=True)


@pytest.mark.parametrize("answer", [Generated(11, 11), Generated(12, 11), Generated(20, 12)])
def test_an_engine_that_schedules_returns_what_was_asked_for(answer: Generated) -> None:
    with pytest.raises(TokenCountError, match=r": 12 of each\."):
        _audited(_levels(engine="vllm"), answer).iterate(waiting=True)


# --- requests that arrive --------------------------------------------------------------------------------


def _arriving(n_prompts: int) -> tuple[Setting, Prompts]:
    levels = _levels(engine="vllm_server", arrival="burst", batch_size=1, n_prompts=n_prompts)
    return levels, _prompts((3,) * n_prompts, (2,) * n_prompts)


def test_requests_of_a_pass_are_asked_for_together_and_some_of_them_in_a_warm_up() -> None:
    levels, prompts = _arriving(40)
    engine: Any = _Engine(Generated(64, 64), Generated(64, 64), Generated(80, 80))
    audited = Audited(engine, levels, prompts, "run")
    for _ in range(2):
        audited.iterate(waiting=False)
    assert audited.tokens() == _tokens(192, 128, 128, None)
    audited.iterate(waiting=True)
    assert audited.tokens() == _tokens(120, 80, 80, None)


def test_requests_that_fail_are_counted_and_no_error() -> None:
    levels, prompts = _arriving(5)
    engine: Any = _Engine(Generated(7, 6), Generated(0, 0))
    audited = Audited(engine, levels, prompts, "run")
    audited.iterate(waiting=False)
    audited.iterate(waiting=True)
    tokens = audited.tokens()
    assert (tokens.n_tokens_requested, tokens.n_tokens_generated, tokens.n_tokens_non_padding) == (20, 7, 6)
