"""What vLLM is given and what its log says; vLLM itself is tested by ``make test-vllm``."""

from __future__ import annotations

import gc
import json
import multiprocessing
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference_energy.config import ModelFacts, Setting, read_models
from inference_energy.errors import ConfigError
from inference_energy.measure.engines import vllm, vllm_model
from inference_energy.measure.engines.vllm import VllmEngine, _Queues

ROOT = Path(__file__).resolve().parents[2]
#: Lines that vLLM 0.22 and 0.32 logged.
LOG = """\
Model loading took 2.32 GiB memory and 1.250000 seconds
(Worker) Model loading took 2.32 GiB and 1.750000 seconds
Directly load AOT compilation from path /cache/torch_compile_cache/model
torch.compile took 3.25 s in total
Selected CutlassInt8ScaledMMLinearKernel for CompressedTensorsW8A8Int8
Graph capturing finished in 5 secs, took 0.50 GiB
init engine (profile, create kv cache, warmup model) took 12.50 s (compilation: 3.25 s)
"""


@pytest.fixture
def facts() -> ModelFacts:
    return read_models(ROOT / "config" / "models.yaml")["tiny-llama"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    return tmp_path


def _levels(**levels: Any) -> Setting:
    return Setting(**{"model": "tiny-llama", "engine": "vllm", **levels})


def _options(facts: ModelFacts, device: str = "cuda", n_context_tokens: int = 256, **levels: Any) -> dict[str, Any]:
    return vllm_model.options(_levels(**levels), facts, 7, device, n_context_tokens)


def test_the_usual_options(facts: ModelFacts, cache: Path) -> None:
    given = _options(facts)
    config = Path(given.pop("model")) / "config.json"
    assert config.is_relative_to(cache)
    written = json.loads(config.read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    assert {name: written[name] for name in facts.shape} == facts.shape
    assert given == {
        "load_format": "inference_energy_random",
        "dtype": "float16",
        "seed": 7,
        "tensor_parallel_size": 1,
        "max_model_len": 256,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "skip_tokenizer_init": True,
        "gpu_memory_utilization": 0.9,
    }


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"precision": "float8"}, {"quantization": "fp8", "dtype": "float16"}),
        ({"precision": "int4"}, {"dtype": "float16"}),
        ({"precision": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"execution": "graphs"}, {"enforce_eager": False}),
        ({"parallelism": "tensor", "n_gpus": 4}, {"tensor_parallel_size": 4}),
        ({"n_sequences_max": 32}, {"max_num_seqs": 32}),
        (
            {"prefill": "chunked", "prefill_chunk_tokens": 512},
            {"enable_chunked_prefill": True, "max_num_batched_tokens": 512},
        ),
        ({"prefix_caching": "on"}, {"enable_prefix_caching": True}),
        ({"device_memory_fraction": 0.5}, {"gpu_memory_utilization": 0.5}),
        # 1000 tokens are 62.5 blocks of 16: 63, and the one that vLLM sets aside.
        ({"kv_cache_tokens": 1000}, {"num_gpu_blocks_override": 64, "block_size": 16}),
    ],
)
def test_options_of_a_level(facts: ModelFacts, levels: dict[str, Any], expected: dict[str, Any]) -> None:
    usual, given = _options(facts), _options(facts, **levels)
    changed = {name: value for name, value in given.items() if name != "model" and usual.get(name) != value}
    assert {name: given[name] for name in expected} == expected
    assert set(changed) <= set(expected)


def test_another_configuration_is_another_folder(facts: ModelFacts) -> None:
    folders = {_options(facts, precision=precision)["model"] for precision in ("float16", "bfloat16", "int8", "int4")}
    assert len(folders) == 4
    assert _options(facts, batch_size=4)["model"] == _options(facts, prefix_caching="on")["model"]


@pytest.mark.parametrize(("precision", "n_bits", "activations"), [("int8", 8, 8), ("int4", 4, None)])
def test_integers_are_stated_as_checkpoints_state_them(
    facts: ModelFacts, precision: str, n_bits: int, activations: int | None
) -> None:
    config = json.loads((Path(_options(facts, precision=precision)["model"]) / "config.json").read_text())
    group = config["quantization_config"]["config_groups"]["group_0"]
    assert group["weights"]["num_bits"] == n_bits
    assert (group["input_activations"] or {}).get("num_bits") == activations
    assert config["quantization_config"]["ignore"] == ["lm_head"]


def test_the_longest_request_must_fit(facts: ModelFacts) -> None:
    assert _options(facts, kv_cache_tokens=256)["num_gpu_blocks_override"] == 17
    with pytest.raises(
        ConfigError, match="kv_cache_tokens: 255 tokens, and the longest prompt with its answer has 256"
    ):
        _options(facts, kv_cache_tokens=255)


def test_what_the_log_says() -> None:
    assert vllm_model.start_parts_s(LOG) == {
        "weights": 1.75,
        "compile": 3.25,
        "graph_capture": 5.0,
        "kv_cache_and_warmup": 12.5,
    }
    assert vllm_model.kernels(LOG) == ["CutlassInt8ScaledMMLinearKernel"]
    assert vllm_model.compile_cache(LOG, "VLLM_COMPILE") == "reused"
    assert vllm_model.compile_cache(LOG.replace("Directly load", "Cache"), "VLLM_COMPILE") == "new"
    assert vllm_model.compile_cache(LOG, "NONE") == "none"
    assert vllm_model.compile_cache(LOG, "DYNAMO_TRACE_ONCE") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\ntorch.OutOfMemoryError: CUDA out of memory.\nb", "torch.OutOfMemoryError: CUDA out of memory."),
        ("ValueError: No available memory for the cache blocks.",) * 2,
        ("4 GiB is needed, which is larger than the available KV cache memory (1 GiB).",) * 2,
        ("ValueError: unknown", None),
    ],
)
def test_what_is_out_of_memory(text: str, words: str | None) -> None:
    assert vllm_model.out_of_memory(text) == words


def test_what_a_worker_says_last() -> None:
    log = "INFO fine\nTraceback (most recent call last):\n  File\nValueError: first\nRuntimeError: second\nbye"
    assert vllm_model.last_words(log) == "RuntimeError: second"
    assert vllm_model.last_words("all is well") == ""


def test_devices_are_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: f"GPU-{'abc'[handle]}")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    for before, after in (("GPU-c,GPU-a", "2,0"), ("1,0", "1,0"), ("", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        vllm_model._number_devices()
        assert vllm_model.os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_queues_are_sampled_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from inference_energy.measure.engines import vllm

    queues, moments = _Queues(), iter([10.0, 10.04, 10.05, 10.06, 10.2])
    monkeypatch.setattr(vllm.time, "monotonic", lambda: next(moments))
    for n, kv in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5)):
        stats = SimpleNamespace(num_running_reqs=n, num_waiting_reqs=10 - n, kv_cache_usage=kv)
        queues.record(
            scheduler_stats=stats, iteration_stats=SimpleNamespace(num_preempted_reqs=n % 2), mm_cache_stats=0
        )
    samples = queues.samples()
    assert samples.time_s == [10.0, 10.05, 10.2]
    assert samples.n_running == [1, 3, 5]
    assert samples.n_waiting == [9, 7, 5]
    assert samples.kv_cache_fraction == [0.1, 0.3, 0.5]
    assert queues.n_preemptions == 3


def test_without_vllm_it_says_what_to_install(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE", "VLLM_LOGGING_CONFIG_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    engine = VllmEngine(_levels(), facts, 7, "cpu", 256)
    with pytest.raises(ConfigError, match=r"vLLM cannot be imported.*inference-energy\[gpu\]"):
        engine.load()
    engine.close()
    assert engine.memory_peak_bytes() == []


def test_an_engine_that_does_not_end_is_ended_by_force(
    facts: ModelFacts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm, "CLOSE_WAIT_S", 0.2)
    engine = VllmEngine(Setting(model="tiny-llama", engine="vllm", prefill="chunked"), facts, 7, "cpu", 64)
    never = threading.Event().wait
    engine._llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=never)))
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    worker.start()
    engine._workers = {worker}
    try:
        engine.close()
        assert worker.exitcode == -signal.SIGKILL
    finally:
        worker.kill()
    said = capfd.readouterr().err
    assert "did not end within 0.2 s" in said
    assert "_shut_down" in said  # where it stands


def test_where_workers_held_the_memory_nothing_is_collected_any_more(facts: ModelFacts) -> None:
    engine = VllmEngine(Setting(model="tiny-llama", engine="vllm", prefill="chunked"), facts, 7, "cpu", 64)
    ended = threading.Event()
    engine._llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=ended.set)))
    engine._workers = {multiprocessing.get_context("spawn").Process()}
    try:
        engine.close()
        assert ended.is_set()
        assert not gc.isenabled()
    finally:
        gc.enable()
