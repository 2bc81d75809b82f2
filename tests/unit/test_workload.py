"""Prompts: from a seed, a text, a data set; of several lengths; in batches; too few, wrong, or missing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import synthetic

from inference_energy.config import Setting, read_models
from inference_energy.errors import ConfigError
from inference_energy.lengths import input_lengths, longest, output_lengths
from inference_energy.measure.workload import FIRST_RANDOM_ID, Prompts, batches, prompts_for, random_ids, rows

ROOT = Path(__file__).resolve().parents[2]
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
    small, large = _prompts(batch_size=3), _prompts(batch_size=64)
    assert np.array_equal(small.token_ids, large.token_ids[:3])
    assert len({row.tobytes() for row in large.token_ids}) == 64


def test_random_ids_are_tokens_and_none_of_the_first() -> None:
    ids = random_ids(3, 10_000, 20, 0)
    assert ids.min() == FIRST_RANDOM_ID
    assert ids.max() == 19


@pytest.mark.parametrize(
    ("model", "levels", "seed", "sha256"),
    [
        (
            "tiny-llama",
            {"n_input_tokens": 8, "batch_size": 2},
            1,
            "faa076e54bf7c0482a69741e13b6107f35338f243f6e1dfe85494c0bf5325850",
        ),
        (
            "llama-3.2-1b",
            {"n_prompts": 128, "batch_size": 32},
            20250601,
            "4d025cfca419e581aafe00108074e2453c293113d91338eef0c79d806c6d9cab",
        ),
        (
            "llama-3.2-3b",
            {"parallelism": "replicas", "n_gpus": 4, "batch_size": 16, "n_input_tokens": 64, "n_prompts": 128},
            3,
            "334f48bea678d20cf0c52481109498282ab00c9a7bfc80263c458d628928a9c5",
        ),
    ],
)
def test_prompts_of_one_length_are_those_of_the_first_campaigns(
    model: str, levels: dict[str, Any], seed: int, sha256: str
) -> None:
    """Hashes as they were before prompts could have several lengths."""
    facts = read_models(ROOT / "config" / "models.yaml")[model]
    assert prompts_for(Setting(model=model, **levels), facts, seed).sha256 == sha256


def test_n_prompts_is_obeyed() -> None:
    assert _prompts(n_prompts=5).token_ids.shape == (5, 8)


def test_the_hash_covers_ids_mask_and_output_lengths_that_differ() -> None:
    ids, mask = np.arange(8, dtype=np.int64).reshape(2, 4), np.ones((2, 4), dtype=np.int64)
    prompts = Prompts(ids, mask, np.array([7, 7]))
    assert prompts.sha256 == hashlib.sha256(ids.tobytes() + mask.tobytes()).hexdigest()
    assert Prompts(ids, mask, np.array([9, 9])).sha256 == prompts.sha256  # the setting's own level says it
    assert Prompts(ids, np.zeros_like(ids), prompts.n_output_tokens).sha256 != prompts.sha256
    first, second = Prompts(ids, mask, np.array([7, 9])).sha256, Prompts(ids, mask, np.array([9, 7])).sha256
    assert len({prompts.sha256, first, second}) == 3


# --- several lengths -----------------------------------------------------------------------------------

MIXED: dict[str, Any] = {"batch_size": 4, "n_prompts": 64, "n_input_tokens": 100, "n_output_tokens": 30}


def test_prompts_have_the_lengths_of_the_distribution_in_an_order_of_the_seed() -> None:
    levels = {**MIXED, "input_length_cv": 1.0, "output_length_cv": 0.5}
    setting = Setting(model="tiny-llama", **levels)
    one, other = _prompts(1, **levels), _prompts(2, **levels)
    for prompts in (one, other):
        assert sorted(prompts.n_input_tokens) == input_lengths(setting).tolist()
        assert sorted(prompts.n_output_tokens) == output_lengths(setting).tolist()
        assert prompts.n_non_padding_tokens == 6400
    assert one.n_input_tokens.tolist() != other.n_input_tokens.tolist()
    assert one.n_output_tokens.tolist() != other.n_output_tokens.tolist()
    assert one.sha256 == _prompts(1, **levels).sha256


def test_lengths_of_prompts_and_answers_are_drawn_apart() -> None:
    """The order of one says nothing of the order of the other, and does not change with the other's spread."""
    both = _prompts(**MIXED, input_length_cv=1.0, output_length_cv=1.0)
    correlation = np.corrcoef(np.argsort(np.argsort(both.n_input_tokens)), np.argsort(np.argsort(both.n_output_tokens)))
    assert abs(correlation[0, 1]) < 0.3
    alone = _prompts(**MIXED, input_length_cv=1.0)
    assert np.array_equal(alone.token_ids, both.token_ids)
    assert set(alone.n_output_tokens.tolist()) == {30}


def test_mixed_prompts_are_padded_on_the_left_to_the_longest_of_the_pass() -> None:
    prompts = _prompts(**MIXED, input_length_cv=1.0)
    width = prompts.token_ids.shape[1]
    assert width == max(prompts.n_input_tokens) == longest(Setting(model="m", **MIXED, input_length_cv=1.0))[0]
    for row, mask, n in zip(prompts.token_ids, prompts.attention_mask, prompts.n_input_tokens, strict=True):
        assert mask.tolist() == [0] * (width - n) + [1] * n
        assert set(row[: width - n].tolist()) <= {0}
        assert row[width - n :].min() >= FIRST_RANDOM_ID


def test_rows_leave_the_padding_out() -> None:
    ids = np.array([[0, 0, 5], [6, 7, 8], [0, 0, 9]])
    prompts = Prompts(ids, (ids > 0).astype(np.int64), np.array([1, 1, 1]))
    assert rows(prompts, np.array([2, 1])) == [[9], [6, 7, 8]]


def test_replicas_share_lengths_as_they_share_prompts() -> None:
    levels = {**MIXED, "parallelism": "replicas", "n_gpus": 2, "input_length_cv": 1.0, "output_length_cv": 1.0}
    whole = _prompts(**levels)
    shares = [whole.share(Setting(model="tiny-llama", **levels), process) for process in range(2)]
    for name in ("token_ids", "attention_mask", "n_output_tokens", "n_input_tokens"):
        assert np.array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))


# --- batches -------------------------------------------------------------------------------------------


def _of_lengths(*lengths: int, seed: int = 0) -> Prompts:
    mask = np.array([[0] * (9 - n) + [1] * n for n in lengths])
    return Prompts(mask * 5, mask, np.ones(len(lengths), dtype=np.int64), seed)


def test_batches_are_taken_as_they_were_drawn() -> None:
    levels = Setting(model="m", batch_size=2, n_prompts=5)
    assert [batch.tolist() for batch in batches(levels, _of_lengths(9, 1, 8, 2, 7))] == [[0, 1], [2, 3], [4]]


def test_by_length_those_of_about_one_length_meet() -> None:
    levels = Setting(model="m", batch_size=2, n_prompts=5, input_length_cv=1.0, batch_order="by_length")
    found = [[batch.tolist() for batch in batches(levels, _of_lengths(9, 1, 8, 1, 7, seed=s))] for s in range(20)]
    assert all(sorted(order) == [[0], [1, 3], [4, 2]] for order in found)
    assert len({str(order) for order in found}) == 6  # of three batches, in every order


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
    assert prompts.n_output_tokens.tolist() == [128, 128]
    assert prompts.attention_mask.tolist() == [[1] * 8, [0] * 5 + [1] * 3]
    assert prompts.n_non_padding_tokens == 11


def test_texts_are_cut_to_lengths_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("abcdefghijklmnopqrstuvwxyz\n" * 4, encoding="utf-8")
    prompts = _prompts(prompts=f"text:{path}", batch_size=4, input_length_cv=1.0)
    assert sorted(prompts.n_input_tokens) == [2, 5, 9, 16]
    assert rows(prompts, np.array([0]))[0] == [b + FIRST_RANDOM_ID for b in range(97, 97 + prompts.n_input_tokens[0])]


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
