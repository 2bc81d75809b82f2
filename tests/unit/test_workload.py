"""Prompts: from a seed, a text, a data set; too few, wrong, or missing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import synthetic

from inference_energy.config import Setting
from inference_energy.errors import ConfigError
from inference_energy.measure.workload import FIRST_RANDOM_ID, Prompts, prompts_for, random_prompts

TINY = synthetic.resolved_campaign("local").models["tiny-llama"]


def _prompts(seed: int = 1, **levels: Any) -> Prompts:
    return prompts_for(Setting(model="tiny-llama", **{"n_input_tokens": 8, "batch_size": 2, **levels}), TINY, seed)


# --- random ------------------------------------------------------------------------------------------


def test_random_prompts_follow_the_seed() -> None:
    assert _prompts(1).sha256 == _prompts(1).sha256
    assert _prompts(1).sha256 != _prompts(2).sha256
    assert _prompts().token_ids.shape == (2, 8)
    assert _prompts().n_non_padding_tokens == 16


def test_a_smaller_batch_gets_the_first_prompts_of_a_larger_one() -> None:
    small, large = random_prompts(3, 16, 1000, 5), random_prompts(64, 16, 1000, 5)
    assert np.array_equal(small.token_ids, large.token_ids[:3])
    assert len({row.tobytes() for row in large.token_ids}) == 64


def test_random_ids_are_tokens_and_none_of_the_first() -> None:
    ids = random_prompts(50, 200, 20, 0).token_ids
    assert ids.min() == FIRST_RANDOM_ID
    assert ids.max() == 19


def test_n_prompts_is_obeyed() -> None:
    assert _prompts(n_prompts=5).token_ids.shape == (5, 8)


def test_the_hash_covers_ids_and_mask() -> None:
    ids = np.arange(4, dtype=np.int64).reshape(1, 4)
    prompts = Prompts(ids, np.ones_like(ids))
    assert prompts.sha256 == hashlib.sha256(ids.tobytes() + np.ones_like(ids).tobytes()).hexdigest()
    assert Prompts(ids, np.zeros_like(ids)).sha256 != prompts.sha256


# --- text --------------------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("Hello, world\n\nHé\n   \nThird line\n", encoding="utf-8")
    return path


def test_texts_are_cut_or_padded_on_the_left(text: Path) -> None:
    prompts = _prompts(prompts=f"text:{text}")
    first, second = [b + FIRST_RANDOM_ID for b in b"Hello, w"], [b + FIRST_RANDOM_ID for b in "Hé".encode()]
    assert prompts.token_ids.tolist() == [first, [0] * 5 + second]
    assert prompts.attention_mask.tolist() == [[1] * 8, [0] * 5 + [1] * 3]
    assert prompts.n_non_padding_tokens == 11


def test_empty_lines_are_no_prompts(text: Path) -> None:
    assert _prompts(prompts=f"text:{text}", batch_size=3).token_ids.shape == (3, 8)
    with pytest.raises(ConfigError, match=r"holds 3 prompts\. Expected: at least 4"):
        _prompts(prompts=f"text:{text}", batch_size=4)


def test_a_missing_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt: cannot be read: No such file"):
        _prompts(prompts=f"text:{tmp_path / 'nowhere.txt'}")


@pytest.mark.parametrize("source", ["random:5", "web:x", "", "texts"])
def test_an_unknown_source_is_an_error(source: str) -> None:
    with pytest.raises(ConfigError, match="is no source"):
        _prompts(prompts=source)


# --- a hub's data set ----------------------------------------------------------------------------------


class _Rows(dict[str, list[str]]):
    @property
    def column_names(self) -> list[str]:
        return list(self)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the fake ``datasets`` was asked for."""
    found: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> _Rows:
        found.append((name, split))
        return _Rows(text=["abc", "de", "f"])

    module: Any = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return found


def test_a_data_sets_column_gives_prompts(asked: list[tuple[str, str]]) -> None:
    prompts = _prompts(prompts="hub:AIEnergyScore/text_generation:text")
    assert asked == [("AIEnergyScore/text_generation", "train")]
    assert prompts.attention_mask.sum(axis=1).tolist() == [3, 2]


def test_wrong_names_are_errors(asked: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match=r"no column 'prompt'.*one of \['text'\]"):
        _prompts(prompts="hub:AIEnergyScore/text_generation:prompt")
    with pytest.raises(ConfigError, match="names no column"):
        _prompts(prompts="hub:text_generation")
    with pytest.raises(ConfigError, match="holds 3 prompts"):
        _prompts(prompts="hub:a/b:text", batch_size=8)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"inference-energy\[hub\]"):
        _prompts(prompts="hub:a/b:text")


def test_a_hub_models_tokenizer_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    calls: list[tuple[str, str]] = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name: str, revision: str) -> Any:
            calls.append((name, revision))
            tokenizer: Any = ModuleType("tokenizer")
            tokenizer.encode = lambda words: [len(word) for word in words.split()]
            return tokenizer

    module: Any = ModuleType("transformers")
    module.AutoTokenizer = AutoTokenizer
    monkeypatch.setitem(sys.modules, "transformers", module)
    facts = synthetic.resolved_campaign("h200-pilot").models["llama-3.2-1b"]
    levels = Setting(model="llama-3.2-1b", n_input_tokens=4, batch_size=1, prompts=f"text:{text}")
    prompts = prompts_for(levels, facts, 1)
    assert calls == [facts.hub_identity()]
    assert prompts.token_ids.tolist() == [[0, 0, 6, 5]]
