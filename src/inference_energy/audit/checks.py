"""Checks of physical sense, each a comparison of what was found with what it should be.

A check takes records in the one form of :mod:`inference_energy.audit.records` and says of each run,
process, GPU or setting what was found and what was expected. What breaks the relation by more than
the tolerance fails. Three kinds are kept apart: a check of *sense* holds of any sound record, one of a
*hypothesis* holds if records were made in the way it supposes, one of the *text* if it states what the
data show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inference_energy.audit import cases
from inference_energy.audit.cases import Cases
from inference_energy.audit.records import Records

AT_MOST, AT_LEAST, EQUAL, DIFFERENT = "at most", "at least", "equal", "different"
SENSE, HYPOTHESIS, STATED = "sense", "hypothesis", "text"

#: ASSUME: a published mean power may lie 5 % above what the cards' limits allow: the limit holds on average over some
#: tens of milliseconds, and a tracker's first and last second are not cut to the work.
_POWER_TOLERANCE = 0.05
_TIME_TOLERANCE = 0.10  # a tracker starts and stops around the work, not at its edges
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
        What it is called.
    kind : str
        ``sense``, ``hypothesis`` or ``text``.
    tested : str
        What is held against what, in words.
    relation : str
        How found stands to expected where the check holds.
    tolerance_fraction : float
        How far found may lie beyond expected.
    counted_in : str
        What a case is: a run, a reading (of one process in one run), a GPU, a setting.
    unit : str
        Of found and expected.
    cases : callable
        From records to found, expected and the index of the run, for every case; a missing value is
        not tested.
    """

    name: str
    kind: str
    tested: str
    relation: str
    tolerance_fraction: float
    counted_in: str
    unit: str
    cases: Callable[[Records], Cases]


#: Every check, in the order of the questions.
CHECKS: tuple[Check, ...] = (
    Check(
        "power_own_gpu",
        HYPOTHESIS,
        "each process's mean GPU power against the limit of one card: a tracker that reads its own GPU stays below",
        AT_MOST,
        _POWER_TOLERANCE,
        "reading",
        "W",
        cases.power_own_gpu,
    ),
    Check(
        "power_gpus_of_processes",
        HYPOTHESIS,
        "each process's mean GPU power against the limits of as many cards as processes, where some cards take no part:"
        " a tracker that reads only GPUs that work stays below",
        AT_MOST,
        _POWER_TOLERANCE,
        "reading",
        "W",
        cases.power_gpus_of_processes,
    ),
    Check(
        "power_all_gpus",
        HYPOTHESIS,
        "each process's mean GPU power against the limits of all cards: a tracker that reads them all stays below",
        AT_MOST,
        _POWER_TOLERANCE,
        "reading",
        "W",
        cases.power_all_gpus,
    ),
    Check(
        "trackers_agree",
        HYPOTHESIS,
        "the largest against the smallest mean GPU power of one run's processes: trackers of the same GPUs agree",
        EQUAL,
        _POWER_TOLERANCE,
        "run",
        "W",
        cases.trackers_agree,
    ),
    Check(
        "power_summed",
        SENSE,
        "mean GPU power summed over a run's processes against the limits of all cards: the machine cannot draw more",
        AT_MOST,
        _POWER_TOLERANCE,
        "run",
        "W",
        cases.power_summed,
    ),
    Check(
        "power_stored",
        SENSE,
        "the stored GPU power of each process against the limits of all cards",
        AT_MOST,
        _POWER_TOLERANCE,
        "reading",
        "W",
        cases.power_stored,
    ),
    Check(
        "power_times_time",
        SENSE,
        "GPU energy of each process against its stored GPU power times its time",
        EQUAL,
        _TIME_TOLERANCE,
        "reading",
        "J",
        cases.power_times_time,
    ),
    Check(
        "cpu_power_varies",
        SENSE,
        "CPU power of each process against the median of all: a measured power varies, an assumed one does not",
        DIFFERENT,
        1e-6,
        "reading",
        "W",
        cases.cpu_power_varies,
    ),
    Check(
        "energy_parts",
        SENSE,
        "energy of each process against its GPU, CPU and RAM parts",
        EQUAL,
        _ROUNDING,
        "reading",
        "J",
        cases.energy_parts,
    ),
    Check(
        "energy_summed",
        HYPOTHESIS,
        "energy of a run against the sum over its processes: what is published is that sum",
        EQUAL,
        _ROUNDING,
        "run",
        "J",
        cases.energy_summed,
    ),
    Check(
        "energy_per_token",
        SENSE,
        "energy per token against energy over the tokens counted",
        EQUAL,
        _ROUNDING,
        "run",
        "J",
        cases.energy_per_token,
    ),
    Check(
        "tokens_of_one_process",
        HYPOTHESIS,
        "tokens counted against prompts times output length: the tokens of one process are counted",
        EQUAL,
        _ROUNDING,
        "run",
        "tokens",
        cases.tokens_of_one,
    ),
    Check(
        "tokens_of_all_processes",
        HYPOTHESIS,
        "tokens counted against prompts times output length times processes: the tokens of all processes are counted",
        EQUAL,
        _ROUNDING,
        "run",
        "tokens",
        cases.tokens_of_all,
    ),
    Check(
        "each_answers_all_prompts",
        HYPOTHESIS,
        "time of a run over time of a batch against the batches of all prompts, in runs of several processes",
        EQUAL,
        _ROUNDING,
        "run",
        "batches",
        cases.all_prompts,
    ),
    Check(
        "prompts_are_shared",
        HYPOTHESIS,
        "time of a run over time of a batch against the batches of one process's share of the prompts, in runs of"
        " several processes",
        EQUAL,
        _ROUNDING,
        "run",
        "batches",
        cases.shared_prompts,
    ),
    Check(
        "throughput",
        SENSE,
        "throughput against tokens counted over time",
        EQUAL,
        _ROUNDING,
        "run",
        "tokens/s",
        cases.throughput,
    ),
    Check(
        "tracked_time",
        SENSE,
        "time that each process's tracker read against the time of the run",
        EQUAL,
        _TIME_TOLERANCE,
        "reading",
        "s",
        cases.tracked_time,
    ),
    Check(
        "other_gpus_rest",
        SENSE,
        "utilisation of GPUs beyond the number of processes: nobody else works on them",
        AT_MOST,
        0.0,
        "GPU",
        "of the time",
        cases.other_gpus_rest,
    ),
    Check(
        "runs_apart",
        SENSE,
        "time from the end of the run before to a run's own end against its duration: runs do not overlap",
        AT_LEAST,
        0.0,
        "run",
        "s",
        cases.runs_apart,
    ),
    Check(
        "run_names",
        SENSE,
        "how often each run's name stands in the table: once",
        EQUAL,
        0.0,
        "run",
        "times",
        cases.run_names,
    ),
    Check(
        "parameters",
        SENSE,
        "stored number of parameters against the model's",
        EQUAL,
        _ROUNDING,
        "run",
        "parameters",
        cases.parameters,
    ),
    Check(
        "flop_of_all_tokens",
        SENSE,
        "stored FLOP against two for each parameter and output token: the least that generating them takes",
        AT_LEAST,
        _TIME_TOLERANCE,
        "run",
        "FLOP",
        cases.flop,
    ),
    Check(
        # ASSUME: no FLOP takes less energy than at the card's peak rate and power limit. Lower clocks save energy per
        # FLOP, but no card reaches its peak within its limit. Requests that failed and prompts that a cache held are
        # work that was not done: a run that fails here either left work out or did not read its energy.
        "work_per_joule",
        SENSE,
        "least FLOP of a run's answers per joule of GPU energy against the card's peak rate at its power limit",
        AT_MOST,
        0.0,
        "run",
        "TFLOP/J",
        cases.work_per_joule,
    ),
    Check(
        "input_length",
        STATED,
        "input tokens of a prompt against the stated length",
        EQUAL,
        0.0,
        "run",
        "tokens",
        cases.input_length,
    ),
    Check(
        "output_length",
        STATED,
        "output tokens of a prompt against the stated length",
        EQUAL,
        0.0,
        "run",
        "tokens",
        cases.output_length,
    ),
    Check(
        "cycles",
        STATED,
        "cycles in which each setting was measured against the stated number",
        AT_LEAST,
        0.0,
        "setting",
        "cycles",
        cases.cycles,
    ),
    Check(
        "cycles_apart",
        STATED,
        "time from one cycle of a setting to its next against the stated time between cycles",
        AT_LEAST,
        0.0,
        "cycle pair",
        "s",
        cases.cycles_apart,
    ),
)
