"""Runs a command and leaves nothing of it, however it or the process that asked for it ends.

``python -m inference_energy.measure.guardian PID COMMAND ...`` is started by process PID in a session of its own.
It adopts whatever the command leaves behind, so that it has ended only when all of that has. It imports the standard
library alone: it must be there at once, and take no memory from what is measured.

It ends the command politely when it is asked to (SIGTERM), and at once when process PID is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from inference_energy.measure.lifeline import end_with

_PR_SET_CHILD_SUBREAPER = 36
#: How the command is asked to end, and how long it may take.
POLITELY_S = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0))
_NEWS = frozenset((signal.SIGTERM, signal.SIGCHLD))


def guard(parent: int, command: list[str]) -> int:
    """Run `command`; its exit status, or 128 and the signal's number, once nothing of it is left."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _NEWS)
    end_with(parent, signal.SIGTERM)
    child = _start(command)
    status = None
    while status is None and signal.sigwait(_NEWS) == signal.SIGCHLD:
        status = _reaped(child)
    for by, patience_s in POLITELY_S if os.getppid() == parent else ():
        if status is None:
            os.kill(child, by)
            status = _ended(child, patience_s)
    last = _end_all(child)
    return last if status is None else status


def _start(command: list[str]) -> int:
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _NEWS)
            end_with(guardian)
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    return child


def _reaped(child: int) -> int | None:
    """Bury all that ended; the status of `child` if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                status = _status(found[1])
    return status


def _ended(child: int, patience_s: float) -> int | None:
    """The status of `child`, or None if it goes on for longer than that."""
    deadline_s = time.monotonic() + patience_s
    while (status := _reaped(child)) is None and (left_s := deadline_s - time.monotonic()) > 0:
        signal.sigtimedwait((signal.SIGCHLD,), left_s)
    return status


def _end_all(child: int) -> int:
    """Kill every descendant: children of one that dies become children of this process."""
    status = 0
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            found = os.waitpid(-1, 0)
            if found[0] == child:
                status = _status(found[1])
    return status


def _status(waited: int) -> int:
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
