"""Errors say where, what was found, what was expected and what to do, in one paragraph."""

from __future__ import annotations

import pickle

import pytest

from inference_energy import errors
from inference_energy.errors import ConfigError, StudyError, did_you_mean

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StudyError)]


def test_a_full_paragraph() -> None:
    error = ConfigError("config/x.yaml: seed", "found 'a'", "a whole number", "Write a number")
    assert str(error) == "config/x.yaml: seed: found 'a'. Expected: a whole number. Write a number."


def test_missing_parts_leave_no_trace() -> None:
    assert str(ConfigError("here", "nothing there.")) == "here: nothing there."


def test_a_question_or_full_stop_is_not_doubled() -> None:
    assert str(StudyError("here", "odd. Did you mean even?", "", "Look.")) == "here: odd. Did you mean even? Look."


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cross_process_boundaries(kind: type[StudyError]) -> None:
    error = kind("here", "found", "expected", "action")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.expected == "expected"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_exit_with_a_code_of_their_own(kind: type[StudyError]) -> None:
    assert kind.exit_code not in (0, 1)  # 1 is a defect of ours


def test_did_you_mean_lists_and_guesses() -> None:
    assert did_you_mean("batch_sise", ["precision", "batch_size"]) == (
        "Known: batch_size, precision. Did you mean batch_size?"
    )
    assert did_you_mean("zzz", ["a"]) == "Known: a."
