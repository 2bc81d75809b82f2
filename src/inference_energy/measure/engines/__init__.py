"""Engines: what generates tokens, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class OutOfDeviceMemory(Exception):  # noqa: N818 - a result of a run, not an error of ours
    """The setting does not fit the device: a result, kept as such."""


@dataclass(frozen=True)
class Generated:
    """What one iteration returned, over all its processes.

    Attributes
    ----------
    n_tokens : int
        Output tokens returned, padding included.
    n_non_padding_tokens : int
        Output tokens that are no padding.
    waited_s : float
        Simulated waiting for requests, mean over the processes.
    """

    n_tokens: int
    n_non_padding_tokens: int
    waited_s: float = 0.0


class Engine(Protocol):
    """Loads a model and generates; every method returns with all devices synchronised."""

    def load(self) -> None:
        """Put the model on the devices."""

    def prime(self, n_tokens: int) -> None:
        """Generate a few tokens for the first batch: pays for lazy initialisation."""

    def forward_passes(self, n: int) -> None:
        """`n` passes over a short prompt, as warm-ups are often done."""

    def iterate(self, *, waiting: bool) -> Generated:
        """One iteration: the next batch of every process, going round the prompts.

        The first that waits begins a pass anew, and comes in the midst of traffic: a burst has just ended.

        Parameters
        ----------
        waiting : bool
            Whether the simulated waiting for requests comes before it; a warm-up does not wait.
        """

    def device_uuids(self) -> list[str]:
        """UUID of every GPU that works, as the driver names it; empty on a CPU."""

    def memory_peak_bytes(self) -> list[int]:
        """Most memory allocated since loading, on each of those GPUs; empty on a CPU."""

    def close(self) -> None:
        """End the processes that it started."""
