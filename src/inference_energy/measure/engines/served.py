"""What engines behind HTTP share: a setting's requests to a server that is there, and what its gauges say.

Weights are random and never stop by themselves: each request asks for exactly as many tokens as its prompt's length
says, and what comes back is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import EngineError
from inference_energy.measure.arrivals import planned_s
from inference_energy.measure.client import Exchange, OpenLoopClient
from inference_energy.measure.completions import body, http_request, joined, n_answered, requests_of
from inference_energy.measure.engines import Generated, Observations
from inference_energy.measure.serving import get
from inference_energy.measure.workload import N_WARM_UP_REQUESTS, Prompts, rows
from inference_energy.records import EngineFacts, EngineSamples, Requests

#: How often a server is asked for its gauges, in seconds.
POLL_PERIOD_S = 0.25
#: The same gauge has other names in other servers and versions.
_GAUGES: dict[str, tuple[str, ...]] = {
    "n_running": ("vllm:num_requests_running", "sglang:num_running_reqs", "tgi_batch_current_size"),
    "n_waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"),
    "kv_cache_fraction": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "n_preemptions": ("vllm:num_preemptions_total", "sglang:num_retracted_reqs"),
}


class ServedEngine:
    """Sends a setting's requests to a server that is there; its two kinds differ in how it comes to be there.

    Parameters
    ----------
    levels : Setting
        What to run.
    facts : ModelFacts
        Of the model that the server holds.
    seed : int
        The campaign's: of arrivals and sampling.
    """

    name: Literal["vllm_server", "endpoint"]
    dialect: str
    served_model: str
    answer_timeout_s: float = 600.0
    key: str | None = None

    def __init__(self, levels: Setting, facts: ModelFacts, seed: int) -> None:
        self._levels, self._facts, self._seed = levels, facts, seed
        self._client: OpenLoopClient | None = None
        self._host, self._port = "", 0
        self._passes: list[Requests] = []
        self._samples: list[tuple[float, dict[str, float]]] = []

    def take(self, levels: Setting, prompts: Prompts) -> None:
        """Answer these prompts from now on; requests are written out here, not while they are measured."""
        self._levels = levels
        self._prompts: list[list[int]] = rows(prompts, np.arange(len(prompts.token_ids)))
        self._n_asked: list[int] = prompts.n_output_tokens.tolist()
        self._payloads = self._written(self._n_asked)
        self._passes, self._samples = [], []
        self._n_preemptions_before = self._gauges().get("n_preemptions", 0.0)

    def prime(self, n_tokens: int) -> None:
        """A few tokens for each of the first requests."""
        asked = [min(n_tokens, n) for n in self._n_asked[:N_WARM_UP_REQUESTS]]  # room is for the longest answer
        self._answered(self._written(asked), [0.0] * len(asked), asked)

    def forward_passes(self, n: int) -> None:
        """`n` answers of one token to the first prompt, one by one."""
        for _ in range(n):
            self._answered(self._written([1]), [0.0], [1])

    def iterate(self, *, waiting: bool) -> Generated:
        """Send requests and count what comes back: a whole pass as it was planned, or a burst to warm up.

        Raises
        ------
        EngineError
            If every request failed, or the server ended.
        """
        if waiting:
            planned = planned_s(self._levels, self._seed, len(self._passes)).tolist()
            requests = self._answered(self._payloads, planned, self._n_asked, measured=True)
            self._passes.append(requests)
        else:
            n = min(N_WARM_UP_REQUESTS, len(self._prompts))
            requests = self._answered(self._payloads[:n], [0.0] * n, self._n_asked[:n])
        n_tokens = n_answered(requests)
        return Generated(n_tokens, n_tokens)

    def observations(self) -> Observations:
        """Facts, queues over time and all requests of the measured passes."""
        now = self._gauges().get("n_preemptions")
        n_preemptions = None if now is None else int(now - self._n_preemptions_before)
        return Observations(
            self.facts().model_copy(update={"n_preemptions": n_preemptions}),
            _samples_of(self._samples),
            joined(self._passes) if self._passes else None,
        )

    def device_uuids(self) -> list[str]:
        """Empty: a server does not say where it works."""
        return []

    def memory_peak_bytes(self) -> list[int]:
        """Empty: a server does not say."""
        return []

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def facts(self) -> EngineFacts:
        """What the server says of itself."""
        raise NotImplementedError

    def require_alive(self) -> None:
        """Raise what ended the server if it has ended and that can be known; asked whenever a connection fails."""

    def require_healthy(self) -> None:
        """Raise also if it is about to end or does not answer any more; asked after a pass with such failures."""

    def _reach(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._client = OpenLoopClient(host, port, self.answer_timeout_s, self.require_alive)

    def _written(self, n_output_tokens: Sequence[int]) -> list[bytes]:
        """HTTP requests for the first prompts, one for each number of tokens."""
        return [
            http_request(
                "POST",
                "/v1/completions",
                self.name,  # no server here looks at the host's name
                body(self._levels, self.served_model, self.dialect, self._prompt(ids), n, self._seed + row),
                self.key,
            )
            for row, (ids, n) in enumerate(zip(self._prompts, n_output_tokens, strict=False))
        ]

    def _prompt(self, ids: list[int]) -> list[int] | str:
        return ids

    def _answered(
        self, payloads: list[bytes], planned: list[float], n_asked: list[int], *, measured: bool = False
    ) -> Requests:
        if self._client is None:
            raise EngineError(self.name, "is asked before it was loaded", "load() first")
        if planned[-1] == 0.0:  # a burst must not wait for connections
            self._client.connect(len(payloads))
        poll = http_request("GET", "/metrics", self.name, key=self.key) if measured else None
        done = self._client.run(payloads, planned, poll, POLL_PERIOD_S)
        n_input = [len(ids) for ids in self._prompts[: len(payloads)]]
        requests = requests_of(done, n_input, n_asked)
        if any(outcome != "ok" for outcome in requests.outcome):  # an engine that died may still answer, with errors
            self.require_healthy()
        if "ok" not in requests.outcome:
            kinds = ", ".join(sorted(set(requests.outcome)))
            example = next((detail for detail in requests.detail if detail), "nothing more is known")
            raise EngineError(
                f"{self.name} at {self._host}:{self._port}",
                f"all {len(payloads)} requests failed ({kinds}): {example}",
                "answers of the length asked for",
                "Try the server by hand, and see whether measurement.endpoint names its dialect",
            )
        self._samples += [sample for exchange in done.polls if (sample := _sample(exchange)) is not None]
        return requests

    def _gauges(self) -> dict[str, float]:
        answer = get(self._host, self._port, "/metrics", 10.0, self.key) if self._client else None
        return {} if answer is None or answer[0] != 200 else gauges(answer[1])


def gauges(text: str) -> dict[str, float]:
    """The gauges that we know in a Prometheus text; several engines of one server add up."""
    found = {}
    for quantity, names in _GAUGES.items():
        values = re.findall(rf"^(?:{'|'.join(names)})(?:\{{.*\}})? (\S+)", text, re.MULTILINE)
        if values:
            found[quantity] = sum(map(float, values))
    return found


def _sample(exchange: Exchange) -> tuple[float, dict[str, float]] | None:
    if exchange.ended_s is None or exchange.failure is not None:
        return None
    found = gauges(b"".join(piece for _, piece in exchange.pieces).decode(errors="replace"))
    return (exchange.ended_s, found) if {"n_running", "n_waiting"} <= set(found) else None


def _samples_of(samples: list[tuple[float, dict[str, float]]]) -> EngineSamples | None:
    if not samples:
        return None
    return EngineSamples(
        time_s=[time_s for time_s, _ in samples],
        n_running=[found["n_running"] for _, found in samples],
        n_waiting=[found["n_waiting"] for _, found in samples],
        kv_cache_fraction=[found.get("kv_cache_fraction") for _, found in samples],
    )


def json_of(answer: tuple[int, str] | None) -> dict[str, Any]:
    """The object in an answer; empty where there is none."""
    if answer is None or answer[0] != 200:
        return {}
    try:
        content = json.loads(answer[1])
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
