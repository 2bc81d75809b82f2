"""A server that speaks OpenAI's protocol and shows, on demand, the faults that a real one will not show.

In a test's own process with :func:`serving`; as a process of its own with
``python scripted_server.py PORT NAME BEHAVIOUR``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """What the server does.

    Attributes
    ----------
    behaviour : str
        ``ok``, or the fault.
    first_s, rest_s : float
        From a request until its first token, and from there until the others.
    n_good : int
        Requests that are answered well before a fault shows.
    """

    name: str = "scripted"
    behaviour: str = "ok"
    first_s: float = 0.0
    rest_s: float = 0.0
    n_good: int = 0
    n_connections: int = 0
    n_running: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.n_connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")]
                body = await reader.readexactly(int(length[0])) if length else b""
                await self._answer(head.split()[1], body, writer)
                if self.behaviour == "hangs_up" and head.split()[1] == "/v1/completions":
                    break
        writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/health":
            ill = self.behaviour == "never_healthy" or (
                self.behaviour == "error_event" and len(self.asked) > self.n_good
            )
            self._send(writer, "503 Unavailable" if ill else "200 OK", "")
        elif path == "/v1/models":
            self._send(writer, "200 OK", json.dumps({"data": [{"id": self.name}]}))
        elif path == "/version":
            self._send(writer, "200 OK", json.dumps({"version": "1.2.3"}))
        elif path == "/metrics":
            labels = f'{{engine="0",model_name="{self.name}"}}'
            gauges = {"num_requests_running": self.n_running, "num_requests_waiting": 3, "kv_cache_usage_perc": 0.25}
            lines = [f"vllm:{name}{labels} {float(value)}" for name, value in gauges.items()]
            self._send(writer, "200 OK", "\n".join([*lines, f"vllm:num_preemptions_total{labels} {len(self.asked)}.0"]))
        elif path == "/v1/completions":
            self.asked.append(json.loads(body))
            self.n_running += 1
            await self._complete(self.asked[-1], writer)
            self.n_running -= 1
        else:
            self._send(writer, "404 Not Found", "")
        await writer.drain()

    def _send(self, writer: asyncio.StreamWriter, status: str, body: str) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    async def _complete(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        fault = self.behaviour if len(self.asked) > self.n_good else "ok"
        n = asked["max_tokens"] + {"fewer": -1, "more": 1}.get(fault, 0)
        if fault == "dies":
            print("the scripted server gives up", flush=True)  # noqa: T201
            os._exit(3)
        if fault == "hangs":
            await asyncio.sleep(60)
        if fault == "status_500":
            self._send(writer, "500 Internal Server Error", '{"error": {"message": "no luck today"}}')
            return
        if fault == "whole":
            self._send(writer, "200 OK", json.dumps({"choices": [{"text": "t1", "index": 0}]}))
            return
        kind = "text/html" if fault == "no_events" else "text/event-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        await asyncio.sleep(self.first_s)
        self._event(writer, _tokens([1], asked))
        await asyncio.sleep(self.rest_s)
        if fault == "cuts":
            await writer.drain()
            writer.transport.abort()
            return
        if fault == "broken_json":
            self._event(writer, '{"choices": [')
        if fault == "error_event":
            self._event(writer, json.dumps({"error": {"message": "the engine is gone"}}))
        if n > 1:
            self._event(writer, _tokens(list(range(2, n + 1)), asked))
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": n + (fault == "misreports")}
        self._event(writer, json.dumps({"choices": [], "usage": usage}))
        if fault != "no_done":
            self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


def _tokens(ids: list[int], asked: dict[str, Any]) -> str:
    choice: dict[str, Any] = {"index": 0, "text": " ".join(f"t{i}" for i in ids), "finish_reason": None}
    if asked.get("return_token_ids"):
        choice["token_ids"] = ids
    return json.dumps({"choices": [choice]})


@contextlib.contextmanager
def serving(script: Script) -> Iterator[int]:
    """The port of a server that follows `script`, in a thread of this process."""
    ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def listen() -> None:
        over = asyncio.Event()
        server = await asyncio.start_server(script.talk, "127.0.0.1", 0, limit=1 << 24)
        ready.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    port, loop, over = ready.get(timeout=10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def main(port: int, name: str, behaviour: str) -> None:
    """A process of its own; some faults come before it listens."""
    script = Script(name, behaviour, n_good=int(os.environ.get("SCRIPTED_N_GOOD", "0")))
    if behaviour == "out_of_memory":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", flush=True)  # noqa: T201
        sys.exit(1)
    if behaviour == "broken":
        print("error: unrecognized arguments: --no-such-option", flush=True)  # noqa: T201
        sys.exit(2)
    if behaviour == "leaves":  # children that neither a signal to the group nor a polite one would end
        stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        stubborn += "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-S", "-c", stubborn], start_new_session=True)
        print(f"child {child.pid}", flush=True)  # noqa: T201

    async def listen() -> None:
        try:
            server = await asyncio.start_server(script.talk, "127.0.0.1", port, limit=1 << 24)
        except OSError as error:
            sys.exit(str(error))
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(listen())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
