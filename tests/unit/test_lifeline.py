"""A process that was to end with its parent does, also when the parent was quicker."""

from __future__ import annotations

import os
import signal
import time

import pytest

from inference_energy.measure.lifeline import end_with


def _ends(pid: int, within_s: float = 5.0) -> bool:
    """Whether process `pid`, which is not our child, is gone in time (or waits to be buried)."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("late", [False, True])
def test_it_ends_with_its_parent_even_if_that_was_quicker(late: bool) -> None:
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            if late:
                time.sleep(0.3)  # the parent is gone by then
            end_with(parent)
            os.write(writing, b"asked\n")
            time.sleep(60)
            os._exit(0)
        os.write(writing, f"{child}\n".encode())
        time.sleep(0.0 if late else 60.0)
        os._exit(0)
    told = os.fdopen(reading)
    child = int(told.readline())
    if not late:
        assert told.readline() == "asked\n"
        os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    try:
        assert _ends(child)
    finally:
        if not _ends(child, 0.1):
            os.kill(child, signal.SIGKILL)
        os.close(writing)
        told.close()
