"""FLOP and bytes counted by hand, and utilisation held against known peaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from inference_energy.analyse.utilisation import utilisation
from inference_energy.errors import AnalysisError
from inference_energy.facts import read_models
from inference_energy.models.work import bytes_per_output_token, flop_per_output_token
from inference_energy.tables import RUNS
from inference_energy.tables.speed import ARCHITECTURES, GPU_FACTS

TINY = {
    "model": "tiny-llama",
    "n_layers": 4,
    "n_hidden": 256,
    "n_intermediate": 688,
    "n_heads": 8,
    "n_kv_heads": 4,
    "n_head_dim": 32,
    "n_vocab": 512,
    "tied_embeddings": True,
    "n_parameters": 3033344,
}
ARCHITECTURE = pd.DataFrame([TINY], columns=ARCHITECTURES.names)
FACTS = pd.DataFrame(
    [("a GPU", precision, peak, 2e9, 700.0) for precision, peak in (("float32", 1e9), ("float16", 4e9), ("int8", 8e9))],
    columns=GPU_FACTS.names,
)

# A layer of tiny-llama: queries and output 2 x 256 x (8 x 32), keys and values 2 x 256 x (4 x 32), MLP 3 x 256 x 688.
LAYERS = 4 * (2 * 65_536 + 2 * 32_768 + 528_384)  # = 2,899,968
LAST = 256 * 512  # = 131,072


def _runs(**changes: Any) -> pd.DataFrame:
    """A run that answers 5 tokens with 3, two prompts at a time, one step in 0.01 s."""
    run: dict[str, Any] = {
        "campaign": "c",
        "study": "batching",
        "setting": "s",
        "cycle": 1,
        "model": "tiny-llama",
        "precision": "float32",
        "batch_size": 2,
        "n_input_tokens": 5,
        "n_output_tokens": 3,
        "parallelism": "none",
        "n_gpus": 1,
        "traffic": "none",
        "attention": "eager",
        "gpu_name": "a GPU",
        "power_limit_w": 500.0,
        "energy_j_per_output_token": 0.5,
        "throughput_tokens_per_s": 10.0,
        "power_mean_w": 100.0,
        "duration_s_per_step": 0.2,
        "waited_fraction": 0.0,
    }
    return pd.DataFrame([run | changes], columns=RUNS.names)


def _shaped(**changes: Any) -> pd.DataFrame:
    return _runs(**changes).merge(ARCHITECTURE, on="model")


def _row(**changes: Any) -> pd.Series:
    return utilisation(_runs(**changes), ARCHITECTURE, FACTS).table().iloc[0]


# --- by hand -------------------------------------------------------------------------------------


def test_the_hand_counted_weights_make_up_the_model() -> None:
    norms = (2 * 4 + 1) * 256  # two in each layer and one at the end; the embedding is the last layer's
    assert LAYERS + LAST + norms == 3_033_344


def test_flop_per_token_of_the_tiny_model_by_hand() -> None:
    # 5 tokens in and 3 out: 7 tokens pass the layers (the third one generated is not read), 3 the last layer.
    # Their contexts are 1, 2, ... 7 tokens long: 28 pairs, each with two products of 32 numbers in 8 heads of 4 layers.
    layers = 2 * 2_899_968 * 7  # = 40,599,552
    last = 2 * 131_072 * 3  # = 786,432
    attention = 4 * 4 * 8 * 32 * 28  # = 114,688
    assert layers + last + attention == 41_500_672
    assert flop_per_output_token(_shaped()).iloc[0] == pytest.approx(41_500_672 / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("precision", "weights", "cache"),
    [
        (
            "float32",
            4 * (2_899_968 + 131_072),
            4_096,
        ),  # a cached token: keys and values, 4 layers x 4 heads x 32, 4 bytes
        ("tf32", 4 * (2_899_968 + 131_072), 4_096),
        ("float16", 2 * (2_899_968 + 131_072), 2_048),
        ("bfloat16", 2 * (2_899_968 + 131_072), 2_048),
        ("int8", 2_899_968 + 2 * 131_072, 2_048),  # the last layer stays in half precision
        ("int4", 1_449_984 + 4 * 2_899_968 / 64 + 2 * 131_072, 2_048),  # half a byte, and a scale for each 64
    ],
)
def test_bytes_per_token_of_the_tiny_model_by_hand(precision: str, weights: float, cache: int) -> None:
    # Three steps read the weights for two prompts. A prompt writes 7 tokens into its cache; its second and third step
    # read 6 and 7 tokens from there.
    expected = (3 * weights / 2 + cache * (7 + 6 + 7)) / 3
    assert bytes_per_output_token(_shaped(precision=precision)).iloc[0] == pytest.approx(expected, rel=1e-12)


def test_flop_of_a_step_are_those_that_torch_counts() -> None:
    facts = read_models(Path(__file__).resolve().parents[2] / "config" / "models.yaml")["tiny-llama"]
    config = LlamaConfig(**facts.shape, attn_implementation="eager")
    with torch.no_grad():
        model = LlamaForCausalLM(config).eval()
        cache = model(torch.ones(1, 100, dtype=torch.long), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(torch.ones(1, 1, dtype=torch.long), past_key_values=cache)
    # One more token out means one more step, here over 100 + 1 tokens.
    two, three = (flop_per_output_token(_shaped(n_input_tokens=99, n_output_tokens=n)).iloc[0] * n for n in (2, 3))
    assert counter.get_total_flops() == pytest.approx(three - two, rel=1e-4)


# --- utilisation ---------------------------------------------------------------------------------


def test_utilisation_is_what_was_achieved_over_the_peak() -> None:
    row = _row()
    flop, moved = 41_500_672 / 3, (3 * 12_124_160 / 2 + 4_096 * 20) / 3
    assert row["mfu"] == pytest.approx(flop * 10 / 1e9, rel=1e-12)
    assert row["mbu"] == pytest.approx(moved * 10 / 2e9, rel=1e-12)
    assert row["flop_over_bytes_ratio"] == pytest.approx(flop / moved, rel=1e-12)
    assert row["power_over_limit_fraction"] == pytest.approx(0.2, rel=1e-12)
    assert pd.isna(row["note"])


def test_several_gpus_share_throughput_and_power() -> None:
    one, four = _row(), _row(parallelism="replicas", n_gpus=4, throughput_tokens_per_s=40.0, power_mean_w=400.0)
    for name in ("mfu", "mbu", "power_over_limit_fraction", "flop_per_output_token"):
        assert four[name] == pytest.approx(one[name], rel=1e-12), name


def test_quantised_weights_are_held_against_the_format_that_computes() -> None:
    assert _row(precision="int4")["peak_flop_per_s"] == 4e9
    assert _row(precision="int8")["peak_flop_per_s"] == 8e9


def test_waiting_is_no_latency() -> None:
    row = _row(duration_s_per_step=0.5, waited_fraction=0.6)
    assert row["latency_s"] == pytest.approx(3 * 0.5 * 0.4, rel=1e-12)
    assert row["waiting_s"] == pytest.approx(3 * 0.5 * 0.6, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu_name": "some CPU"}, "because some CPU has no peak rates in config/hardware.yaml"),
        ({"precision": "bfloat16"}, "because a GPU has no peak rate for bfloat16"),
    ],
)
def test_without_a_peak_there_is_no_utilisation_but_a_reason(changes: dict[str, str], reason: str) -> None:
    row = _row(**changes)
    assert pd.isna(row["mfu"])
    assert pd.isna(row["mbu"])
    assert reason in row["note"]
    assert row["flop_per_output_token"] > 0


def test_studies_of_the_method_are_left_out() -> None:
    method = [{"warmup": "forward_passes"}, {"launcher": "cold"}, {"neighbours": "none"}, {"attention": "sdpa"}]
    runs = pd.concat([_runs(), _runs(setting="t"), *(_runs(setting="m", **changes) for changes in method)])
    assert utilisation(runs, ARCHITECTURE, FACTS).table()["setting"].tolist() == ["s", "t"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"energy_j_per_output_token": float("nan")}, "none of 1 runs"),
        ({"energy_j_per_output_token": 0.0}, "is 0"),
        ({"energy_j_per_output_token": -1.0}, "is -1"),
        ({"model": "other"}, "unknown model 'other'"),
        ({"precision": "int2"}, "unknown precision 'int2'"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AnalysisError, match=complaint):
        _row(**changes)
