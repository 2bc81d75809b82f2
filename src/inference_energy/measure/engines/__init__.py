"""Engines: what generates tokens, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from inference_energy.config import Setting
from inference_energy.measure.workload import Prompts
from inference_energy.records import EngineFacts, EngineSamples, Requests


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
    first_token_s : float, optional
        From the iteration's start (after the waiting) until every prompt of it had its first token; None where the
        engine does not say.
    """

    n_tokens: int
    n_non_padding_tokens: int
    waited_s: float = 0.0
    first_token_s: float | None = None


@dataclass(frozen=True)
class Observations:
    """What an engine tells of itself, with times on the host's monotonic clock.

    Attributes
    ----------
    facts : EngineFacts
        What it is and how it was set up.
    samples : EngineSamples, optional
        Its queues over time, since it began to answer these prompts; None where it does not say.
    requests : Requests, optional
        Every request of the measured passes; None where prompts are given in batches.
    """

    facts: EngineFacts
    samples: EngineSamples | None = None
    requests: Requests | None = None

    def shifted(self, zero_s: float) -> Observations:
        """The same with times relative to `zero_s`."""
        samples, requests = self.samples, self.requests
        if samples is not None:
            samples = samples.model_copy(update={"time_s": [time_s - zero_s for time_s in samples.time_s]})
        if requests is not None:
            moments = {
                name: [None if moment_s is None else moment_s - zero_s for moment_s in getattr(requests, name)]
                for name in ("scheduled_s", "sent_s", "first_token_s", "ended_s")
            }
            requests = requests.model_copy(update=moments)
        return Observations(self.facts, samples, requests)


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


class SchedulingEngine(Engine, Protocol):
    """An engine that schedules sequences by itself, and that one start can lend to several settings."""

    def take(self, levels: Setting, prompts: Prompts) -> None:
        """Answer these prompts from now on; factors that are no workload are those it was made with.

        Observations begin anew.
        """

    def observations(self) -> Observations:
        """Of the prompts that it answers now; called once the windows are measured."""
