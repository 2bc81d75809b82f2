"""Servers as subprocesses, and engines behind HTTP: started, asked, ended, with every fault a server can show."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import scripted_server
from scripted_server import Script, serving

from inference_energy.config import Endpoint, ModelFacts, Setting, read_models
from inference_energy.errors import ConfigError, EngineError
from inference_energy.measure import serving as serving_module
from inference_energy.measure.engines import OutOfDeviceMemory, server as server_module
from inference_energy.measure.engines.served import gauges
from inference_energy.measure.engines.server import EndpointEngine, VllmServerEngine
from inference_energy.measure.serving import HOST, Server, get, processes_of
from inference_energy.measure.workload import Prompts, prompts_for

SCRIPT = str(Path(scripted_server.__file__))
MODELS = Path(__file__).parents[2] / "config" / "models.yaml"


def _command(behaviour: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, SCRIPT, str(port), "scripted", behaviour]


def _server(behaviour: str = "ok", timeout_s: float = 10.0) -> Server:
    return Server(_command(behaviour), "scripted", {}, timeout_s)


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pids: list[int], within_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while any(map(_is_there, pids)) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not any(map(_is_there, pids))


# --- the process ---------------------------------------------------------------------------------


def test_a_server_is_there_once_it_is_healthy_and_nothing_of_it_is_left_when_closed() -> None:
    server = _server("leaves")
    server.start()
    child = int(re.findall(r"child (\d+)", server.log())[0])
    ours = server.processes()
    answer = get(HOST, server.port, "/health", 1.0)

    assert answer == (200, "")
    assert len(ours) == 2  # the guardian and the server; the stubborn child has a session of its own
    assert _is_there(child)
    server.require_alive()

    server.close()

    assert not any(map(_is_there, [*ours, child]))
    assert server.processes() == []
    assert get(HOST, server.port, "/health", 1.0) is None


def test_nothing_is_left_if_the_measuring_process_is_killed() -> None:
    starts = (
        "import sys, time; from inference_energy.measure.serving import Server;"
        f"s = Server(lambda port: [sys.executable, {SCRIPT!r}, str(port), 'scripted', 'leaves'], 'scripted', {{}}, 20);"
        "s.start(); print(*s.processes(), s.log().split()[1], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True) as measuring:
        assert measuring.stdout is not None
        pids = [int(pid) for pid in measuring.stdout.readline().split()]
        there = [_is_there(pid) for pid in pids]
        os.kill(measuring.pid, signal.SIGKILL)

    assert there == [True] * 3
    assert _gone(pids)


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        ("never_healthy", EngineError, r"was not healthy within 1 s"),
        ("broken", EngineError, r"ended before it was healthy.*unrecognized arguments: --no-such-option"),
        ("out_of_memory", OutOfDeviceMemory, "CUDA out of memory"),
    ],
)
def test_a_server_that_does_not_start_says_why_and_is_gone(
    behaviour: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[int] = []
    start = subprocess.Popen

    def noted(*arguments: Any, **named: Any) -> Any:
        process = start(*arguments, **named)
        sessions.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", noted)
    server = _server(behaviour, timeout_s=1.0 if behaviour == "never_healthy" else 10.0)

    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        server.start()

    assert len(sessions) == 1
    assert processes_of(sessions[0]) == []


def test_another_port_is_tried_where_one_is_taken_and_then_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        number = taken.getsockname()[1]
        free = serving_module.free_port()
        ports = iter([number, free])
        monkeypatch.setattr(serving_module, "free_port", lambda: next(ports))
        server = _server()
        server.start()
        second = server.port
        server.close()
        monkeypatch.setattr(serving_module, "free_port", lambda: number)
        monkeypatch.setattr(serving_module, "_N_PORTS_TRIED", 2)
        with pytest.raises(EngineError, match=rf"2 ports taken, lastly {number}"):
            _server().start()

    assert second == free


def test_a_stranger_on_the_port_is_not_taken_for_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Script(name="a stranger")) as port:
        monkeypatch.setattr(serving_module, "free_port", lambda: port)
        monkeypatch.setattr(serving_module, "_N_PORTS_TRIED", 1)
        with pytest.raises(EngineError, match="ports taken"):
            _server().start()


# --- vLLM's server, played by the script ---------------------------------------------------------


@pytest.fixture
def facts() -> ModelFacts:
    return read_models(MODELS)["tiny-llama"]


def _levels(**levels: Any) -> Setting:
    asked: dict[str, Any] = {"engine": "vllm_server", "arrival": "fixed", "arrival_requests_per_s": 100.0}
    asked |= {"batch_size": 1, "n_prompts": 6, "n_input_tokens": 8, "n_output_tokens": 6, "precision": "float32"}
    return Setting(model="tiny-llama", **(asked | levels))


class _Played(VllmServerEngine):
    behaviour = "ok"

    def _command(self, port: int) -> list[str]:
        return [sys.executable, SCRIPT, str(port), self.served_model, self.behaviour]


@pytest.fixture
def played(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], _Played]]:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("inference_energy.measure.engines.server.vllm_model.prepare_environment", lambda *_: None)
    made: list[_Played] = []

    def make(behaviour: str) -> _Played:
        engine = _Played(_levels(), facts, 7, "cpu", 64)
        engine.behaviour = behaviour
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def _prompts(levels: Setting, facts: ModelFacts) -> Prompts:
    return prompts_for(levels, facts, 7)


def test_a_pass_is_measured_request_by_request(played: Callable[[str], _Played], facts: ModelFacts) -> None:
    levels = _levels(output_length_cv=0.5)
    prompts = _prompts(levels, facts)
    engine = played("ok")
    engine.load()
    engine.take(levels, prompts)
    engine.prime(2)
    warm = engine.iterate(waiting=False)
    passes = [engine.iterate(waiting=True) for _ in range(2)]
    observed = engine.observations()

    total = int(prompts.n_output_tokens.sum())
    assert total == 36
    assert [found.n_tokens for found in (warm, *passes)] == [total] * 3
    requests = observed.requests
    assert requests is not None
    assert requests.n_tokens_requested == requests.n_tokens_counted == 2 * prompts.n_output_tokens.tolist()
    assert requests.n_input_tokens == [8] * 12
    assert [b - a for a, b in zip(requests.scheduled_s[:6], requests.scheduled_s[1:6], strict=False)] == pytest.approx(
        [0.01] * 5
    )
    facts_found = observed.facts
    assert (facts_found.name, facts_found.version, facts_found.n_preemptions) == ("vllm_server", "1.2.3", 24)
    assert facts_found.options["stream_interval"] >= 1000  # type: ignore[operator]
    assert observed.samples is not None
    assert observed.samples.n_waiting[0] == 3.0
    assert observed.samples.kv_cache_fraction[0] == 0.25


def test_taking_other_prompts_begins_observations_anew(played: Callable[[str], _Played], facts: ModelFacts) -> None:
    engine = played("ok")
    engine.load()
    engine.take(_levels(), _prompts(_levels(), facts))
    engine.iterate(waiting=True)
    other = _levels(n_prompts=3)
    engine.take(other, _prompts(other, facts))
    engine.iterate(waiting=True)

    observed = engine.observations()

    assert observed.requests is not None
    assert len(observed.requests.outcome) == 3
    assert observed.facts.n_preemptions == 3
    with pytest.raises(ConfigError, match="64 at most"):
        engine.take(_levels(n_input_tokens=60), _prompts(_levels(n_input_tokens=60), facts))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("dies", "ended while it was needed.*gives up"),
        ("error_event", "does not answer any more"),  # its engine is gone, and it goes on with whole streams of errors
    ],
)
def test_a_server_that_dies_ends_the_run(
    played: Callable[[str], _Played], facts: ModelFacts, monkeypatch: pytest.MonkeyPatch, behaviour: str, words: str
) -> None:
    monkeypatch.setenv("SCRIPTED_N_GOOD", "8")
    engine = played(behaviour)
    engine.load()
    session = engine._server.processes()[0]  # type: ignore[union-attr]
    engine.take(_levels(), _prompts(_levels(), facts))
    engine.iterate(waiting=False)

    with pytest.raises(EngineError, match=re.compile(words, re.DOTALL)):
        engine.iterate(waiting=True)

    engine.close()
    assert processes_of(session) == []


def test_priming_asks_for_no_more_than_there_is_room_for(played: Callable[[str], _Played], facts: ModelFacts) -> None:
    engine = played("ok")
    engine.load()
    engine.take(_levels(n_output_tokens=1), _prompts(_levels(n_output_tokens=1), facts))
    asked: list[int] = []
    written = engine._written
    engine._written = lambda n: asked.extend(n) or written(n)  # type: ignore[method-assign, func-returns-value]
    engine.prime(8)
    assert asked == [1] * 6


def test_the_command_line_has_the_options_of_the_offline_engine(
    facts: ModelFacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    levels = _levels(prefill="chunked", prefill_chunk_tokens=256, n_sequences_max=4)
    command = VllmServerEngine(levels, facts, 7, "cuda", 64)._command(8123)

    line = " ".join(command)
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    for part in (
        "--port 8123",
        "--enforce-eager",
        "--enable-chunked-prefill",
        "--no-enable-prefix-caching",
        "--max-num-batched-tokens 256",
        "--max-num-seqs 4",
        "--max-model-len 64",
        "--gpu-memory-utilization 0.9",
        "--dtype float32",
    ):
        assert part in line
    assert "tokenizer-init" not in line


def test_vllm_that_is_not_installed_is_named_with_its_extra(
    facts: ModelFacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vLLM is not installed.*inference-energy\[gpu\]"):
        VllmServerEngine(_levels(), facts, 7, "cpu", 64).load()


# --- an endpoint ---------------------------------------------------------------------------------


def _endpoint(port: int, **changes: Any) -> Endpoint:
    return Endpoint(url=f"http://localhost:{port}", **({"served_model": "scripted", "dialect": "vllm"} | changes))


def test_an_endpoint_answers_like_a_server_of_ours(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    levels = _levels(engine="endpoint")
    script = Script()
    with serving(script) as port:
        engine = EndpointEngine(levels, facts, 7, _endpoint(port, key_variable="SOME_KEY"))
        engine.load()
        engine.take(levels, _prompts(levels, facts))
        found = engine.iterate(waiting=True)
        observed = engine.observations()
        engine.close()

    assert found.n_tokens == 36
    assert observed.requests is not None
    assert observed.requests.outcome == ["ok"] * 6
    assert (observed.facts.name, observed.facts.version) == ("endpoint", "1.2.3")
    assert all("Authorization: Bearer secret" in head for head in script.heads)


def test_an_endpoint_never_sees_the_same_prompt_twice_unless_its_cache_is_the_question(facts: ModelFacts) -> None:
    for caching, n_different in (("off", 12), ("on", 6)):
        levels = _levels(engine="endpoint", prefix_caching=caching)
        script = Script()
        with serving(script) as port:
            engine = EndpointEngine(levels, facts, 7, _endpoint(port))
            engine.load()
            engine.take(levels, _prompts(levels, facts))
            for _ in range(2):
                engine.iterate(waiting=True)
            engine.close()
        asked = [tuple(one["prompt"]) for one in script.asked]
        assert len(asked) == 12
        assert len(set(asked)) == n_different
        assert len({prompt[1:] for prompt in asked}) == 6


def test_tokens_of_an_endpoint_that_names_no_ids_are_those_asked_for_if_the_answer_is_that_long(
    facts: ModelFacts,
) -> None:
    """Events hold several tokens: the server's own count says that each answer has the length asked for."""
    levels = _levels(engine="endpoint")
    with serving(Script()) as port:
        engine = EndpointEngine(levels, facts, 7, _endpoint(port, dialect="openai"))
        engine.load()
        engine.take(levels, _prompts(levels, facts))
        found = engine.iterate(waiting=True)
        observed = engine.observations()
        engine.close()

    assert found.n_tokens == found.n_non_padding_tokens == 36
    assert observed.requests is not None
    assert sum(observed.requests.n_tokens_counted) == 12  # events


def test_all_requests_failing_is_an_error_and_some_are_not(facts: ModelFacts) -> None:
    levels = _levels(engine="endpoint")
    with serving(Script(behaviour="status_500", n_good=1)) as port:
        engine = EndpointEngine(levels, facts, 7, _endpoint(port))
        engine.load()
        engine.take(levels, _prompts(levels, facts))
        some = engine.iterate(waiting=True)
        with pytest.raises(EngineError, match=r"all 6 requests failed \(wrong_answer\): status 500.*no luck"):
            engine.iterate(waiting=True)
        engine.close()

    assert some.n_tokens == 6


def test_an_endpoint_that_is_not_there_or_has_another_model(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = _levels(engine="endpoint")
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="nobody answers"):
        EndpointEngine(levels, facts, 7, _endpoint(serving_module.free_port())).load()
    with serving(Script(name="another")) as port, pytest.raises(ConfigError, match="serves another"):
        EndpointEngine(levels, facts, 7, _endpoint(port)).load()
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        EndpointEngine(levels, facts, 7, _endpoint(1, key_variable="SOME_KEY"))
    with pytest.raises(ConfigError, match=r"measurement\.endpoint: is null"):
        EndpointEngine(levels, facts, 7, None)


# --- what servers say ----------------------------------------------------------------------------


def test_a_model_without_a_vocabulary_gets_one_that_names_every_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer  # the real server's test loads it as vLLM does

    server_module.write_tokenizer(tmp_path, 500)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    assert tokenizer.decode([0, 7, 499]) == "t0 t7 t499"
    assert tokenizer.encode("t0 t7 t499").ids == [0, 7, 499]


def test_text_generation_inference_gets_text(facts: ModelFacts) -> None:
    class _Words:
        def decode(self, ids: list[int]) -> str:
            return " ".join(map(str, ids))

    levels = _levels(engine="endpoint", n_prompts=1)
    script = Script()
    with serving(script) as port:
        engine = EndpointEngine(levels, facts, 7, _endpoint(port, dialect="tgi"))
        engine._tokenizer = _Words()
        engine.load()
        prompts = _prompts(levels, facts)
        engine.take(levels, prompts)
        engine.iterate(waiting=True)
        engine.close()

    assert script.asked[0]["prompt"].split()[1:] == list(map(str, prompts.token_ids[0][1:]))
    assert "min_tokens" not in script.asked[0]


def test_facts_are_read_from_what_vllm_says() -> None:
    text = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="2048",sliding_window="None"} 1.0\n'

    assert server_module._labels((200, text), "vllm:cache_config_info") == {
        "block_size": "16",
        "num_gpu_blocks": "2048",
        "sliding_window": "None",
    }
    assert server_module._labels(None, "vllm:cache_config_info") == {}
    assert [server_module._graph_mode(mode) for mode in (0, 2, [2, 1], [2, 0], None)] == [
        "NONE",
        "FULL",
        "FULL_AND_PIECEWISE",
        "FULL_DECODE_ONLY",
        None,
    ]


def test_gauges_of_several_engines_add_up_and_unknown_ones_are_left_out() -> None:
    text = (
        "# HELP vllm:num_requests_running how many\n"
        'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 4.0\n'
        'vllm:num_requests_waiting{engine="0"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
        'vllm:gpu_cache_usage_perc{engine="0"} 0.5\n'
    )

    assert gauges(text) == {"n_running": 7.0, "n_waiting": 1.0, "kv_cache_fraction": 0.5}
    assert gauges("tgi_batch_current_size 2\ntgi_queue_size 5\n") == {"n_running": 2.0, "n_waiting": 5.0}
