"""vLLM, offline: its scheduler in the measuring process, its workers one a GPU."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from pydantic import ValidationError

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import ConfigError, EngineError
from inference_energy.measure import workload
from inference_energy.measure.engines import Generated, Observations, OutOfDeviceMemory, vllm_model
from inference_energy.measure.workload import Prompts
from inference_energy.records import EngineFacts, EngineSamples

#: Time between two samples of the queues at least; vLLM offers them at every step.
SAMPLE_PERIOD_S = 0.05
N_TOKENS_OF_FORWARD_PASS = 8
#: vLLM gives its workers four seconds to end by themselves, and four more when it has asked them to.
CLOSE_WAIT_S = 30.0


@dataclass
class _Queues:
    """Takes the place of vLLM's loggers, which would count for Prometheus at every step."""

    n_preemptions: int = 0
    time_s: list[float] = field(default_factory=list)
    n_running: list[float] = field(default_factory=list)
    n_waiting: list[float] = field(default_factory=list)
    kv_cache_fraction: list[float | None] = field(default_factory=list)

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        """After every step."""
        if iteration_stats is not None:
            self.n_preemptions += iteration_stats.num_preempted_reqs
        now_s = time.monotonic()
        if scheduler_stats is None or (self.time_s and now_s - self.time_s[-1] < SAMPLE_PERIOD_S):
            return
        self.time_s.append(now_s)
        self.n_running.append(scheduler_stats.num_running_reqs)
        self.n_waiting.append(scheduler_stats.num_waiting_reqs)
        self.kv_cache_fraction.append(scheduler_stats.kv_cache_usage)

    def log(self) -> None:
        """Nothing: vLLM asks for it every ten seconds."""

    def samples(self) -> EngineSamples:
        """So far."""
        return EngineSamples(
            time_s=self.time_s,
            n_running=self.n_running,
            n_waiting=self.n_waiting,
            kv_cache_fraction=self.kv_cache_fraction,
        )


def import_everything() -> None:
    """Import vLLM and touch no device: what a forking parent holds.

    Raises
    ------
    ConfigError
        If vLLM is not installed.
    EngineError
        If importing it initialised CUDA.
    """
    try:
        import torch
        import vllm.v1.engine.core  # noqa: F401

        from inference_energy.measure.engines import vllm_worker  # noqa: F401
    except ImportError as error:
        raise vllm_model.missing("vllm", f"vLLM cannot be imported: {error}") from error
    if torch.cuda.is_initialized():  # a parent with a context cannot fork processes that use the GPU
        raise EngineError("engine 'vllm'", "importing vLLM initialised CUDA", "", "Use launcher: cold")


class VllmEngine:
    """One model, one start, and the prompts of one setting after the other.

    Parameters
    ----------
    levels : Setting
        How to start it; the workload comes with `take`.
    facts : ModelFacts
        The model's shape and pinned revision.
    seed : int
        Of random weights and of sampling.
    device : {"cuda", "cpu"}
        Where to run.
    context_tokens : int
        The longest prompt and its answer together, over all that the engine is to serve.
    """

    def __init__(self, levels: Setting, facts: ModelFacts, seed: int, device: str, context_tokens: int) -> None:
        self._start, self._facts, self._seed, self._device = levels, facts, seed, device
        self._options = vllm_model.options(levels, facts, seed, device, context_tokens)
        self._context_tokens = context_tokens
        self._levels = levels
        self._llm: Any = None
        self._workers: set[BaseProcess] = set()
        self._queues = _Queues()
        self._started: dict[str, Any] = {}
        self._batches: list[tuple[list[dict[str, list[int]]], list[int]]] = []
        self._n_generated = 0
        self._repeated: int | None = None
        self._awaits = False
        self._answers = True

    def load(self) -> None:
        """Start vLLM: weights, KV cache, and graphs where asked for."""
        vllm_model.prepare_environment(self._start, self._device)
        began_s = time.monotonic()
        import_everything()
        vllm_model.log_to_memory()
        imported_s = time.monotonic()
        log = vllm_model.StartLog()
        ours = set(multiprocessing.active_children())
        with _failures_said(log):
            from vllm import LLM

            self._llm = LLM(
                **self._options,
                disable_log_stats=False,  # they tell when a request had its first token
                use_tqdm_on_load=False,
                worker_extension_cls=vllm_model.WORKER_EXTENSION,
            )
        self._workers = set(multiprocessing.active_children()) - ours
        self._llm.llm_engine.logger_manager = self._queues
        self._note_start(log.text(), imported_s - began_s, time.monotonic() - imported_s)

    def _note_start(self, log: str, import_s: float, start_s: float) -> None:
        config = self._llm.llm_engine.vllm_config
        quantisation = config.model_config.quantization
        if self._start.weights == "hub" and self._start.precision in ("int8", "int4") and quantisation is None:
            raise ConfigError(
                f"model {self._options['model']!r} with precision {self._start.precision!r}",
                "its weights are not quantised, and vLLM does not quantise them to integers by itself",
                "a repository with weights in AWQ's, GPTQ's or compressed-tensors' format",
            )
        self._started = {
            "graph_mode": config.compilation_config.cudagraph_mode.name,
            "n_graph_sizes": _n_graph_sizes(config.compilation_config),
            "attention_backend": self._ask("study_attention_backend")[0],
            "quantisation": ", ".join([quantisation, *vllm_model.kernels(log)]) if quantisation else None,
            "compile_cache": vllm_model.compile_cache(log, config.compilation_config.mode.name),
            "start_parts_s": {"import": import_s, "start": start_s, **vllm_model.start_parts_s(log)},
        }

    def take(self, levels: Setting, prompts: Prompts) -> None:
        """Answer these prompts from now on, with nothing of earlier ones in the prefix cache.

        Raises
        ------
        ConfigError
            If a prompt and its answer are longer than what the engine was started for.
        """
        vllm_model.require_room("vllm", prompts, self._context_tokens)
        self._levels, self._n_generated, self._awaits = levels, 0, False
        self._repeated = workload.warm_up_batch(levels, prompts)
        self._queues = _Queues()
        self._batches = [
            (
                [{"prompt_token_ids": ids} for ids in workload.rows(prompts, indices)],
                prompts.n_output_tokens[indices].tolist(),
            )
            for indices in workload.batches(levels, prompts)
        ]
        if self._llm is not None:
            self._llm.llm_engine.logger_manager = self._queues
            self._llm.reset_prefix_cache()

    def prime(self, n_tokens: int) -> None:
        """Generate `n_tokens` for each prompt of the first batch."""
        prompts, lengths = self._batches[0]
        self._generate(prompts, [min(n_tokens, length) for length in lengths])

    def forward_passes(self, n: int) -> None:
        """`n` forward passes over the first eight tokens of the first prompt."""
        first = self._batches[0][0][0]["prompt_token_ids"][:N_TOKENS_OF_FORWARD_PASS]
        for _ in range(n):
            self._generate([{"prompt_token_ids": first}], [1])

    def iterate(self, *, waiting: bool) -> Generated:
        """Generate for the next batch; the first that waits begins a pass anew."""
        if waiting and not self._awaits:
            self._awaits, self._n_generated = True, 0
        repeated = None if waiting else self._repeated
        prompts, lengths = self._batches[self._n_generated % len(self._batches) if repeated is None else repeated]
        self._n_generated += 1
        began_s = time.monotonic()
        outputs = self._generate(prompts, lengths)
        n_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        # vLLM stamps on the host's monotonic clock, like us.
        first_s = max(output.metrics.first_token_ts for output in outputs)
        return Generated(n_tokens, n_tokens, first_token_s=first_s - began_s)

    def _generate(self, prompts: list[dict[str, list[int]]], lengths: list[int]) -> Any:
        self._answers = False  # until it did: workers that failed must not be asked anything more
        with _failures_said(vllm_model.StartLog()):
            outputs = self._llm.generate(prompts, [self._sampling(length) for length in lengths], use_tqdm=False)
        self._answers = True
        return outputs

    def _sampling(self, n_tokens: int) -> Any:
        """Fixed length: no token ends a sequence. Asking for as many at least would mask logits at every step."""
        from vllm import SamplingParams

        levels = self._levels
        sampled = levels.decoding != "greedy"
        return SamplingParams(
            max_tokens=n_tokens,
            ignore_eos=True,
            detokenize=False,
            temperature=(levels.sampling_temperature or 1.0) if sampled else 0.0,
            top_k=levels.top_k or 0,
            top_p=levels.top_p or 1.0,
        )

    def observations(self) -> Observations:
        """What vLLM says of itself, and of its queues since it took these prompts."""
        import vllm

        config = self._llm.llm_engine.vllm_config
        return Observations(
            EngineFacts(
                name="vllm",
                version=vllm.__version__,
                options={name: value for name, value in self._options.items() if name != "model"},
                n_kv_blocks=config.cache_config.num_gpu_blocks,
                n_tokens_per_kv_block=config.cache_config.block_size,
                n_sequences_max=config.scheduler_config.max_num_seqs,
                n_step_tokens_max=config.scheduler_config.max_num_batched_tokens,
                n_context_tokens_max=config.model_config.max_model_len,
                n_preemptions=self._queues.n_preemptions,
                **self._started,
            ),
            self._queues.samples(),
        )

    def device_uuids(self) -> list[str]:
        """Of every worker's GPU, in order."""
        return [uuid for uuid in self._ask("study_device_uuid") if uuid is not None]

    def memory_peak_bytes(self) -> list[int]:
        """Of every worker's GPU, in order; most of it is the KV cache, taken at once. Empty after a failure."""
        if self._llm is None or not self._answers:
            return []
        return [peak for peak in self._ask("study_memory_peak_bytes") if peak is not None]

    def _ask(self, method: str) -> list[Any]:
        answers: list[Any] = self._llm.collective_rpc(method)
        return answers

    def close(self) -> None:
        """End vLLM and its workers, and give the memory of their GPUs back; by force if that takes too long.

        With workers this is to be the last thing a process does: nothing is collected after it.
        """
        if self._llm is None:
            return
        ending = threading.Thread(target=self._shut_down, daemon=True)
        ending.start()
        ending.join(CLOSE_WAIT_S)
        if ending.is_alive():
            said = f"vLLM did not end within {CLOSE_WAIT_S:g} s and its workers were killed. It stood at:"
            print(f"warning: {said}", file=sys.stderr, flush=True)  # noqa: T201
            faulthandler.dump_traceback(sys.stderr)
            for worker in self._workers:
                worker.kill()
                worker.join(CLOSE_WAIT_S)
        self._llm = None

    def _shut_down(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        if self._workers:  # the memory was theirs
            # vLLM 0.22 leaves a ZeroMQ context behind, and collecting it can block for ever (`Context.__del__`).
            gc.disable()
            return
        self._llm = None
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def _n_graph_sizes(compilation: Any) -> int:
    return len(compilation.cudagraph_capture_sizes or []) if compilation.cudagraph_mode.name != "NONE" else 0


class _failures_said:  # noqa: N801 - reads as a context
    """Turn vLLM's errors into ours, with the words of the worker that failed."""

    def __init__(self, log: vllm_model.StartLog) -> None:
        self._log = log

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        log = self._log.text()
        words = vllm_model.out_of_memory(f"{type(error).__name__}: {error}\n{log}")
        if words is not None:
            raise OutOfDeviceMemory(words) from error
        if isinstance(error, ValidationError):
            raise ConfigError("engine 'vllm'", "; ".join(each["msg"] for each in error.errors())) from error
        if isinstance(error, TypeError):
            raise ConfigError("engine 'vllm'", str(error), "options that this version of vLLM knows") from error
        reason = f"{type(error).__name__}: {error}"
        raise EngineError("engine 'vllm'", f"{reason}. {vllm_model.last_words(log)}") from error
