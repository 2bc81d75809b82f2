"""Tokens asked for, generated and non-padding: three counts that must agree."""

from __future__ import annotations

from inference_energy.config import Setting
from inference_energy.errors import TokenCountError
from inference_energy.measure.engines import Engine, Generated
from inference_energy.records import Tokens


class Audited:
    """An engine whose token counts are held to what each iteration asks for."""

    def __init__(self, engine: Engine, levels: Setting, run_id: str) -> None:
        self._engine, self._levels, self._run_id = engine, levels, run_id
        self._n_iterations = self._n_prompts = 0
        self._waited_s = 0.0
        self._waits = False

    def iterate(self, *, waiting: bool) -> None:
        """One iteration.

        Raises
        ------
        TokenCountError
            If tokens requested, generated and non-padding disagree.
        """
        generated: Generated = self._engine.iterate(waiting=waiting)
        if waiting and not self._waits:  # the windows begin with a pass
            self._n_iterations, self._waits = 0, True
        n_prompts = n_prompts_of(self._levels, self._n_iterations)
        requested = n_prompts * self._levels.n_output_tokens
        if not requested == generated.n_tokens == generated.n_non_padding_tokens:
            raise TokenCountError(
                f"run {self._run_id}",
                f"{generated.n_tokens} tokens generated, of which {generated.n_non_padding_tokens} are no padding",
                f"{requested} of each",
                "A sequence ended early, or the engine pads: energy per token would be wrong",
            )
        self._n_iterations += 1
        self._n_prompts += n_prompts
        self._waited_s += generated.waited_s

    def tokens(self) -> Tokens:
        """Of the iterations since this was last asked."""
        total = self._n_prompts * self._levels.n_output_tokens
        n_input = self._n_prompts * self._levels.n_input_tokens
        self._n_prompts = 0
        return Tokens(
            n_input_tokens=n_input, n_tokens_requested=total, n_tokens_generated=total, n_tokens_non_padding=total
        )

    def waited_s(self) -> float:
        """Simulated waiting since this was last asked; mean over processes."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s


def n_prompts_of(levels: Setting, iteration: int) -> int:
    """Prompts answered in one iteration, over all processes; the last batch of a pass may be smaller."""
    batch = iteration % levels.n_batches_per_pass
    n_of_process = min(levels.batch_size, levels.n_prompts_per_process - batch * levels.batch_size)
    return n_of_process * (levels.n_prompts_answered_per_pass // levels.n_prompts_per_process)
