"""Tokens asked for, generated and non-padding: counts that must agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference_energy.config import Setting
from inference_energy.errors import TokenCountError
from inference_energy.factors import SCHEDULING_ENGINES
from inference_energy.measure.engines import Engine, Generated
from inference_energy.measure.workload import N_WARM_UP_REQUESTS, Prompts, batches, warm_up_batch
from inference_energy.records import Tokens


class Audited:
    """An engine whose token counts are held to what each iteration asks for.

    Where requests arrive by themselves, some may fail: that is a result, so counts that differ are
    kept, not refused.

    Parameters
    ----------
    engine : Engine
        What generates.
    levels : Setting
        What it runs.
    prompts : Prompts
        Of one pass, over all processes.
    run_id : str
        For messages.
    """

    def __init__(self, engine: Engine, levels: Setting, prompts: Prompts, run_id: str) -> None:
        self._engine, self._run_id = engine, run_id
        self._arriving = levels.arrival != "none"
        self._n_output_tokens = levels.n_output_tokens
        self._asked = asked(levels, prompts)
        self._asked_of_warm_up = asked_of_warm_up(levels, prompts)
        self._n_iterations = 0
        self._tokens = _sum([])
        self._waited_s = 0.0
        self._first_tokens_s: list[float | None] = []
        self._waits = False

    def iterate(self, *, waiting: bool) -> None:
        """One iteration.

        Raises
        ------
        TokenCountError
            If what is generated is not what was asked for.
        """
        generated: Generated = self._engine.iterate(waiting=waiting)
        if waiting and not self._waits:  # the windows begin with a pass
            self._n_iterations, self._waits = 0, True
            self._first_tokens_s = []
        of_pass = self._asked if waiting else self._asked_of_warm_up
        expected = of_pass[self._n_iterations % len(of_pass)]
        found = expected.model_copy(
            update={
                "n_tokens_generated": generated.n_tokens,
                "n_tokens_non_padding": generated.n_non_padding_tokens,
            }
        )
        if found != expected and not self._arriving:
            raise TokenCountError(
                f"run {self._run_id}",
                f"{generated.n_tokens} tokens generated, of which {generated.n_non_padding_tokens} are no padding",
                f"{expected.n_tokens_requested} of each"
                if expected.n_tokens_requested == expected.n_tokens_generated
                else f"{expected.n_tokens_generated} and {expected.n_tokens_requested}",
                "A sequence ended early, or the engine pads: energy per token would be wrong",
            )
        self._n_iterations += 1
        self._tokens = _sum([self._tokens, found])
        self._waited_s += generated.waited_s
        self._first_tokens_s.append(generated.first_token_s)

    def mean_over_warm_up(self) -> float:
        """Expected duration of an iteration of a pass over that of the warm-up's, which is the longest batch.

        Known where prompts are all the work: it goes with the tokens computed. Else 1: answers last as long as their
        steps, whatever the prompts.
        """
        if self._n_output_tokens > 1 or self._arriving:
            return 1.0
        of_pass, of_warm_up = (
            np.mean([one.n_input_tokens for one in part]) for part in (self._asked, self._asked_of_warm_up)
        )
        return float(of_pass / of_warm_up)

    def tokens(self) -> Tokens:
        """Of the iterations since this was last asked."""
        tokens, self._tokens = self._tokens, _sum([])
        return tokens

    def waited_s(self) -> float:
        """Simulated waiting since this was last asked; mean over processes."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def first_tokens_s(self) -> list[float] | None:
        """Of each iteration since this was last asked; None if the engine did not say it of all."""
        found = [first_s for first_s in self._first_tokens_s if first_s is not None]
        whole = len(found) == len(self._first_tokens_s)
        self._first_tokens_s = []
        return found if whole else None


def asked(levels: Setting, prompts: Prompts) -> list[Tokens]:
    """What each iteration of a pass asks for, over all processes.

    An engine that schedules by itself computes no padding and ends each answer where it was asked to. Batches of
    transformers are static: all prompts are as long as the longest of the batch (as the setting says, where it gives
    all one length), and all answers too: tokens generated beyond what was asked for are no tokens of the answer.

    Where requests arrive by themselves, an iteration is the whole pass; of its prompts, those of failed requests count
    as well, since how much of them was computed is not known.
    """
    if levels.arrival != "none":
        return [_tokens(levels, prompts, np.arange(len(prompts.token_ids)))]
    shares = _shares(levels, prompts)
    of_processes = [[_tokens(levels, share, indices) for indices in batches(levels, share)] for share in shares]
    return [_sum(together) for together in zip(*of_processes, strict=True)]


def asked_of_warm_up(levels: Setting, prompts: Prompts) -> list[Tokens]:
    """The same of a warm-up: a few requests where they arrive, the longest batch where batches differ."""
    if levels.arrival != "none":
        return [_tokens(levels, prompts, np.arange(min(N_WARM_UP_REQUESTS, levels.n_prompts_per_pass)))]
    shares = _shares(levels, prompts)
    longest = [warm_up_batch(levels, share) for share in shares]
    if None in longest:
        return asked(levels, prompts)
    chosen = [(share, batches(levels, share)[number or 0]) for share, number in zip(shares, longest, strict=True)]
    return [_sum([_tokens(levels, share, batch) for share, batch in chosen])]


def _shares(levels: Setting, prompts: Prompts) -> list[Prompts]:
    """Prompts of each process."""
    n_processes = levels.n_prompts_answered_per_pass // levels.n_prompts_per_process
    return [prompts.share(levels, process) for process in range(n_processes)]


def _tokens(levels: Setting, prompts: Prompts, batch: npt.NDArray[np.int64]) -> Tokens:
    """What one batch of one process asks for."""
    n_input, n_output = prompts.n_input_tokens[batch], prompts.n_output_tokens[batch]
    requested, effective = int(n_output.sum()), int(n_input.sum())
    if levels.engine in SCHEDULING_ENGINES:
        computed, generated = effective, requested
    else:
        longest = n_input.max() if levels.input_length_cv else prompts.token_ids.shape[1]
        computed, generated = len(batch) * int(longest), len(batch) * int(n_output.max())
    return Tokens(
        n_input_tokens=computed,
        n_tokens_requested=requested,
        n_tokens_generated=generated,
        n_tokens_non_padding=requested,
        n_effective_input_tokens=None if effective == computed else effective,
    )


def _sum(parts: Sequence[Tokens]) -> Tokens:
    computed = sum(part.n_input_tokens for part in parts)
    effective = sum(
        part.n_input_tokens if part.n_effective_input_tokens is None else part.n_effective_input_tokens
        for part in parts
    )
    return Tokens(
        n_input_tokens=computed,
        n_tokens_requested=sum(part.n_tokens_requested for part in parts),
        n_tokens_generated=sum(part.n_tokens_generated for part in parts),
        n_tokens_non_padding=sum(part.n_tokens_non_padding for part in parts),
        n_effective_input_tokens=None if effective == computed else effective,
    )


def n_prompts_of(levels: Setting, iteration: int) -> int:
    """Prompts answered in one iteration, over all processes; the last batch of a pass may be smaller."""
    batch = iteration % levels.n_batches_per_pass
    n_of_process = min(levels.batch_size, levels.n_prompts_per_process - batch * levels.batch_size)
    return n_of_process * (levels.n_prompts_answered_per_pass // levels.n_prompts_per_process)
