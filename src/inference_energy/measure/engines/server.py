"""Servers that speak OpenAI's protocol: vLLM's own as a subprocess, or one that somebody else started."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from inference_energy.config import Endpoint, ModelFacts, Setting
from inference_energy.errors import ConfigError
from inference_energy.measure.engines import Generated, vllm_model
from inference_energy.measure.engines.served import ServedEngine, json_of
from inference_energy.measure.serving import HOST, Server, get, post
from inference_energy.measure.workload import FIRST_RANDOM_ID, Prompts
from inference_energy.records import EngineFacts, write_text_atomically

#: Longest start of vLLM's server: fetching weights, loading the largest model, compiling.
START_TIMEOUT_S = 1800.0
#: More than any answer has: vLLM sends the first token at once and then as many together.
STREAM_INTERVAL_TOKENS = 1_000_000
#: SOURCE: vllm.config.compilation: CompilationMode
_COMPILATION = {0: "NONE", 1: "STOCK_TORCH_COMPILE", 2: "DYNAMO_TRACE_ONCE", 3: "VLLM_COMPILE"}
#: What only the server needs. Its development mode lets us ask for its configuration and its workers' GPUs.
_ENVIRONMENT: dict[str, str | None] = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
    "VLLM_LOGGING_CONFIG_PATH": None,  # of the offline engine: it would write into our process
    "VLLM_ENABLE_V1_MULTIPROCESSING": None,
}


class VllmServerEngine(ServedEngine):
    """vLLM's own server as a subprocess, with the options of the offline engine.

    Parameters
    ----------
    levels, facts, seed
        As of :class:`ServedEngine`; how to start it, the workload comes with `take`.
    device : {"cuda", "cpu"}
        Where to run.
    context_tokens : int
        The longest prompt and its answer together, over all that the server is to answer.
    """

    name = "vllm_server"
    dialect = "vllm"

    def __init__(self, levels: Setting, facts: ModelFacts, seed: int, device: str, context_tokens: int) -> None:
        super().__init__(levels, facts, seed)
        self._start, self._device, self._context_tokens = levels, device, context_tokens
        given = vllm_model.options(levels, facts, seed, device, context_tokens)
        # A server turns ids into text, and sends the first token at once and all others together at the end: what is
        # sent for each token would cost the machine more than the tokens of a small model.
        self._options = {name: value for name, value in given.items() if name != "skip_tokenizer_init"}
        self._options |= {"stream_interval": STREAM_INTERVAL_TOKENS}
        self.served_model = f"study-{os.urandom(6).hex()}"
        self._server: Server | None = None
        self._started: dict[str, Any] = {}

    def load(self) -> None:
        """Start it and wait until it is healthy; it ends with this process, however that ends.

        Raises
        ------
        ConfigError
            If vLLM is not installed.
        OutOfDeviceMemory
            If it does not fit the device.
        EngineError
            If it does not start.
        """
        if importlib.util.find_spec("vllm") is None:
            raise vllm_model.missing(self.name, "vLLM is not installed")
        vllm_model.prepare_environment(self._start, self._device)
        if self._start.weights == "random":
            write_tokenizer(Path(self._options["model"]), int(self._facts.shape["vocab_size"]))
        began_s = time.monotonic()
        self._server = Server(self._command, self.served_model, _ENVIRONMENT, START_TIMEOUT_S)
        self._server.start()
        self._reach(HOST, self._server.port)
        self._started = self._facts_at_start(time.monotonic() - began_s)

    def _command(self, port: int) -> list[str]:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", HOST, "--port", str(port)]
        command += ["--served-model-name", self.served_model, "--worker-extension-cls", vllm_model.WORKER_EXTENSION]
        command += ["--disable-uvicorn-access-log"]
        for name, value in self._options.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                command.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                command += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
        return command

    def _facts_at_start(self, start_s: float) -> dict[str, Any]:
        config = json_of(get(HOST, self._port, "/server_info?config_format=json", 60.0)).get("vllm_config", {})
        cache = _labels(get(HOST, self._port, "/metrics", 10.0), "vllm:cache_config_info")
        scheduler, model, compilation = (
            config.get(f"{part}_config", {}) for part in ("scheduler", "model", "compilation")
        )
        log = self._server.log() if self._server is not None else ""
        quantisation = model.get("quantization")
        mode = _COMPILATION.get(compilation.get("mode"), "NONE")
        graph_mode = _graph_mode(compilation.get("cudagraph_mode"))
        return {
            "version": json_of(get(HOST, self._port, "/version", 10.0)).get("version"),
            "graph_mode": graph_mode,
            "n_graph_sizes": 0 if graph_mode == "NONE" else len(compilation.get("cudagraph_capture_sizes") or ()),
            "attention_backend": next(iter(self._ask("study_attention_backend")), None),
            "quantisation": ", ".join([quantisation, *vllm_model.kernels(log)]) if quantisation else None,
            "n_kv_blocks": _whole(cache.get("num_gpu_blocks")),
            "n_tokens_per_kv_block": _whole(cache.get("block_size")),
            "n_sequences_max": scheduler.get("max_num_seqs"),
            "n_step_tokens_max": scheduler.get("max_num_batched_tokens"),
            "n_context_tokens_max": model.get("max_model_len"),
            "compile_cache": vllm_model.compile_cache(log, mode),
            "start_parts_s": {"start": start_s, **vllm_model.start_parts_s(log)},
        }

    def take(self, levels: Setting, prompts: Prompts) -> None:
        """Answer these prompts from now on, with nothing of earlier ones in the prefix cache.

        Raises
        ------
        ConfigError
            If a prompt and its answer are longer than what the server was started for.
        """
        vllm_model.require_room(self.name, prompts, self._context_tokens)
        super().take(levels, prompts)
        if self._client is not None:
            post(self._host, self._port, "/reset_prefix_cache", {}, 30.0)

    def facts(self) -> EngineFacts:
        """As it said when it was healthy."""
        options = {name: value for name, value in self._options.items() if name != "model"}
        return EngineFacts(name="vllm_server", options=options, n_preemptions=None, **self._started)

    def device_uuids(self) -> list[str]:
        """Of every worker's GPU, in order."""
        return self._ask("study_device_uuid")

    def memory_peak_bytes(self) -> list[int]:
        """Of every worker's GPU, in order; empty once the server was ended."""
        return [int(peak) for peak in self._ask("study_memory_peak_bytes")]

    def _ask(self, method: str) -> list[str]:
        """What every worker answers."""
        if self._client is None:
            return []
        answer = json_of(post(self._host, self._port, "/collective_rpc", {"method": method}, 60.0))
        return [result for result in answer.get("results", []) if result is not None]

    def require_alive(self) -> None:
        """Raise what ended the server, if it has ended."""
        if self._server is not None:
            self._server.require_alive()

    def require_healthy(self) -> None:
        """Raise what ended the server, or that it does not answer any more."""
        if self._server is not None:
            self._server.require_healthy()

    def close(self) -> None:
        """End the server and everything that it started."""
        super().close()
        if self._server is not None:
            self._server.close()
            self._server = None


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Give a model without a vocabulary one: token number i is the word ``t<i>``."""
    if (folder / "tokenizer_config.json").exists():
        return
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab_size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_text_atomically(folder / "tokenizer.json", tokenizer.to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "t0"}
    write_text_atomically(folder / "tokenizer_config.json", json.dumps(config))


def _labels(answer: tuple[int, str] | None, metric: str) -> dict[str, str]:
    """Labels of a Prometheus metric that says all in them."""
    found = re.search(rf"^{metric}\{{(.*)\}} ", answer[1] if answer else "", re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', found[1])) if found else {}


def _graph_mode(value: object) -> str | None:
    """Name of a mode of CUDA graphs, which is a number, or two: for decoding alone and for mixed steps."""
    names = {0: "NONE", 1: "PIECEWISE", 2: "FULL"}
    if isinstance(value, list):
        return {(2, 0): "FULL_DECODE_ONLY", (2, 1): "FULL_AND_PIECEWISE"}.get(tuple(value))
    return names.get(value) if isinstance(value, int) else None if value is None else str(value)


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


class EndpointEngine(ServedEngine):
    """A server that somebody else started on this machine; energy comes from the meter, tokens from its answers.

    Parameters
    ----------
    levels, facts, seed
        As of :class:`ServedEngine`.
    endpoint : Endpoint
        ``measurement.endpoint`` of the campaign.
    """

    name = "endpoint"

    def __init__(self, levels: Setting, facts: ModelFacts, seed: int, endpoint: Endpoint | None) -> None:
        super().__init__(levels, facts, seed)
        if endpoint is None:
            raise ConfigError("measurement.endpoint", "is null", "a url and a served_model for the engine 'endpoint'")
        self._endpoint = endpoint
        self._first_tokens = np.random.default_rng()
        self.dialect, self.served_model = endpoint.dialect, endpoint.served_model
        self.answer_timeout_s = endpoint.answer_timeout_s
        self._tokenizer: Any = None
        if endpoint.key_variable is not None:
            self.key = os.environ.get(endpoint.key_variable)
            if self.key is None:
                raise ConfigError(
                    "measurement.endpoint.key_variable", f"{endpoint.key_variable} is not set", "the server's API key"
                )

    def load(self) -> None:
        """See that it is there and holds the model.

        Raises
        ------
        ConfigError
            If nobody answers, or the model has another name: no setting is to blame for that.
        """
        parts = urlsplit(self._endpoint.url)
        try:
            self._reach(socket.gethostbyname(parts.hostname or ""), parts.port or 80)
        except OSError as error:
            raise ConfigError("measurement.endpoint.url", f"{self._endpoint.url}: {error}", "a host's name") from error
        served = get(self._host, self._port, "/v1/models", 30.0, self.key)
        where = f"endpoint {self._endpoint.url}"
        if served is None or served[0] != 200:
            found = "nobody answers" if served is None else f"GET /v1/models gives status {served[0]}"
            raise ConfigError(where, found, "a server that speaks OpenAI's protocol", "Start it, or correct the url")
        try:
            known = [str(model["id"]) for model in json.loads(served[1])["data"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(where, "GET /v1/models gives no list of models", "OpenAI's protocol") from error
        if self.served_model not in known:
            raise ConfigError(where, f"serves {', '.join(known)}", f"{self.served_model} (served_model)")

    def iterate(self, *, waiting: bool) -> Generated:
        """See :meth:`ServedEngine.iterate`; the next pass has prompts that no cache of the server's holds."""
        generated = super().iterate(waiting=waiting)
        self._payloads = self._written(self._n_asked)
        return generated

    def facts(self) -> EngineFacts:
        """Little is known of it."""
        options = {"url": self._endpoint.url, "dialect": self.dialect, "served_model": self.served_model}
        version = get(self._host, self._port, "/version", 10.0, self.key)
        found = json_of(version).get("version")
        return EngineFacts.sparse("endpoint", version=str(found) if found else None, options=options)

    def _prompt(self, ids: list[int]) -> list[int] | str:
        """A prompt that the server has not seen; as text for Text Generation Inference, by the model's own tokenizer.

        Servers keep what prompts begin with, and longer than a campaign lasts. The first token is thus drawn anew each
        time, and not from the seed: everything behind another token is another beginning.
        """
        if self._levels.prefix_caching == "off":
            first = int(self._first_tokens.integers(FIRST_RANDOM_ID, int(self._facts.shape["vocab_size"])))
            ids = [first, *ids[1:]]
        if self.dialect != "tgi":
            return ids
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            name, revision = self._facts.hub_identity()
            self._tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        return str(self._tokenizer.decode(ids))
