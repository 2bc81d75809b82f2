"""Prompts: token ids of a fixed length, from a seed, a text file or a data set on the hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import ConfigError

#: Ids below this are special tokens in no model here, but text rarely uses them: drawn ids start above.
FIRST_RANDOM_ID = 4


@dataclass(frozen=True)
class Prompts:
    """The prompts of one pass.

    Attributes
    ----------
    token_ids : int64 array, prompts x input tokens
        Padded on the left where a text is short.
    attention_mask : int64 array of the same shape
        1 for tokens, 0 for padding.
    """

    token_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]

    @property
    def sha256(self) -> str:
        """Hash of ids and mask."""
        return hashlib.sha256(self.token_ids.tobytes() + self.attention_mask.tobytes()).hexdigest()

    def share(self, levels: Setting, process: int) -> Prompts:
        """The prompts that process number `process` answers: its part with replicas, else all."""
        if levels.parallelism != "replicas":
            return self
        n = levels.n_prompts_per_process
        part = slice(process * n, (process + 1) * n)
        return Prompts(self.token_ids[part], self.attention_mask[part])

    @property
    def n_non_padding_tokens(self) -> int:
        """Tokens that are no padding, over all prompts."""
        return int(self.attention_mask.sum())


def prompts_for(levels: Setting, facts: ModelFacts, seed: int) -> Prompts:
    """The prompts a setting asks for.

    Raises
    ------
    ConfigError
        If the source is unknown, missing, or holds too few prompts.
    """
    kind, _, rest = levels.prompts.partition(":")
    n = levels.n_prompts_per_pass
    if kind == "random" and not rest:
        return random_prompts(n, levels.n_input_tokens, int(facts.shape["vocab_size"]), seed)
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
    return tokenised(texts[:n], levels.n_input_tokens, facts)


def random_prompts(n_prompts: int, n_tokens: int, vocab_size: int, seed: int) -> Prompts:
    """Uniformly drawn token ids; a smaller batch gets the first prompts of a larger one."""
    rows = [
        np.random.default_rng([seed, row]).integers(FIRST_RANDOM_ID, vocab_size, n_tokens, dtype=np.int64)
        for row in range(n_prompts)
    ]
    ids = np.stack(rows)
    return Prompts(ids, np.ones_like(ids))


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


def tokenised(texts: list[str], n_tokens: int, facts: ModelFacts) -> Prompts:
    """Texts cut to `n_tokens` tokens, or padded on the left to that length."""
    ids = np.zeros((len(texts), n_tokens), dtype=np.int64)
    mask = np.zeros_like(ids)
    encode = _encoder(facts)
    for row, text in enumerate(texts):
        tokens = encode(text)[:n_tokens]
        ids[row, n_tokens - len(tokens) :] = tokens
        mask[row, n_tokens - len(tokens) :] = 1
    return Prompts(ids, mask)


def _encoder(facts: ModelFacts) -> Any:
    if facts.tokenizer == "byte":
        return lambda text: [byte + FIRST_RANDOM_ID for byte in text.encode()]
    from transformers import AutoTokenizer

    name, revision = facts.hub_identity()
    return AutoTokenizer.from_pretrained(name, revision=revision).encode
