"""The open-loop client: what it sends and when, what it counts, and what it says of answers that went wrong."""

from __future__ import annotations

import json
import re
import socket
import statistics
from typing import Any

import pytest
from scripted_server import Script, serving

from inference_energy.config import Setting
from inference_energy.measure.client import Exchange, OpenLoopClient, Pass
from inference_energy.measure.completions import (
    body,
    http_request,
    joined,
    requests_of,
    requests_warnings,
)
from inference_energy.measure.engines import Observations
from inference_energy.measure.engines.served import gauges
from inference_energy.measure.serving import free_port
from inference_energy.records import EngineFacts, Requests

HOST = "127.0.0.1"


def _levels(**levels: Any) -> Setting:
    asked = {"engine": "vllm_server", "arrival": "burst", "batch_size": 1, "n_prompts": 3}
    return Setting(model="tiny-llama", **(asked | levels))


def _payload(n_tokens: int = 5, n_input: int = 3, dialect: str = "vllm") -> bytes:
    asked = body(_levels(), "scripted", dialect, list(range(n_input)), n_tokens, 7)
    return http_request("POST", "/v1/completions", "test", asked)


def _run(port: int, planned_s: list[float], payload: bytes, n_tokens: int = 5, timeout_s: float = 10.0) -> Requests:
    client = OpenLoopClient(HOST, port, timeout_s)
    try:
        done = client.run([payload] * len(planned_s), planned_s)
    finally:
        client.close()
    return requests_of(done, [3] * len(planned_s), [n_tokens] * len(planned_s))


def _times(values: list[float | None]) -> list[float]:
    assert None not in values
    return [float(value) for value in values if value is not None]


# --- what is sent --------------------------------------------------------------------------------


def test_a_request_asks_for_exactly_the_length_and_for_the_decoding_of_its_setting() -> None:
    greedy = json.loads(body(_levels(), "m", "vllm", [5, 6], 9, 7))
    drawn = json.loads(body(_levels(decoding="top_p", top_p=0.9, sampling_temperature=0.7), "m", "openai", "hi", 9, 7))

    assert greedy == {
        "model": "m",
        "prompt": [5, 6],
        "max_tokens": 9,
        "min_tokens": 9,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
    }
    assert drawn == {
        "model": "m",
        "prompt": "hi",
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
    }


def test_requests_leave_at_their_times_although_none_is_answered_yet() -> None:
    planned_s = [0.0, 0.02, 0.03, 0.08]
    with serving(Script(first_s=0.15, rest_s=0.05)) as port:
        requests = _run(port, planned_s, _payload())

    zero_s = requests.scheduled_s[0]
    assert [time_s - zero_s for time_s in requests.scheduled_s] == pytest.approx(planned_s, abs=1e-9)
    sent, first, ended = map(_times, (requests.sent_s, requests.first_token_s, requests.ended_s))
    late_s = [sent_s - planned for sent_s, planned in zip(sent, requests.scheduled_s, strict=True)]
    assert min(late_s) >= 0
    assert statistics.median(late_s) < 0.01
    assert max(sent) < min(first)
    for sent_s, first_s, ended_s in zip(sent, first, ended, strict=True):
        assert 0.15 <= first_s - sent_s < 0.35
        assert 0.05 <= ended_s - first_s < 0.2
    assert requests.outcome == ["ok"] * 4
    assert requests.n_tokens_counted == requests.n_tokens_reported == [5] * 4


def test_connections_are_used_again_and_only_as_many_as_are_needed_at_a_time() -> None:
    script = Script()
    with serving(script) as port:
        one_by_one = _run(port, [0.05 * i for i in range(4)], _payload())
        n_one_by_one = script.n_connections
        _run(port, [0.0] * 4, _payload())

    assert one_by_one.outcome == ["ok"] * 4
    assert (n_one_by_one, script.n_connections - n_one_by_one) == (1, 4)


def test_a_connection_that_the_server_gave_up_is_replaced() -> None:
    script = Script(behaviour="hangs_up")
    with serving(script) as port:
        requests = _run(port, [0.0, 0.05, 0.1], _payload())

    assert requests.outcome == ["ok"] * 3
    assert script.n_connections == 3


def test_a_request_larger_than_what_a_connection_takes_at_once_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, write = OpenLoopClient._new, OpenLoopClient._write
    writes: list[Any] = []

    def narrow(client: OpenLoopClient) -> Any:
        connection = connect(client)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connection

    def noted(client: OpenLoopClient, connection: Any) -> None:
        writes.append(connection)
        write(client, connection)

    monkeypatch.setattr(OpenLoopClient, "_new", narrow)
    monkeypatch.setattr(OpenLoopClient, "_write", noted)
    script = Script()
    with serving(script) as port:
        requests = _run(port, [0.0], _payload(n_input=50_000))

    assert len(writes) > 1
    assert len(script.asked[0]["prompt"]) == 50_000
    assert requests.outcome == ["ok"]
    assert "50000 input tokens" in str(requests.detail[0])  # we said 3


def test_gauges_are_asked_for_meanwhile() -> None:
    with serving(Script(first_s=0.12)) as port:
        client = OpenLoopClient(HOST, port, 10.0)
        done = client.run([_payload()] * 2, [0.0, 0.0], http_request("GET", "/metrics", "test"), 0.05)
        client.close()

    found = [gauges(b"".join(piece for _, piece in poll.pieces).decode()) for poll in done.polls if poll.ended_s]
    assert len(found) >= 2
    assert found[-1] == {"n_running": 2.0, "n_waiting": 3.0, "kv_cache_fraction": 0.25, "n_preemptions": 2.0}


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "outcome", "n_counted", "detail"),
    [
        ("status_500", "wrong_answer", 0, "status 500 Internal Server Error: .*no luck today"),
        ("broken_json", "wrong_answer", 1, "not a completion"),
        ("error_event", "wrong_answer", 1, "the engine is gone"),
        ("no_done", "wrong_answer", 5, r"no \[DONE\]"),
        ("no_events", "wrong_answer", 0, "no stream of events"),
        ("whole", "wrong_answer", 0, "no stream of events"),
        ("cuts", "cut_off", 1, "after 1 tokens"),
        ("fewer", "too_few_tokens", 4, "4 tokens instead of 5"),
        ("more", "too_many_tokens", 6, "6 tokens instead of 5"),
    ],
)
def test_an_answer_that_is_wrong_is_told_apart(behaviour: str, outcome: str, n_counted: int, detail: str) -> None:
    with serving(Script(behaviour=behaviour, n_good=1)) as port:
        requests = _run(port, [0.0, 0.05], _payload())

    assert requests.outcome == ["ok", outcome]
    assert requests.n_tokens_counted == [5, n_counted]
    assert re.search(detail, str(requests.detail[1]))
    warning = requests_warnings(requests)[0]
    assert (warning.code, warning.value) == ("requests_failed", 1.0)


def test_a_server_that_is_not_there_and_one_that_is_too_slow() -> None:
    refused = _run(free_port(), [0.0, 0.01], _payload())
    with serving(Script(behaviour="hangs", n_good=1)) as port:
        slow = _run(port, [0.0, 0.02, 0.04], _payload(), timeout_s=0.15)

    assert refused.outcome == ["refused"] * 2
    assert refused.sent_s == [None, None]
    assert slow.outcome == ["ok", "timed_out", "timed_out"]
    for scheduled_s, ended_s in zip(slow.scheduled_s[1:], slow.ended_s[1:], strict=True):
        assert 0.15 <= ended_s - scheduled_s < 0.25  # type: ignore[operator]


def test_counts_that_disagree_are_a_warning_and_no_failure() -> None:
    with serving(Script(behaviour="misreports", n_good=2)) as port:
        requests = _run(port, [0.0, 0.01, 0.02], _payload())

    assert requests.outcome == ["ok"] * 3
    assert requests.n_tokens_counted == [5, 5, 5]
    assert requests.n_tokens_reported == [5, 5, 6]
    in_time = requests.model_copy(update={"sent_s": requests.scheduled_s})  # a busy machine would add another warning
    assert [(w.code, w.value) for w in requests_warnings(in_time)] == [("token_counts_disagree", 1.0)]


def test_without_ids_events_are_counted_and_the_server_says_how_long_the_answer_is() -> None:
    with serving(Script()) as port:
        requests = _run(port, [0.0], _payload(dialect="openai"))

    assert requests.outcome == ["ok"]
    assert requests.n_tokens_counted == [2]  # events: one token, then four together
    assert requests.n_tokens_reported == [5]
    assert [w.code for w in requests_warnings(requests)] == ["token_counts_disagree"]


# --- reading, by hand ----------------------------------------------------------------------------


def test_a_token_counts_from_when_its_chunk_was_whole() -> None:
    event = b'data: {"choices": [{"index": 0, "text": "a", "token_ids": [1]}]}\n\n'
    rest = b'data: {"choices": [{"index": 0, "text": "b", "token_ids": [2, 3]}]}\n\n'
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
    chunks = [b"%x\r\n" % len(data) + data + b"\r\n" for data in (event, rest, usage)]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [(1.0, head), (2.0, chunks[0][:20]), (3.0, chunks[0][20:] + chunks[1][:5])]
    pieces += [(4.0, chunks[1][5:] + chunks[2] + b"0\r\n"), (5.0, b"\r\n")]
    exchange = Exchange(0.5, b"", sent_s=0.75, pieces=pieces, ended_s=5.0)

    requests = requests_of(Pass([exchange], [], 0.125, 4.5), [4], [3])

    assert requests == Requests(
        scheduled_s=[0.5],
        sent_s=[0.75],
        first_token_s=[3.0],
        ended_s=[5.0],
        n_input_tokens=[4],
        n_tokens_requested=[3],
        n_tokens_counted=[3],
        n_tokens_reported=[3],
        outcome=["ok"],
        detail=[None],
        client_cpu_s=0.125,
        client_wall_s=4.5,
    )
    moved = Observations(EngineFacts.sparse("vllm"), None, joined([requests, requests])).shifted(0.25).requests
    assert moved is not None
    assert (moved.scheduled_s, moved.sent_s, moved.ended_s) == ([0.25, 0.25], [0.5, 0.5], [4.75, 4.75])
    assert (moved.client_cpu_s, moved.client_wall_s, moved.n_tokens_counted) == (0.25, 9.0, [3, 3])


@pytest.mark.parametrize(
    ("scheduled_s", "late_s", "expected_s"),
    [
        ([0.0, 0.1, 0.2], [0.0009, 0.0009, 0.5], None),
        ([0.0, 0.1, 0.2], [0.0, 0.0011, 0.0011], 0.0011),
        ([0.0, 0.0, 0.0], [0.001, 0.004, 0.009], None),
        ([0.0, 0.0, 0.0], [0.001, 0.011, 0.012], 0.011),
    ],
)
def test_arrivals_count_as_late_by_their_median(
    scheduled_s: list[float], late_s: list[float], expected_s: float | None
) -> None:
    sent_s = [10 + planned + late for planned, late in zip(scheduled_s, late_s, strict=True)]
    done = {"first_token_s": sent_s, "ended_s": sent_s, "outcome": ["ok"] * 3, "detail": [None] * 3}
    counts = dict.fromkeys(("n_input_tokens", "n_tokens_requested", "n_tokens_counted", "n_tokens_reported"), [1] * 3)
    planned = [10 + time_s for time_s in scheduled_s]
    requests = Requests(scheduled_s=planned, sent_s=sent_s, client_cpu_s=0.0, client_wall_s=1.0, **done, **counts)

    found = requests_warnings(requests)

    assert [w.code for w in found] == ([] if expected_s is None else ["late_arrivals"])
    assert not found or found[0].value == pytest.approx(expected_s, rel=1e-6)
