"""Errors a user can act on: where it happened, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudyError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    where : str
        File, key or device the error speaks of.
    found : str
        What was there.
    expected : str, optional
        What should have been there.
    action : str, optional
        What the user can do.
    """

    exit_code = 2

    def __init__(self, where: str, found: str, expected: str = "", action: str = "") -> None:
        self.where, self.found, self.expected, self.action = where, found, expected, action
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """The whole message as one paragraph."""
        parts = [f"{self.where}: {_sentence(self.found)}"]
        if self.expected:
            parts.append(f"Expected: {_sentence(self.expected)}")
        if self.action:
            parts.append(_sentence(self.action))
        return " ".join(parts)

    def __reduce__(self):  # type: ignore[no-untyped-def]  # errors cross process boundaries
        return type(self), (self.where, self.found, self.expected, self.action)


class ConfigError(StudyError):
    """A configuration that cannot be used."""


class DesignError(StudyError):
    """A setting that physics, the model or this version does not allow."""


class MeterError(StudyError):
    """No energy meter, or one that does not hold what it promises."""


class DeviceBusyError(StudyError):
    """Somebody else uses the device to be measured."""


class SteadyStateError(StudyError):
    """The warm-up did not reach a steady state before its cap."""


class TokenCountError(StudyError):
    """Tokens requested, generated and non-padding disagree."""


class EngineError(StudyError):
    """The software that generates failed in one of its processes."""


class RecordError(StudyError):
    """A record that cannot be read or written."""


class ArchiveError(StudyError):
    """An archive that is missing, incomplete or altered."""


class ComparabilityError(StudyError):
    """Records that must not be put into one table."""


class AnalysisError(StudyError):
    """A table that does not hold what an analysis needs."""


class NotebookError(StudyError):
    """A notebook that cannot be executed or rendered."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Known: a, b. Did you mean b?`` for an unknown word."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"Known: {', '.join(known)}.{hint}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else text + "."
