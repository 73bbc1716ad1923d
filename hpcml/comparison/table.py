"""What a comparison is, as data, and the ways to look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcml.comparison import showing
from hpcml.comparison.figures import Column
from hpcml.comparison.median import Summary
from hpcml.errors import ArgumentError, HpcmlError, nearest
from hpcml.records.model import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console, ConsoleOptions, RenderResult

PLOTS = ("energy", "history", "phases", "scaling")


@dataclass(frozen=True)
class Point:
    """One run of a comparison.

    Attributes
    ----------
    record : Record
    row : int
        In which row it is.
    figures : dict
        By column. What is not known has no entry.
    aspects : dict
        What it should have in common with the others, as text; ``None``: not known.
    """

    record: Record = field(repr=False)
    row: int
    figures: Mapping[Column, Any]
    aspects: Mapping[str, str | None]

    @property
    def id(self) -> str:
        """The run's."""
        return self.record.id

    @property
    def state(self) -> str:
        """When it was last looked at."""
        return self.record.state

    @property
    def counted(self) -> bool:
        """Whether its figures are in its row's: it is COMPLETED."""
        return self.record.state == "COMPLETED"


@dataclass(frozen=True)
class Row:
    """Runs that are equal in what the comparison goes by.

    Attributes
    ----------
    label : str
    group : dict
        The parameters that they share. One that they do not have has no entry.
    job_digests : tuple of str
    states : dict
        How many runs are in each state.
    figures : dict of Summary
        By column, of the COMPLETED runs.
    aspects : dict
        What its COMPLETED runs are like: all that is known, ``None`` for what is not.
    """

    label: str
    group: Mapping[str, Any]
    job_digests: tuple[str, ...]
    states: Mapping[str, int]
    figures: Mapping[Column, Summary]
    aspects: Mapping[str, tuple[str | None, ...]]

    @property
    def n(self) -> int:
        """How many runs its figures are of: those that are COMPLETED."""
        return self.states.get("COMPLETED", 0)

    @property
    def left_out(self) -> int:
        """How many runs are not COMPLETED, and have no part in the figures."""
        return sum(self.states.values()) - self.n


@dataclass(frozen=True, repr=False)
class Table:
    """Runs side by side. Printed, it is a table; in a notebook, too.

    Attributes
    ----------
    rows : tuple of Row
        Each with the medians of its COMPLETED runs.
    points : tuple of Point
        All runs, in the order in which they were given.
    columns : tuple of Column
        The figures that any COMPLETED run has.
    marks : tuple of str
        What to know before believing the comparison: in what the runs differ, what nobody told,
        what was left out. They stand under every form of it.
    by : tuple of str or None
        The parameters that the rows go by; ``None``: one row a job and set of parameters.
    """

    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    columns: tuple[Column, ...]
    marks: tuple[str, ...]
    by: tuple[str, ...] | None

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """The aspects that are not known to be equal everywhere, and are shown."""
        names = dict.fromkeys(name for row in self.rows for name in row.aspects)
        values = {
            name: {one for row in self.rows for one in row.aspects.get(name, ())} for name in names
        }
        return tuple(name for name in names if len(values[name]) > 1)

    # --- for people -----------------------------------------------------------------------

    def show(self) -> None:
        """Print it, with colours on a terminal."""
        showing.show(self)

    def __str__(self) -> str:
        return showing.text(self)

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for line, style in showing.lines(self, options.max_width):
            yield Text(line, style, no_wrap=True, overflow="ignore")

    def _repr_html_(self) -> str:
        return showing.html(self)

    def to_markdown(self) -> str:
        """A table in Markdown, the marks under it."""
        return showing.markdown(self)

    # --- for programs ---------------------------------------------------------------------

    def to_json(self) -> str:
        """All of it, points included. What is missing is ``null``; there is no NaN in it.

        docs/compare.md has its shape.
        """
        return showing.json_text(self)

    def to_csv(self, path: str | Path | None = None) -> str:
        """One line a row, in s, B and J; the marks are the last column.

        Parameters
        ----------
        path : path, optional
            Write it there, too.

        Raises
        ------
        HpcmlError
            It cannot be written there.
        """
        return _written(showing.csv_text(self), path)

    def to_pandas(self) -> DataFrame:
        """What :meth:`to_csv` has, as a data frame; missing is NaN or ``None``.

        Raises
        ------
        HpcmlError
            There is no pandas.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise _needs(error, "A data frame") from error
        header, rows = showing.flat(self)
        frame = pandas.DataFrame(rows, columns=header)
        frame.attrs["marks"] = list(self.marks)
        return frame

    def plot(
        self,
        kind: str,
        path: str | Path | None = None,
        *,
        over: str | None = None,
        metric: str | None = None,
    ) -> Figure:
        """Draw it.

        Parameters
        ----------
        kind : {"energy", "history", "phases", "scaling"}
            Energy over time with the Pareto front; metrics over steps; time by phase; speed-up
            with the ideal line.
        path : path, optional
            Write it there: ``.pdf``, ``.svg`` or ``.png``.
        over : {"cpus", "devices", "nodes"}, optional
            Of ``"scaling"``; default: the one in which the runs differ.
        metric : str, optional
            Of ``"history"``; default: those that most runs have logged, four at most.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ArgumentError
            There is no such plot, or nothing that it could show; the message says why.
        HpcmlError
            There is no matplotlib, or it cannot be written there.
        """
        if kind not in PLOTS:
            raise ArgumentError(f"there is no plot {kind!r}", nearest(str(kind), PLOTS))
        try:
            from hpcml.comparison.plotting import draw
        except ModuleNotFoundError as error:
            raise _needs(error, "A plot") from error
        return draw(self, kind, path, over, metric)


def _needs(error: ModuleNotFoundError, what: str) -> HpcmlError:
    problem = f"{what} needs the package {error.name!r}"
    return HpcmlError(problem, 'pip install "hpcml[plot]"')


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise not_written(path, error) from error
    return text


def not_written(path: str | Path, error: OSError) -> HpcmlError:
    """What to say of a file that a comparison could not be written to."""
    problem = f"{path} cannot be written: {error.strerror}"
    return HpcmlError(problem, "Name a file in a folder that is yours.")
