"""What is asked of a server that speaks OpenAI's protocol, and what its answers say: tokens, times, failures.

Answers are streamed as server-sent events. Tokens are counted from their ids where the server returns them, else one
for each event; the server's own count comes at the end, and the two must agree.

References
----------
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from inference_energy.config import Setting
from inference_energy.measure.client import Exchange, Pass, content_length
from inference_energy.records import Requests, RunWarning

#: What each server understands beyond the protocol: the length asked for is kept, tokens come with their ids.
_EXTRAS: dict[str, dict[str, object]] = {
    "vllm": {"ignore_eos": True, "return_token_ids": True},
    "sglang": {"ignore_eos": True},
    "tgi": {},
    "openai": {},
}
_KNOWS_MIN_TOKENS = ("vllm", "sglang")

#: Median lateness beyond which arrivals are not those that were planned; a burst takes some time to leave.
LATE_MAX_S, LATE_BURST_MAX_S = 1e-3, 10e-3


def http_request(method: str, path: str, host: str, body: bytes = b"", key: str | None = None) -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Accept: */*"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def body(
    levels: Setting, served_model: str, dialect: str, prompt: Sequence[int] | str, n_output_tokens: int, seed: int
) -> bytes:
    """JSON that asks for `n_output_tokens` tokens after `prompt` (token ids, or text where a server takes no ids)."""
    asked: dict[str, Any] = {
        "model": served_model,
        "prompt": prompt,
        "max_tokens": n_output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0 if levels.decoding == "greedy" else levels.sampling_temperature or 1.0,
        **_EXTRAS[dialect],
    }
    if levels.decoding != "greedy":
        asked["seed"] = seed
    if levels.top_p is not None:
        asked["top_p"] = levels.top_p
    if levels.top_k is not None:
        asked["top_k"] = levels.top_k
    if dialect in _KNOWS_MIN_TOKENS:
        asked["min_tokens"] = n_output_tokens
    return json.dumps(asked, separators=(",", ":")).encode()


# --- reading answers -----------------------------------------------------------------------------


class _Answer:
    """What one exchange brought, read from its pieces."""

    def __init__(self, exchange: Exchange) -> None:
        self.first_token_s: float | None = None
        self.n_ids, self.n_events = 0, 0
        self.counts_ids = False
        self.n_reported: int | None = None
        self.n_input_reported: int | None = None
        self.wrong: str | None = None
        done = False
        for time_s, event in _events(exchange, self):
            if event == b"[DONE]":
                done = True
                continue
            self._read(time_s, event)
            if self.wrong:
                return
        if self.wrong is None and exchange.failure is None and not done:
            self.wrong = "the stream has no [DONE]"

    @property
    def n_counted(self) -> int:
        """Tokens received: ids where the server returns them, else events with text."""
        return self.n_ids if self.counts_ids else self.n_events

    def _read(self, time_s: float, event: bytes) -> None:
        try:
            content = json.loads(event)
            if "error" in content:
                error = content["error"]
                self.wrong = f"error in the stream: {error.get('message', error) if isinstance(error, dict) else error}"
                return
            for choice in content["choices"]:
                ids = choice.get("token_ids")
                self.counts_ids |= ids is not None
                self.n_ids += len(ids or ())
                self.n_events += bool(ids or choice["text"] or choice.get("finish_reason") is None)
                if self.first_token_s is None and (ids or choice["text"]):
                    self.first_token_s = time_s
            usage = content.get("usage")
            if usage is not None:
                self.n_reported, self.n_input_reported = int(usage["completion_tokens"]), int(usage["prompt_tokens"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.wrong = f"not a completion ({type(error).__name__}: {error}): {_start(event)}"


def _events(exchange: Exchange, answer: _Answer) -> Iterator[tuple[float, bytes]]:
    """Every event's data with the time at which it was complete; notes in `answer` what is no stream of events."""
    if not exchange.pieces:
        return
    raw = b"".join(piece for _, piece in exchange.pieces)
    end = raw.find(b"\r\n\r\n")
    head = raw[: max(end, 0)]
    if not head.startswith(b"HTTP/1.1 "):
        answer.wrong = None if exchange.failure and end < 0 else f"no HTTP/1.1: {_start(raw)}"
        return
    if head[9:12] != b"200":
        status = head[9:].partition(b"\r\n")[0].decode(errors="replace")
        answer.wrong = f"status {status}: {_start(raw[end + 4 :])}"
        return
    if content_length(head.lower()) is not None or b"text/event-stream" not in head.lower():
        answer.wrong = f"no stream of events: {_start(raw[end + 4 :])}"
        return
    rest = b""
    for time_s, data in _chunks(exchange, end + 4, raw, answer):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield time_s, line[5:].strip()


def _chunks(exchange: Exchange, position: int, raw: bytes, answer: _Answer) -> Iterator[tuple[float, bytes]]:
    """The chunks of a body that are complete, each with the time at which its last byte came."""
    arrived = iter(exchange.pieces)
    time_s, n_arrived = 0.0, 0
    while (line_end := raw.find(b"\r\n", position)) >= 0:
        try:
            size = int(raw[position:line_end].partition(b";")[0], 16)
        except ValueError:
            answer.wrong = f"no chunk of a stream: {_start(raw[position:])}"
            return
        start = line_end + 2
        if size == 0 or start + size > len(raw):
            return
        position = start + size + 2
        while n_arrived < start + size:
            time_s, piece = next(arrived)
            n_arrived += len(piece)
        yield time_s, raw[start : start + size]


def _start(content: bytes) -> str:
    return content[:200].decode(errors="replace").strip()


def requests_of(done: Pass, n_input_tokens: Sequence[int], n_tokens_requested: Sequence[int]) -> Requests:
    """What became of every request of a pass; times on the host's monotonic clock."""
    columns: dict[str, list[Any]] = {name: [] for name in _READ}
    for exchange, n_input, n_requested in zip(done.exchanges, n_input_tokens, n_tokens_requested, strict=True):
        answer = _Answer(exchange)
        outcome, detail = _outcome(exchange, answer, n_requested)
        if outcome == "ok" and answer.n_input_reported not in (None, n_input):
            detail = f"the server counted {answer.n_input_reported} input tokens"
        row = (answer.first_token_s, answer.n_counted, answer.n_reported, outcome, detail)
        for name, value in zip(_READ, row, strict=True):
            columns[name].append(value)
    return Requests(
        scheduled_s=[exchange.scheduled_s for exchange in done.exchanges],
        sent_s=[exchange.sent_s for exchange in done.exchanges],
        ended_s=[exchange.ended_s for exchange in done.exchanges],
        n_input_tokens=list(n_input_tokens),
        n_tokens_requested=list(n_tokens_requested),
        client_cpu_s=done.cpu_s,
        client_wall_s=done.wall_s,
        **columns,
    )


_READ = ("first_token_s", "n_tokens_counted", "n_tokens_reported", "outcome", "detail")


def _outcome(exchange: Exchange, answer: _Answer, n_requested: int) -> tuple[str, str | None]:
    if answer.wrong is not None:
        return "wrong_answer", answer.wrong
    if exchange.failure is not None:
        return exchange.failure, f"after {answer.n_counted} tokens" if answer.n_counted else None
    # An event may hold several tokens: where ids are missing, the server's own count is the better one.
    n = answer.n_counted if answer.counts_ids or answer.n_reported is None else answer.n_reported
    if n == n_requested:
        return "ok", None
    return "too_few_tokens" if n < n_requested else "too_many_tokens", f"{n} tokens instead of {n_requested}"


# --- of all requests of a run --------------------------------------------------------------------


def n_answered(requests: Requests) -> int:
    """Tokens that came: all of an answer as long as asked for, whose events may hold several, else those counted."""
    rows = zip(requests.outcome, requests.n_tokens_requested, requests.n_tokens_counted, strict=True)
    return sum(requested if outcome == "ok" else counted for outcome, requested, counted in rows)


def joined(passes: Sequence[Requests]) -> Requests:
    """The requests of several passes, one after the other."""
    first = passes[0].model_dump()
    together = {
        name: [value for one in passes for value in getattr(one, name)]
        if isinstance(values, list)
        else sum(getattr(one, name) for one in passes)
        for name, values in first.items()
    }
    return Requests(**together)


def requests_warnings(requests: Requests) -> list[RunWarning]:
    """What a reader should know of a run's requests."""
    n = len(requests.outcome)
    found = []
    failed = [outcome for outcome in requests.outcome if outcome != "ok"]
    if failed:
        kinds = ", ".join(f"{failed.count(kind)} {kind}" for kind in sorted(set(failed)))
        example = next(
            (
                detail
                for outcome, detail in zip(requests.outcome, requests.detail, strict=True)
                if outcome != "ok" and detail
            ),
            None,
        )
        found.append(
            RunWarning(
                code="requests_failed",
                value=float(len(failed)),
                detail=f"of {n} requests: {kinds}" + (f"; such as: {example}" if example else ""),
            )
        )
    pairs = zip(requests.n_tokens_counted, requests.n_tokens_reported, requests.outcome, strict=True)
    n_disagree = sum(outcome == "ok" and reported != counted for counted, reported, outcome in pairs)
    if n_disagree:
        found.append(
            RunWarning(
                code="token_counts_disagree",
                value=float(n_disagree),
                detail=f"of {n} requests: the server reports other counts than ours, or none",
            )
        )
    late_s = [sent - planned for sent, planned in zip(requests.sent_s, requests.scheduled_s, strict=True) if sent]
    if late_s:
        gaps_s = [b - a for a, b in zip(requests.scheduled_s, requests.scheduled_s[1:], strict=False)]
        limit_s = LATE_MAX_S if gaps_s and statistics.median(gaps_s) > 0 else LATE_BURST_MAX_S
        median_s = statistics.median(late_s)
        if median_s > limit_s:
            found.append(
                RunWarning(
                    code="late_arrivals",
                    value=median_s,
                    detail=f"median lateness in s; at most {limit_s:g} s was expected",
                )
            )
    return found
