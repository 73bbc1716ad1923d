"""What can be measured: domains, each with a counter of its own, and how they contain each other.

A reader is a module of this package that is named in ``READERS``. Its ``find(root)`` returns a
list of :class:`Domain`, also those that may not be read; it raises OSError if it cannot look.
"""

import errno
import os

from hpcml.agent import wire
from hpcml.agent.energy import READERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
MEASURED, ABSENT, DENIED, ERROR = "measured", "absent", "denied", "error"


class Domain:
    """A part of the machine with a counter of the energy that it has used.

    Parameters
    ----------
    name : str
        Unique on its machine: ``"package-0"``, ``"package-0/dram"``.
    kind : str
        ``"cpu"`` (a whole package), its parts ``"core"`` and ``"uncore"``, ``"dram"``, ``"psys"``
        (what the maker of the board took for the platform), ``"device"``, ``"node"``.
    path : str
        The counter's file.
    unit : float
        J for each count.
    period : float
        s between two updates of the counter.
    range : int or None
        The count after which it starts at 0 again; ``None`` if that is not known.
    most : float or None
        W that it cannot exceed: what seems to be more was a reset. ``None`` if that is not known.

    Attributes
    ----------
    contains : list of str
        Domains whose energy is part of this one's.
    mirrors : str or None
        The domain whose counter this one shows once more.
    status : str
        ``"measured"`` if it can be read, else ``"denied"`` or ``"error"``, with the reason ``why``.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        path: str,
        unit: float,
        period: float,
        range: "int | None",
        most: "float | None",
    ) -> None:
        self.name, self.kind, self.path = name, kind, path
        self.unit, self.period, self.range, self.most = unit, period, range, most
        self.contains: "list[str]" = []
        self.mirrors: "str | None" = None
        self.status, self.why = MEASURED, ""
        self._descriptor: "int | None" = None

    def read(self) -> int:
        """The count now. After a failure the file is opened anew.

        Raises
        ------
        OSError, ValueError
            It cannot be read, or is no number.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return int(os.pread(self._descriptor, 64, 0))
        except (OSError, ValueError):
            self.close()
            raise

    def probe(self) -> None:
        """Find out whether it can be read."""
        try:
            self.read()
            self.close()
        except (OSError, ValueError) as error:
            self.status, self.why = verdict(error)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def as_data(self) -> "dict[str, Any]":
        left_out = ("path", "_descriptor")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}


class Found:
    """The domains of a machine, and what each reader came to."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.domains: "list[Domain]" = []
        self.tried: "dict[str, dict[str, str]]" = {}

    def readable(self) -> bool:
        """Whether there is anything to measure."""
        return any(domain.status == MEASURED for domain in self.domains)

    def header(self, interval: "float | None") -> "dict[str, Any]":
        """What begins the readings; ``interval`` is ``None`` where there will be none."""
        return dict(
            header=SCHEMA,
            host=os.uname()[1],
            boot=wire.boot_id(),
            root=self.root,
            interval=interval,
            # Others may work here at the same time; nobody has told us that they do not.
            exclusive=False,
            domains=[domain.as_data() for domain in self.domains],
            tried=self.tried,
        )


def find(root: str) -> Found:
    """Ask every reader for its domains below a folder."""
    found = Found(root)
    for name, sign in READERS.items():
        if not os.path.exists(os.path.join(root, sign)):
            found.tried[name] = {"status": ABSENT, "reason": "there is no /" + sign}
            continue
        try:
            domains = _reader(name).find(root)
        except OSError as error:
            status, why = verdict(error)
            found.tried[name] = {"status": status, "reason": why}
            continue
        found.domains += domains
        found.tried[name] = _summary(domains)
    return found


def _reader(name: str) -> "Any":
    return getattr(__import__("hpcml.agent.energy", fromlist=[name]), name)


def _summary(domains: "list[Domain]") -> "dict[str, str]":
    """What a reader came to, by its domains: the best that was found."""
    for status in (MEASURED, DENIED, ERROR):
        reasons = {domain.why for domain in domains if domain.status == status}
        if reasons:
            return {"status": status, "reason": "; ".join(sorted(reasons))}
    return {"status": ABSENT, "reason": "it shows no counters"}


def verdict(error: Exception) -> "tuple[str, str]":
    """Status and reason of what cannot be read; the reason without the path."""
    if not isinstance(error, OSError):
        return ERROR, "what it shows is no number"
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return DENIED if denied else ERROR, (error.strerror or str(error)).lower()
