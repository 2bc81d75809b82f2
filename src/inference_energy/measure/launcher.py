"""Start a run in a fresh process: cold, or forked from a parent that holds the imports.

The parent imports PyTorch and transformers and never touches a device, so a forked run is still a fresh
GPU process: it makes its own CUDA context. What is saved is the import time. Runs of vLLM have a parent of
their own, since importing vLLM changes the environment and parts of PyTorch. A parent listens on a Unix
socket, forks one process a request, hands it the client's terminal, and reports its exit status. It ends
when nobody asked for a while, or when its owner is gone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_energy import provenance
from inference_energy.errors import (
    ConfigError,
    EngineError,
    MeterError,
    RecordError,
    SteadyStateError,
    StudyError,
    TokenCountError,
)
from inference_energy.measure.lifeline import end_with
from inference_energy.measure.session import Request, perform
from inference_energy.records import write_text_atomically

IDLE_EXIT_S = 300.0
START_TIMEOUT_S = 120.0
#: What parents hold; any other engine's runs are forked from the first.
PARENTS = ("transformers", "vllm")
#: Exit status of a run that ended by an error of ours, already printed.
EXPECTED_FAILURE = 2


# --- the measuring process -----------------------------------------------------------------------


def run_and_exit(request: Request) -> None:
    """Perform `request` in this process and end it without tearing anything down (saves 0.7 s)."""
    status = 0
    try:
        perform(request)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        _tell(request, error)
        status = EXPECTED_FAILURE
    except BaseException as error:  # noqa: BLE001 - the process ends here; the traceback is all that is left to give
        traceback.print_exc()
        _tell(request, error)
        status = 1
    if request.action == "measure":
        for process in multiprocessing.active_children():  # an engine's, if the run failed
            process.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _tell(request: Request, error: BaseException) -> None:
    """Leave the reason of a failure where the command that asked for the run looks for it."""
    if request.failure is None:
        return
    kind = type(error).__name__
    # A setting is to blame for these, or chance; for our other errors it is machine, design or user.
    retry = isinstance(error, SteadyStateError | TokenCountError | EngineError) or not isinstance(error, StudyError)
    reason = {"kind": kind, "message": str(error) or kind, "retry": retry}
    with contextlib.suppress(RecordError):  # the run has failed already, and said why
        write_text_atomically(Path(request.failure), json.dumps(reason))


def main() -> None:
    """Entry of a cold process: ``python -m inference_energy.measure.launcher REQUEST``; or of the parent."""
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        end_with(os.getppid(), signal.SIGTERM)
        run_and_exit(Request(**json.loads(sys.argv[1])))


# --- the client ----------------------------------------------------------------------------------


def launch(request: Request) -> int:
    """Carry out `request` in a fresh process.

    Returns
    -------
    int
        Its exit status; 0 means that the file it was asked for is there.
    """
    if request.launcher == "cold":
        argument = json.dumps(request.to_dict())
        return subprocess.run(
            [sys.executable, "-m", "inference_energy.measure.launcher", argument], check=False
        ).returncode
    return _ask_parent(request)


def socket_path(engine: str = PARENTS[0]) -> Path:
    """Socket of this user's parent for this source, interpreter and engine."""
    key = provenance.short_hash(
        f"{provenance.source_sha256()}/{sys.executable}/{os.environ.get('CUDA_VISIBLE_DEVICES')}"
        f"/{os.environ.get('PYTHONPATH')}/{engine}"
    )
    return Path(tempfile.gettempdir()) / f"inference-energy-{os.getuid()}-{key}.sock"


def _ask_parent(request: Request) -> int:
    with _connect(request.engine if request.engine in PARENTS else PARENTS[0]) as connection:
        socket.send_fds(connection, [json.dumps(request.to_dict()).encode()], [1, 2])
        answer = connection.recv(4096)
    if not answer:
        raise MeterError("launcher", "the parent process ended during a run", "", "Run again")
    return int(json.loads(answer)["status"])


def parent_state(engine: str = PARENTS[0]) -> dict[str, Any]:
    """What the parent says of itself: pid, CUDA, device files, whether it holds vLLM."""
    with _connect(engine) as connection:
        connection.sendall(b'{"action": "state"}')
        state: dict[str, Any] = json.loads(connection.recv(4096))
        return state


def stop_parent() -> bool:
    """End every parent that runs; True if one did."""
    return sum(_stop(socket_path(engine)) for engine in PARENTS) > 0


def _stop(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        connection.sendall(b'{"action": "stop"}')
        connection.recv(1)
        return True


def _connect(engine: str) -> socket.socket:
    """A connection to the parent, started if need be."""
    path = socket_path(engine)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    started: subprocess.Popen[bytes] | None = None
    while True:
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            if started is None:
                owner = os.environ.get("INFERENCE_ENERGY_OWNER_PID", "0")
                started = subprocess.Popen(
                    [sys.executable, "-m", "inference_energy.measure.launcher", "serve", str(path), owner, engine],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            elif started.poll() not in (None, 0) or time.monotonic() > deadline_s:
                raise MeterError(
                    "launcher", "the parent process did not start", "", "Try launcher: cold, and read its error above"
                ) from None
            time.sleep(0.02)


# --- the parent ----------------------------------------------------------------------------------


def serve(path: Path, owner_pid: int, engine: str = PARENTS[0]) -> None:
    """Import, listen, fork; until idle for long, told to stop, or the owner is gone."""
    listener = _listen(path)
    if listener is None:
        return
    try:
        from inference_energy.measure.engines.transformers import import_everything

        import_everything()
        if engine == "vllm":
            from inference_energy.measure.engines import vllm

            with contextlib.suppress(ConfigError, EngineError):  # the run's own process says why
                vllm.import_everything()
        gc.collect()
        gc.freeze()
        _let_go_of_stderr()
        _Parent(listener, owner_pid).loop()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _let_go_of_stderr() -> None:
    """Whoever reads the first client's errors must not wait for a parent that outlives it."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _listen(path: Path) -> socket.socket | None:
    """Bind the socket; None if another parent has it. A dead parent's socket is replaced."""
    import fcntl

    guard = path.with_suffix(".lock").open("w")
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    _listen_guards.append(guard)  # held until the process ends
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)
    return listener


_listen_guards: list[Any] = []


class _Parent:
    """The loop: one connection, one child."""

    def __init__(self, listener: socket.socket, owner_pid: int) -> None:
        self._listener, self._owner_pid = listener, owner_pid
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._last_s = time.monotonic()
        self._children: dict[int, int] = {}  # connection's file descriptor: child's pid
        self._stop = False

    def loop(self) -> None:
        """Serve until there is a reason to end."""
        while not self._stop:
            for key, _ in self._selector.select(timeout=1.0):
                handle: Callable[[Any], None] = key.data
                handle(key.fileobj)
            if self._children:
                self._last_s = time.monotonic()
            elif time.monotonic() - self._last_s > IDLE_EXIT_S or not _alive(self._owner_pid):
                return

    def _accept(self, listener: Any) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._hear)
        self._last_s = time.monotonic()

    def _hear(self, connection: Any) -> None:
        message, files, _, _ = socket.recv_fds(connection, 65536, 2)
        if not message:  # the client is gone: so is whoever wanted the run
            child = self._children.get(connection.fileno())
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            self._selector.unregister(connection)
            if child is None:
                connection.close()
            return
        content = json.loads(message)
        if content["action"] == "stop":
            self._stop = True
            connection.sendall(b"{}")
        elif content["action"] == "state":
            connection.sendall(json.dumps(_state()).encode())
        else:
            self._fork(Request(**content), files, connection)

    def _fork(self, request: Request, files: list[int], connection: socket.socket) -> None:
        state, parent = _state(), os.getpid()
        child = os.fork()
        if child == 0:
            os.setsid()
            end_with(parent, signal.SIGTERM)
            for target, source in enumerate(files, start=1):
                os.dup2(source, target)
            self._selector.close()
            self._listener.close()
            run_and_exit(
                Request(
                    **{
                        **request.to_dict(),
                        "parent_n_device_files": state["n_device_files"],
                        "parent_cuda_initialised": state["cuda_initialised"],
                    }
                )
            )
        for file in files:
            os.close(file)
        self._children[connection.fileno()] = child
        ended = os.pidfd_open(child)
        self._selector.register(ended, selectors.EVENT_READ, lambda fd: self._reap(fd, child, connection))

    def _reap(self, ended: Any, child: int, connection: socket.socket) -> None:
        _, status = os.waitpid(child, 0)
        self._selector.unregister(ended)
        os.close(ended)
        self._children.pop(connection.fileno(), None)
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()
        self._last_s = time.monotonic()


def _state() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return {
        "pid": os.getpid(),
        "cuda_initialised": bool(torch is not None and torch.cuda.is_initialized()),
        "has_vllm": "vllm" in sys.modules,
        "n_device_files": sum(name.startswith("/dev/nvidia") for name in files),
    }


def _alive(pid: int) -> bool:
    if pid == 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
