"""An open-loop HTTP client: requests leave at their planned times, whether or not earlier ones were answered.

While requests are under way it only stamps what arrives; what the answers say is read afterwards
(:mod:`inference_energy.measure.completions`). It is one loop on plain sockets: asyncio's waits whole milliseconds and
sends most requests that much late, for the same processor time (``benchmarks/client_overhead.py``).

References
----------
Schroeder, Wierman and Harchol-Balter (2006), Open versus closed: a cautionary tale. NSDI.
"""

from __future__ import annotations

import errno
import gc
import math
import resource
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

#: Bytes asked for at a time: a larger buffer takes longer to make than to fill.
_PIECE_BYTES = 1 << 14
_N_DESCRIPTORS = 1 << 16
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass
class Exchange:
    """One request and what came back; times on the host's monotonic clock.

    Attributes
    ----------
    scheduled_s : float
        When it was to leave.
    sent_s : float or None
        When its first byte was handed to a connection; None if none was there.
    pieces : list of (float, bytes)
        All that arrived, with the time at which it did.
    ended_s : float or None
        When the last byte arrived, or the failure was seen.
    failure : str or None
        What ended it too early.
    """

    scheduled_s: float
    payload: bytes
    sent_s: float | None = None
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    ended_s: float | None = None
    failure: Literal["refused", "cut_off", "timed_out"] | None = None


@dataclass(frozen=True)
class Pass:
    """All exchanges of one pass, in the order of their planned times.

    Attributes
    ----------
    polls : list of Exchange
        The repeated question (of an engine's gauges) beside the requests.
    cpu_s, wall_s : float
        Processor time of this thread, and time, from the first planned request to the last answer.
    """

    exchanges: list[Exchange]
    polls: list[Exchange]
    cpu_s: float
    wall_s: float


class OpenLoopClient:
    """Sends requests to one server over as many persistent connections as are in use at a time.

    Parameters
    ----------
    host, port
        Of a server that speaks HTTP/1.1.
    answer_timeout_s : float
        Longest time from a request's leaving to its last byte.
    on_failure : callable, optional
        Called when a connection fails; raises if the server is gone, which ends the pass.
    """

    def __init__(
        self, host: str, port: int, answer_timeout_s: float, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._address, self._timeout_s, self._on_failure = (host, port), answer_timeout_s, on_failure
        self._epoll = select.epoll()  # before any connection: `select` takes descriptors below 1024 only
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._busy: dict[_Connection, None] = {}  # in the order of sending
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a connection for each request under way
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _N_DESCRIPTORS)), hard))

    def connect(self, n: int) -> None:
        """Have `n` connections ready, so that a burst need not wait for them."""
        self._idle += [self._new() for _ in range(n - len(self._idle))]

    def run(
        self,
        payloads: Sequence[bytes],
        planned_s: Sequence[float],
        poll: bytes | None = None,
        poll_period_s: float = 0.25,
    ) -> Pass:
        """Send every request at its planned time after now and wait for all answers.

        Parameters
        ----------
        payloads : sequence of bytes
            Whole HTTP requests.
        planned_s : sequence of float
            Ascending, in seconds from now.
        poll : bytes, optional
            A request to repeat meanwhile.
        """
        collects = gc.isenabled()
        gc.disable()  # a collection would hold up the stamps for tens of milliseconds
        try:
            cpu_s, zero_s = time.thread_time(), time.monotonic()
            exchanges = [
                Exchange(zero_s + after_s, payload) for after_s, payload in zip(planned_s, payloads, strict=True)
            ]
            polls = self._work(exchanges, poll, poll_period_s, zero_s)
            return Pass(exchanges, polls, time.thread_time() - cpu_s, time.monotonic() - zero_s)
        finally:
            for connection in list(self._busy):  # polls without an answer yet, or all where the server is gone
                self._close(connection)
            if collects:
                gc.enable()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()

    # --- the loop ---------------------------------------------------------------------------------

    def _work(self, exchanges: list[Exchange], poll: bytes | None, period_s: float, now_s: float) -> list[Exchange]:
        polls: list[Exchange] = []
        next_, n = 0, len(exchanges)
        poll_s = now_s if poll is not None else math.inf
        self._n_missing = n
        while self._n_missing:
            while next_ < n and exchanges[next_].scheduled_s <= (now_s := time.monotonic()):
                self._send(exchanges[next_])
                next_ += 1
            if not self._n_missing:  # all failed as they were sent
                break
            if poll is not None and poll_s <= now_s:
                if not polls or polls[-1].ended_s is not None:
                    polls.append(Exchange(now_s, poll))
                    self._send(polls[-1], counts=False)
                poll_s = now_s + period_s
            oldest = next(iter(self._busy), None)
            times_out_s = math.inf if oldest is None else oldest.exchange.scheduled_s + self._timeout_s
            now_s = self._handle(min(exchanges[next_].scheduled_s if next_ < n else math.inf, poll_s, times_out_s))
            if oldest is not None and oldest in self._busy and now_s >= times_out_s:
                self._fail(oldest, "timed_out")
        return polls

    def _handle(self, until_s: float) -> float:
        """Wait for news until `until_s` and take it in."""
        # `epoll` waits whole milliseconds, `select` microseconds; an epoll can itself be waited for.
        wait_s = max(0.0, until_s - time.monotonic())
        if select.select([self._epoll], [], [], None if wait_s == math.inf else wait_s)[0]:
            for descriptor, event in self._epoll.poll(0):
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._news(connection, event)
        return time.monotonic()

    def _send(self, exchange: Exchange, *, counts: bool = True, anew: bool = False) -> None:
        connection = self._idle.pop() if self._idle and not anew else self._new()
        connection.begin(exchange, counts)
        self._busy[connection] = None
        self._write(connection)

    def _news(self, connection: _Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._write(connection)
        if not event & ~select.EPOLLOUT or connection.closed:
            return
        try:
            piece = connection.socket.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            piece = b""
            connection.refused |= error.errno == errno.ECONNREFUSED
        now_s = time.monotonic()
        if connection not in self._busy:  # an idle connection that the server gave up
            self._close(connection)
        elif not piece:
            self._lost(connection)
        elif connection.took(now_s, piece):
            connection.exchange.ended_s = now_s
            self._n_missing -= connection.counts
            del self._busy[connection]
            if connection.reusable:
                self._idle.append(connection)
            else:
                self._close(connection)

    def _write(self, connection: _Connection) -> None:
        """Hand on as much of the request as the connection takes; `epoll` says when it takes more."""
        try:
            if connection.unsent:
                if connection.exchange.sent_s is None:
                    connection.exchange.sent_s = time.monotonic()
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            if len(connection.unsent) == len(connection.exchange.payload):  # not connected yet
                connection.exchange.sent_s = None
        except OSError as error:
            connection.refused |= error.errno == errno.ECONNREFUSED
            if connection.refused:
                connection.exchange.sent_s = None
            self._lost(connection)
            return
        waits = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
        if waits != connection.waits_for:
            connection.waits_for = waits
            self._epoll.modify(connection.descriptor, waits)

    def _lost(self, connection: _Connection) -> None:
        """The connection ended before its answer did."""
        exchange = connection.exchange
        # A server may give an idle connection up just as it is used again: then no byte was answered, and a new
        # connection settles the matter.
        if connection.n_used > 1 and not exchange.pieces:
            self._close(connection)
            exchange.sent_s = None
            self._send(exchange, counts=connection.counts, anew=True)
            return
        self._fail(connection, "refused" if connection.refused else "cut_off")

    def _fail(self, connection: _Connection, failure: Literal["refused", "cut_off", "timed_out"]) -> None:
        connection.exchange.failure, connection.exchange.ended_s = failure, time.monotonic()
        self._n_missing -= connection.counts
        self._close(connection)
        self._on_failure()

    def _new(self) -> _Connection:
        connection = _Connection(self._address)
        self._connections[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, connection.waits_for)
        return connection

    def _close(self, connection: _Connection) -> None:
        self._busy.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
        del self._connections[connection.descriptor]
        connection.close()


class _Connection:
    """One socket, the exchange on it, and how far its answer has come."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.descriptor = self.socket.fileno()
        status = self.socket.connect_ex(address)
        self.refused = status not in (0, errno.EINPROGRESS)
        self.closed = False
        self.unsent = memoryview(b"")
        self.waits_for = select.EPOLLIN
        self.n_used = 0

    def begin(self, exchange: Exchange, counts: bool) -> None:
        """Carry `exchange`; `counts` if the pass must wait for its answer."""
        self.exchange, self.counts = exchange, counts
        self.unsent = memoryview(exchange.payload)
        self.n_used += 1
        self.reusable = True
        self._head: bytes | None = None
        self._n_missing_bytes: int | None = None
        self._tail = b""

    def took(self, now_s: float, piece: bytes) -> bool:
        """Keep a piece; True if the answer is complete with it."""
        self.exchange.pieces.append((now_s, piece))
        if self._head is None:
            so_far = b"".join(piece for _, piece in self.exchange.pieces)
            end = so_far.find(_END_OF_HEAD)
            if end < 0:
                return False
            self._head = so_far[:end].lower()
            self.reusable = b"connection: close" not in self._head
            length = content_length(self._head)
            piece = so_far[end + (len(_END_OF_HEAD) if length is not None else 2) :]
            self._n_missing_bytes = length
        if self._n_missing_bytes is not None:
            self._n_missing_bytes -= len(piece)
            return self._n_missing_bytes <= 0
        self._tail = (self._tail + piece)[-len(_END_OF_CHUNKS) :]
        return self._tail == _END_OF_CHUNKS

    def close(self) -> None:
        """Give the socket back."""
        self.closed = True
        self.socket.close()


def content_length(head: bytes) -> int | None:
    """Bytes of the body that a head in lower case announces; None where it comes in chunks."""
    if b"transfer-encoding: chunked" in head:
        return None
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            value = line.partition(b":")[2].strip()
            return int(value) if value.isdigit() else None
    return None
