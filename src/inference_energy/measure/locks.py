"""Locks on devices and runs, common to all processes of the machine; a lock ends with its holder, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from inference_energy import provenance
from inference_energy.errors import DeviceBusyError
from inference_energy.measure.meter import Clock


@contextlib.contextmanager
def hold(names: Sequence[str], n: int, holder: str, wait_s: float, clock: Clock, kind: str = "") -> Iterator[list[int]]:
    """Lock the first `n` of `names` that are free, all of them or none.

    Parameters
    ----------
    names : sequence of str
        What is locked, in the order of preference.
    holder : str
        Who holds them, for others to read.
    wait_s : float
        How long to wait until enough are free.
    kind : str
        Begins the names of the locks' files: what they are for, if not devices.

    Yields
    ------
    list of int
        Positions in `names`.

    Raises
    ------
    DeviceBusyError
        If fewer than `n` are free after `wait_s` seconds; names the holders of the others.
    """
    held = _lock_first([_path(name, kind) for name in names], n, wait_s, clock)
    try:
        for file in held.values():
            file.truncate(0)
            file.write(json.dumps({"run": holder, "pid": os.getpid(), "since": provenance.now_utc()}))
            file.flush()
        yield list(held)
    finally:
        _release(held.values())


def _path(name: str, kind: str = "") -> Path:
    return Path(tempfile.gettempdir()) / f"inference-energy-{kind}{provenance.short_hash(name)}.lock"


def _lock_first(paths: Sequence[Path], n: int, wait_s: float, clock: Clock) -> dict[int, IO[str]]:
    deadline_s = clock.now() + wait_s
    while True:
        # One looks at a time, or two that want several could take them from one another for ever.
        with _path("turn").open("a+", encoding="utf-8") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            held: dict[int, IO[str]] = {}
            for position, path in enumerate(paths):
                file = _lock_if_free(path) if len(held) < n else None
                if file is not None:
                    held[position] = file
            if len(held) == n:
                return held
            _release(held.values())
        if clock.now() >= deadline_s:
            taken = [path for position, path in enumerate(paths) if position not in held]
            raise DeviceBusyError(
                ", ".join(map(str, taken)),
                f"{len(held)} of {len(paths)} devices are free; other runs hold the rest: "
                + "; ".join(path.read_text(encoding="utf-8").strip() or "unknown" for path in taken),
                f"{n} free within {wait_s:.0f} s",
                "Wait for them, or end them",
            )
        clock.sleep(0.05)


def _lock_if_free(path: Path) -> IO[str] | None:
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _release(files: Iterable[IO[str]]) -> None:
    for file in files:  # helpers forked meanwhile share the open file: closing it here is not enough
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()
