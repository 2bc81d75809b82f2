"""The least work of an answer: FLOP and bytes from a model's architecture.

Functions take a frame of rows with lengths, batch, number format and the columns of table ``architectures``.
"""

from __future__ import annotations

import pandas as pd

#: Bytes of a weight in the layers, and of an activation, a cached key or value, and a weight of the last layer.
# SOURCE: bitsandbytes as transformers calls it: int8 keeps a byte a weight (and four for each row, left out here), NF4
# half a byte and a float32 scale for each block of 64; both leave the last layer in half precision. vLLM's float8 keeps
# a byte a weight, its packed 4 bits a half-precision scale for each group of 128, and both the last layer in bfloat16.
WEIGHT_BYTES = {
    "float32": 4.0,
    "tf32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "float8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + 4 / 64,
}
_VLLM_INT4_BYTES = 0.5 + 2 / 128
_OTHER_BYTES = {"float32": 4.0, "tf32": 4.0} | dict.fromkeys(("float16", "bfloat16", "float8", "int8", "int4"), 2.0)

#: The number format in which the layers' products are computed.
# ASSUME: all FLOP of a precision are held against one peak. LLM.int8() computes outliers and the last layer in float16.
COMPUTES_IN = {name: name for name in WEIGHT_BYTES} | {"int4": "float16"}


def flop_per_output_token(shaped: pd.DataFrame) -> pd.Series:
    """FLOP per output token of rows with lengths and an architecture.

    A sequence of n input and m output tokens sends L = n + m - 1 tokens through the layers (the last one generated is
    never read), and m through the last layer. With W weights in the layers' matrices, hidden width h, vocabulary V,
    q heads of width d and N layers::

        FLOP per sequence = 2 W L + 2 h V m + 4 N q d L (L + 1) / 2

    The last term is attention: a token at place c forms products with c keys and c values. Norms, rotations, softmax
    and sampling are left out (below 1 %), and so is the embedding, a look-up.
    """
    n_in, n_out = _float(shaped, "n_input_tokens"), _float(shaped, "n_output_tokens")
    passed = n_in + n_out - 1
    pairs = passed * (passed + 1) / 2
    attention = 4 * _float(shaped, "n_layers") * _float(shaped, "n_heads") * _float(shaped, "n_head_dim") * pairs
    return (2 * _layer_weights(shaped) * passed + 2 * _last_weights(shaped) * n_out + attention) / n_out


def bytes_per_output_token(shaped: pd.DataFrame) -> pd.Series:
    """Bytes per output token of rows with lengths, batch, precision and architecture: the least that must move.

    Every step reads all weights once for the whole batch; it reads each sequence's cached keys and values and writes
    its own. With batch B and cache c bytes a token::

        bytes per sequence = m (layers' weights + last layer) / B + c (L + (m - 1) n + m (m - 1) / 2)

    Activations are left out, and what an implementation moves beyond this.
    """
    n_in, n_out = _float(shaped, "n_input_tokens"), _float(shaped, "n_output_tokens")
    other = shaped["precision"].map(_OTHER_BYTES).astype(float)
    packed = shaped["precision"].eq("int4") & shaped["engine"].astype("string").str.startswith("vllm").fillna(False)
    each = shaped["precision"].map(WEIGHT_BYTES).astype(float).mask(packed, _VLLM_INT4_BYTES)
    weights = _layer_weights(shaped) * each + _last_weights(shaped) * other
    cache = 2 * _float(shaped, "n_layers") * _float(shaped, "n_kv_heads") * _float(shaped, "n_head_dim") * other
    written = n_in + n_out - 1
    read = (n_out - 1) * n_in + n_out * (n_out - 1) / 2
    return weights / _float(shaped, "batch_size") + cache * (written + read) / n_out


def _layer_weights(shaped: pd.DataFrame) -> pd.Series:
    """Weights of all layers' matrices: queries and output, keys and values, the MLP's three."""
    hidden, dim = _float(shaped, "n_hidden"), _float(shaped, "n_head_dim")
    attention = 2 * hidden * dim * (_float(shaped, "n_heads") + _float(shaped, "n_kv_heads"))
    return _float(shaped, "n_layers") * (attention + 3 * hidden * _float(shaped, "n_intermediate"))


def _last_weights(shaped: pd.DataFrame) -> pd.Series:
    return _float(shaped, "n_hidden") * _float(shaped, "n_vocab")


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype(float)
