"""One tree of errors. Each says what was tried, what went wrong, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from hpcml.texts import plain, plain_lines

FEW = 12  # things that a message names


class HpcmlError(Exception):
    """Base of all errors that hpcml raises on purpose.

    Parameters
    ----------
    problem : str
        What was tried and what went wrong.
    advice : str
        What to do about it.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        # Names in it come from jobs, and a traceback shows it on a terminal.
        return plain_lines(f"{self.problem}\n  {self.advice}")


class JobError(HpcmlError):
    """A job says something that cannot be meant; ``field`` names where."""

    def __init__(self, field: str, problem: str, advice: str) -> None:
        super().__init__(f"{field}: {problem}", advice)
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.problem[len(self.field) + 2 :], self.advice)


class PlanError(JobError):
    """The site cannot run the job as it stands."""


class CodeError(HpcmlError):
    """The code cannot be taken along."""


class ProfileError(HpcmlError):
    """A site profile or the settings are wrong; the message names file, line and key.

    Attributes
    ----------
    others : tuple of ProfileError
        What else is wrong there.
    """

    others: tuple[ProfileError, ...] = ()


class UntrustedError(ProfileError):
    """A project's profile acts as the user, who has not agreed to it.

    Attributes
    ----------
    digests : dict
        Of the texts of its files, by their paths.
    """

    def __init__(self, problem: str, advice: str, digests: Mapping[str, str]) -> None:
        super().__init__(problem, advice)
        self.digests = dict(digests)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.advice, self.digests)


class UnresolvedError(HpcmlError):
    """A plan still has open questions, so it cannot be queued."""


class TransportError(HpcmlError):
    """A site cannot be reached, or refuses to read or write."""


class UnreachableError(TransportError):
    """A site does not answer now, and may later: who waits for a run goes on waiting."""


class CommandError(TransportError):
    """A command on a site failed.

    Attributes
    ----------
    argv : tuple of str
    exit_code : int
    output : str
        What it printed, stderr included.
    """

    def __init__(self, argv: Sequence[str], exit_code: int, output: str, advice: str = "") -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.output = output
        super().__init__(
            f"{' '.join(argv)!r} ended with exit code {exit_code}: {output.strip() or 'no output'}",
            advice or "Run the command by hand on the site to see more.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.argv, self.exit_code, self.output, self.advice)


class QueueError(HpcmlError):
    """The queue did not take a job, or cannot answer."""


class RefusedError(QueueError):
    """The queue does not take a job as it is, now or later."""


class RunNotFoundError(HpcmlError, LookupError):
    """No such run here nor on the sites that were asked."""


class RunStateError(HpcmlError):
    """The run is not in a state in which that can be done."""


class RunFailedError(HpcmlError):
    """A run did not end COMPLETED, and there is no exception of its function to raise instead.

    Attributes
    ----------
    run_id : str
    state : State
        How it ended.
    reason : str
        Why, as the run says it.
    """

    def __init__(self, run_id: str, state: str, reason: str, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.run_id, self.state, self.reason = run_id, state, reason

    def __reduce__(self) -> tuple[object, ...]:
        made = self.run_id, self.state, self.reason, self.problem, self.advice
        return type(self), made, {"__cause__": self.__cause__}


class RecordsError(HpcmlError):
    """The records cannot be read or written."""


class ResultError(HpcmlError):
    """What a function returned cannot be loaded here."""


class ArgumentError(HpcmlError, ValueError):
    """A function was called with what it cannot take."""


class UnknownNameError(HpcmlError, KeyError):
    """A run has no output, no metric of that name."""

    __str__ = HpcmlError.__str__


def few(words: Sequence[str]) -> str:
    """The first of them, between commas."""
    return ", ".join(map(plain, words[:FEW])) + (", …" if len(words) > FEW else "")


def nearest(word: str, valid: Iterable[str]) -> str:
    """The valid word that was probably meant, and all of them, as half a sentence."""
    choices = sorted(valid)
    if not choices:
        return "there is none to choose from"
    same = [choice for choice in choices if choice.lower() == word.lower()]
    close = same or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    listed = few(choices)
    return f"did you mean {close[0]!r}? (valid: {listed})" if close else f"valid: {listed}"
