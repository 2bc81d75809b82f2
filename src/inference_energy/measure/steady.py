"""Warm-up: whole iterations of the measured shape until they agree.

A few forward passes are not enough: kernels, plans and caches depend on shape and sequence length,
so the first generation through each length can cost several times the steady one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference_energy.config import WarmUp
from inference_energy.errors import SteadyStateError
from inference_energy.measure.meter import Clock


def agree(durations_s: Sequence[float], rule: WarmUp) -> bool:
    """Whether the last ``rule.n_agree`` durations lie within ``rule.agreement_fraction``.

    The spread is (longest - shortest) / mean.
    """
    last = durations_s[-rule.n_agree :]
    if len(last) < rule.n_agree:
        return False
    return (max(last) - min(last)) / (sum(last) / len(last)) <= rule.agreement_fraction


def warm_up(iterate: Callable[[], object], rule: WarmUp, clock: Clock, where: str) -> list[float]:
    """Iterate until the last iterations agree.

    Returns
    -------
    list of float
        Duration of every iteration in seconds, in order.

    Raises
    ------
    SteadyStateError
        If they do not agree before a cap is reached.
    """
    durations_s: list[float] = []
    started_s = clock.now()
    while not agree(durations_s, rule):
        if len(durations_s) >= rule.n_iterations_max or clock.now() - started_s > rule.duration_max_s:
            last = ", ".join(f"{d:.3f}" for d in durations_s[-rule.n_agree :])
            raise SteadyStateError(
                where,
                f"no steady state after {len(durations_s)} iterations and {clock.now() - started_s:.0f} s;"
                f" the last took {last} s",
                f"the last {rule.n_agree} within {rule.agreement_fraction:.1%} of their mean",
                "See whether something else runs on the machine; or raise warm_up.agreement_fraction or its caps",
            )
        begun_s = clock.now()
        iterate()
        durations_s.append(clock.now() - begun_s)
    return durations_s
