"""A server as a subprocess on this machine's loopback: started, found healthy, and ended without a trace."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from inference_energy.errors import EngineError
from inference_energy.measure.engines import OutOfDeviceMemory
from inference_energy.measure.engines.vllm_model import out_of_memory

HOST = "127.0.0.1"
#: A guardian takes its command down in less.
_END_WITHIN_S = 40.0
_N_PORTS_TRIED = 3
_PORT_TAKEN = re.compile(r"address already in use|Errno 98", re.IGNORECASE)


class Server:
    """One server process, with all that it starts.

    Parameters
    ----------
    command : callable
        The command line for a port.
    name : str
        What the server calls its model: proof that the right one answers.
    environment : dict
        Variables on top of ours; None takes one away.
    start_timeout_s : float
        Longest time until it is healthy.
    """

    def __init__(
        self, command: Callable[[int], list[str]], name: str, environment: dict[str, str | None], start_timeout_s: float
    ) -> None:
        self._command, self._name, self._environment = command, name, environment
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start it and wait until it is healthy.

        Raises
        ------
        OutOfDeviceMemory
            If it ends for want of memory.
        EngineError
            If it ends otherwise, does not become healthy in time, or finds no free port.
        """
        for _ in range(_N_PORTS_TRIED):
            self.port = free_port()
            self._launch()
            if self._healthy():
                return
            self.close(keep_log=True)
        raise EngineError(
            "server",
            f"found {_N_PORTS_TRIED} ports taken, lastly {self.port}: {self.log_end()}",
            "a free port",
            "See what else listens on this machine",
        )

    def require_alive(self) -> None:
        """Raise EngineError, or OutOfDeviceMemory, if the server has ended."""
        if self._process is None or self._process.poll() is not None:
            self._raise_ended("while it was needed")

    def require_healthy(self) -> None:
        """Raise if the server has ended, is about to, or does not answer any more."""
        answer = get(HOST, self.port, "/health", 10.0)
        if answer is not None and answer[0] == 200:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(_END_WITHIN_S)
        self.require_alive()
        raise EngineError("server", f"does not answer any more; its last lines: {self.log_end()}", "GET /health: 200")

    def log(self) -> str:
        """All that it wrote so far."""
        return "" if self._log is None else Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def log_end(self, n_lines: int = 15) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log().splitlines()[-n_lines:]) or "(it wrote nothing)"

    def processes(self) -> list[int]:
        """Processes of its session that are there; none after :meth:`close`, and memory of GPUs is free with them."""
        return [] if self._process is None else processes_of(self._process.pid)

    def close(self, *, keep_log: bool = False) -> None:
        """End it and everything it started.

        Raises
        ------
        EngineError
            If a process of it is left all the same.
        """
        if self._process is not None:
            session = self._process.pid
            self._process.terminate()
            try:
                self._process.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            if left := processes_of(session):
                raise EngineError(
                    "server", f"processes {left} are left of it", "none", "Kill them: they may hold a GPU"
                )
        if self._log is not None and not keep_log:
            self._log.close()
            self._log = None

    def _launch(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = tempfile.NamedTemporaryFile(prefix="server-", suffix=".log")  # noqa: SIM115 - closed by `close`
        guardian = [sys.executable, "-m", "inference_energy.measure.guardian", str(os.getpid())]
        self._process = subprocess.Popen(
            [*guardian, *self._command(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt typed at the terminal is ours to handle
            env={name: value for name, value in (os.environ | self._environment).items() if value is not None},
        )

    def _healthy(self) -> bool:
        """Wait; False if the port was taken, and another one is worth a try."""
        deadline_s = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline_s:
            if self._process is not None and self._process.poll() is not None:
                if _PORT_TAKEN.search(self.log()):
                    return False
                self._raise_ended("before it was healthy")
            if (answer := get(HOST, self.port, "/health", 2.0)) is not None and answer[0] == 200:
                served = get(HOST, self.port, "/v1/models", 10.0)
                return served is not None and self._name in served[1]  # else another server has the port
            time.sleep(0.1)
        end = self.log_end()
        self.close()
        raise EngineError(
            "server",
            f"was not healthy within {self._start_timeout_s:.0f} s; its last lines: {end}",
            "an answer of 200 to GET /health",
            "See what it waits for",
        )

    def _raise_ended(self, when: str) -> None:
        words, end = out_of_memory(self.log()), self.log_end()
        self.close()
        if words is not None:
            raise OutOfDeviceMemory(words)
        raise EngineError("server", f"ended {when}; its last lines: {end}", "a server that runs", "See its words")


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def get(host: str, port: int, path: str, timeout_s: float, key: str | None = None) -> tuple[int, str] | None:
    """Status and body of a GET; None where nobody answers."""
    return _exchanged(host, port, "GET", path, None, timeout_s, key)


def post(host: str, port: int, path: str, content: dict[str, object], timeout_s: float) -> tuple[int, str] | None:
    """Status and body of a POST of JSON; None where nobody answers."""
    return _exchanged(host, port, "POST", path, json.dumps(content), timeout_s, None)


def _exchanged(
    host: str, port: int, method: str, path: str, body: str | None, timeout_s: float, key: str | None
) -> tuple[int, str] | None:
    headers = {} if body is None else {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def processes_of(session: int) -> list[int]:
    """Processes of a session, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of, *_ = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(of) == session and state != "Z":
            found.append(int(folder.name))
    return found
