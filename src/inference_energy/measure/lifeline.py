"""Processes that end with the one that started them, however that ends: none is left behind with a lock."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let this process end with process `parent`, which forked it.

    The kernel sends `by` when the parent dies; a parent that died before it could be asked is found out here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)
