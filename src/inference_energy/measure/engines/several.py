"""Several processes that generate side by side, one a GPU, behind the interface of one engine.

The measuring process itself touches no GPU: it tells each process what to do and waits for the
slowest. What passes between them is a word and a few numbers on a pipe, so an iteration costs some
tens of microseconds more than in one process.

Replicas are independent. The processes of tensor parallelism get the environment that ``torchrun``
gives, and transformers splits the model with ``tp_plan="auto"``; they are forked instead of started
by ``torchrun`` so that every run starts alike and each process need not import PyTorch again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import statistics
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from inference_energy.config import ModelFacts, Setting
from inference_energy.errors import EngineError
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.engines.transformers import TransformersEngine
from inference_energy.measure.lifeline import end_with
from inference_energy.measure.workload import Prompts

#: Loading and the longest iteration are far below this; a process that hangs in a collective is not waited for longer.
ANSWER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class _Member:
    number: int
    pipe: Connection
    process: Any


class SeveralProcesses:
    """``levels.n_gpus`` processes, each with an engine of its own.

    Parameters
    ----------
    levels, facts, prompts, seed, device
        As of :class:`TransformersEngine`; `prompts` are those of a whole pass.
    """

    def __init__(self, levels: Setting, facts: ModelFacts, prompts: Prompts, seed: int, device: str) -> None:
        self._levels, self._facts, self._prompts, self._seed, self._device = levels, facts, prompts, seed, device
        self._members: list[_Member] = []

    def load(self) -> None:
        """Start the processes and let each put its model on its device."""
        context = multiprocessing.get_context("fork")
        port = _free_port() if self._levels.parallelism == "tensor" else None
        for number in range(self._levels.n_gpus):
            ours, theirs = context.Pipe()
            process = context.Process(target=self._serve, args=(number, port, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._members.append(_Member(number, ours, process))
        self._ask("load")

    def prime(self, n_tokens: int) -> None:
        """In every process; see :meth:`TransformersEngine.prime`."""
        self._ask("prime", n_tokens)

    def forward_passes(self, n: int) -> None:
        """In every process; see :meth:`TransformersEngine.forward_passes`."""
        self._ask("forward_passes", n)

    def iterate(self, *, waiting: bool) -> Generated:
        """The next batch of every process; tokens of replicas add up, tensor parallelism answers once.

        Raises
        ------
        EngineError
            If the processes of tensor parallelism do not count the same tokens.
        """
        answers: list[Generated] = self._ask("iterate", waiting)
        waited_s = statistics.fmean(answer.waited_s for answer in answers)
        if self._levels.parallelism == "tensor":
            counts = {(answer.n_tokens, answer.n_non_padding_tokens) for answer in answers}
            if len(counts) > 1:
                raise EngineError("tensor parallelism", f"token counts {sorted(counts)}", "the same in every process")
            answers = answers[:1]
        first_s = [answer.first_token_s for answer in answers if answer.first_token_s is not None]
        return Generated(
            sum(answer.n_tokens for answer in answers),
            sum(answer.n_non_padding_tokens for answer in answers),
            waited_s,
            max(first_s) if len(first_s) == len(answers) else None,
        )

    def device_uuids(self) -> list[str]:
        """The GPU of every process, in order."""
        return [uuid for uuids in self._ask("device_uuids") for uuid in uuids]

    def memory_peak_bytes(self) -> list[int]:
        """Of every process's GPU, in order; empty once they were ended."""
        return [peak for peaks in self._ask("memory_peak_bytes") for peak in peaks] if self._members else []

    def close(self) -> None:
        """End all processes without tearing anything down."""
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.join()
            member.pipe.close()
        self._members = []

    def _ask(self, what: str, *arguments: Any) -> list[Any]:
        """Let every process do `what`, and wait for all of them.

        Raises
        ------
        OutOfDeviceMemory
            If one of them ran out of it.
        EngineError
            If one of them failed, ended or did not answer.
        """
        for member in self._members:
            member.pipe.send((what, arguments))
        answers: dict[int, Any] = {}
        waiting = {member.pipe: member for member in self._members}
        while waiting:
            ready = wait(list(waiting), timeout=ANSWER_TIMEOUT_S)
            if not ready:
                self._fail(f"{what}: no answer within {ANSWER_TIMEOUT_S:.0f} s from {len(waiting)} processes")
            for pipe in ready:
                member = waiting.pop(pipe)  # type: ignore[call-overload]
                answers[member.number] = self._answer(member, what)
        return [answers[number] for number in sorted(answers)]

    def _answer(self, member: _Member, what: str) -> Any:
        try:
            kind, content = member.pipe.recv()
        except (EOFError, ConnectionResetError):
            member.process.join()
            self._fail(f"process {member.number} ended with status {member.process.exitcode} during {what}")
        if kind == "out of memory":
            self.close()  # the others may wait for it in a collective
            raise OutOfDeviceMemory(content)
        if kind == "failed":
            self._fail(f"process {member.number}, {what}: {content}")
        return content

    def _fail(self, reason: str) -> None:
        self.close()
        raise EngineError(f"{self._levels.parallelism} over {self._levels.n_gpus} processes", reason)

    def _serve(self, number: int, port: int | None, pipe: Connection, parent: int) -> None:
        """What a process does until it is killed."""
        end_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        engine: TransformersEngine | None = None
        while True:
            what, arguments = pipe.recv()
            try:
                if engine is None:
                    engine = self._member_engine(number, port)
                keywords = {"waiting": arguments[0]} if what == "iterate" else {}
                answer = getattr(engine, what)(*(() if keywords else arguments), **keywords)
                pipe.send(("done", answer))
            except OutOfDeviceMemory as error:
                pipe.send(("out of memory", str(error)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the measuring process must hear of it
                traceback.print_exc()
                pipe.send(("failed", f"{type(error).__name__}: {error}"))

    def _member_engine(self, number: int, port: int | None) -> TransformersEngine:
        import torch

        if port is not None:  # the environment that torchrun gives
            os.environ.update(
                RANK=str(number),
                LOCAL_RANK=str(number),
                WORLD_SIZE=str(self._levels.n_gpus),
                LOCAL_WORLD_SIZE=str(self._levels.n_gpus),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
        if self._device == "cuda":
            torch.cuda.set_device(number)
        share = self._prompts.share(self._levels, number)
        return TransformersEngine(self._levels, self._facts, share, self._seed, self._device, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
