"""Prompts and the answers asked for: token ids from a seed, a text file or a data set on the hub, and lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import ConfigError
from inference_energy.lengths import input_lengths, output_lengths

#: Ids below this are special tokens in no model here, but text rarely uses them: drawn ids start above.
FIRST_RANDOM_ID = 4

#: Requests of a warm-up where requests arrive by themselves; all of a pass would take as long as a window.
N_WARM_UP_REQUESTS = 32

#: Set what is drawn of lengths and batches apart from everything else that is drawn from the campaign's seed.
_INPUTS, _OUTPUTS, _BATCHES = 78, 79, 80


@dataclass(frozen=True)
class Prompts:
    """The prompts of one pass.

    Attributes
    ----------
    token_ids : int64 array, prompts x longest input
        Padded on the left where a prompt is shorter.
    attention_mask : int64 array of the same shape
        1 for tokens, 0 for padding.
    n_output_tokens : int64 array, prompts
        Tokens asked for.
    seed : int
        Of the order of batches.
    """

    token_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    n_output_tokens: npt.NDArray[np.int64]
    seed: int = 0

    @property
    def sha256(self) -> str:
        """Hash of ids and mask, and of the output lengths where they differ."""
        content = self.token_ids.tobytes() + self.attention_mask.tobytes()
        if len(set(self.n_output_tokens.tolist())) > 1:
            content += self.n_output_tokens.tobytes()
        return hashlib.sha256(content).hexdigest()

    def share(self, levels: Setting, process: int) -> Prompts:
        """The prompts that process number `process` answers: its part with replicas, else all."""
        if levels.parallelism != "replicas":
            return self
        n = levels.n_prompts_per_process
        part = slice(process * n, (process + 1) * n)
        return Prompts(self.token_ids[part], self.attention_mask[part], self.n_output_tokens[part], self.seed)

    @cached_property
    def n_input_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each prompt that are no padding."""
        return np.asarray(self.attention_mask.sum(axis=1))

    @property
    def n_non_padding_tokens(self) -> int:
        """Tokens that are no padding, over all prompts."""
        return int(self.attention_mask.sum())


def batches(levels: Setting, prompts: Prompts) -> list[npt.NDArray[np.int64]]:
    """Which of the prompts of one process are given together, in the order of a pass.

    Prompts are taken as they were drawn. By length, they are sorted first, so that prompts of about
    one length meet, and the batches follow each other in an order drawn from the seed.
    """
    order = np.arange(len(prompts.token_ids))
    if levels.batch_order == "by_length":
        order = np.argsort(prompts.n_input_tokens, kind="stable")
    found = [order[start : start + levels.batch_size] for start in range(0, len(order), levels.batch_size)]
    if levels.batch_order == "by_length":
        np.random.default_rng([prompts.seed, _BATCHES]).shuffle(found)
    return found


def warm_up_batch(levels: Setting, prompts: Prompts) -> int | None:
    """Number of the batch that a warm-up repeats: the longest, where lengths differ; None: it goes round.

    Iterations of different work never take equally long, so their durations could not tell a steady state.
    """
    if not (levels.input_length_cv or levels.output_length_cv):
        return None
    lengths = [
        (int(prompts.n_input_tokens[indices].max()), int(prompts.n_output_tokens[indices].max()))
        for indices in batches(levels, prompts)
    ]
    return lengths.index(max(lengths))


def rows(prompts: Prompts, indices: npt.NDArray[np.int64]) -> list[list[int]]:
    """Token ids of some prompts, without padding."""
    return [prompts.token_ids[i, prompts.attention_mask[i] == 1].tolist() for i in indices]


def prompts_for(levels: Setting, facts: ModelFacts, seed: int) -> Prompts:
    """The prompts a setting asks for.

    Raises
    ------
    ConfigError
        If the source is unknown, missing, or holds too few prompts.
    """
    kind, _, rest = levels.prompts.partition(":")
    n = levels.n_prompts_per_pass
    n_input = np.random.default_rng([seed, _INPUTS]).permutation(input_lengths(levels))
    n_output = np.random.default_rng([seed, _OUTPUTS]).permutation(output_lengths(levels))
    if kind == "random" and not rest:
        drawn = [random_ids(row, length, int(facts.shape["vocab_size"]), seed) for row, length in enumerate(n_input)]
        return Prompts(*padded(drawn, n_input.max()), n_output, seed)
    if kind == "text":
        texts = text_prompts(Path(rest))
    elif kind == "hub":
        texts = hub_prompts(rest)
    else:
        raise ConfigError("prompts", f"{levels.prompts!r} is no source", "random, text:PATH or hub:DATASET:COLUMN")
    if len(texts) < n:
        raise ConfigError(
            "prompts",
            f"{levels.prompts!r} holds {len(texts)} prompts",
            f"at least {n}",
            "Give more prompts or a smaller batch",
        )
    encode = _encoder(facts)
    tokens = [encode(text)[:length] for text, length in zip(texts[:n], n_input, strict=True)]
    return Prompts(*padded(tokens, n_input.max()), n_output, seed)


def random_ids(row: int, n_tokens: int, vocab_size: int, seed: int) -> npt.NDArray[np.int64]:
    """Uniformly drawn token ids of prompt number `row`: a smaller batch gets the first prompts of a larger one."""
    return np.random.default_rng([seed, row]).integers(FIRST_RANDOM_ID, vocab_size, n_tokens, dtype=np.int64)


def padded(
    prompts: Sequence[Sequence[int] | npt.NDArray[np.int64]], n_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask of `prompts`, padded on the left to `n_tokens` tokens."""
    ids = np.zeros((len(prompts), n_tokens), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(prompts):
        ids[row, n_tokens - len(tokens) :] = tokens
        mask[row, n_tokens - len(tokens) :] = 1
    return ids, mask


def text_prompts(path: Path) -> list[str]:
    """One prompt a line, empty lines left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"prompts: {path}", f"cannot be read: {error.strerror}", "a text file") from error
    return [line for line in lines if line.strip()]


def hub_prompts(name: str) -> list[str]:
    """Column of a data set's train split, such as ``AIEnergyScore/text_generation:text``."""
    dataset, _, column = name.rpartition(":")
    if not dataset:
        raise ConfigError("prompts", f"hub:{name} names no column", "hub:DATASET:COLUMN")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            "prompts", "the package datasets is not installed", "", "pip install 'inference-energy[hub]'"
        ) from error
    rows: Any = load_dataset(dataset, split="train")
    if column not in rows.column_names:
        raise ConfigError("prompts", f"{dataset} has no column {column!r}", f"one of {rows.column_names}")
    return [str(text) for text in rows[column]]


def _encoder(facts: ModelFacts) -> Any:
    if facts.tokenizer == "byte":
        return lambda text: [byte + FIRST_RANDOM_ID for byte in text.encode()]
    from transformers import AutoTokenizer

    name, revision = facts.hub_identity()
    return AutoTokenizer.from_pretrained(name, revision=revision).encode
