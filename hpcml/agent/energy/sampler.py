"""The sampler: one process a node and allocation, which appends readings of all counters.

It is no process of any run. It ends when the last agent that wants to be measured is gone, ignores
the signals that end a job, and is killed without losing more than the reading that it is writing.
"""

import fcntl
import os
import signal
import time

from hpcml.agent import wire
from hpcml.agent.energy import domains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERVAL = 1.0  # seconds between two readings; a counter needs no more
CLOCK_INTERVAL = 60.0  # seconds between two looks at the wall clock
BLOCK = 1 << 16  # bytes of the file that are looked at together; no line is as long
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(path: str, descriptor: str, root: str, interval: str = str(INTERVAL)) -> int:
    """Become the sampler of a file whose lock came with the descriptor. Returns the exit code.

    The path is for people who look at processes.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    sampler = Sampler(int(descriptor), root, float(interval))
    if sampler.take_lock():
        sampler.sample()
    return 0


class Sampler:
    """Writes readings into a file that others append to as well.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading and appending.
    root : str
        The folder below which counters are looked for.
    interval : float
        s between two readings.
    """

    def __init__(self, descriptor: int, root: str, interval: float) -> None:
        self.descriptor, self.interval = descriptor, interval
        self.found = domains.find(root)
        self.agents: "list[dict[str, Any]]" = []
        self._heard = 0
        self._torn = True  # whoever wrote before us may have been killed within its line
        self._clock_at = 0.0

    def take_lock(self) -> bool:
        """``False``: somebody else samples. Where files cannot be locked we were elected."""
        try:
            return wire.take_lock(self.descriptor)
        except OSError:
            return True

    def sample(self) -> None:
        """Append readings until nobody is left to measure for."""
        self._write(self.found.header(self.interval))
        due = time.monotonic()
        while self.found.readable():
            self._write(self._reading())
            if not self._wanted() and self._leave():
                return
            due = max(due + self.interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _reading(self) -> "dict[str, Any]":
        record: "dict[str, Any]" = {"m": wire.monotonic_ns()}
        if time.monotonic() >= self._clock_at:
            self._clock_at = time.monotonic() + CLOCK_INTERVAL
            record["t"] = time.time()
        record["v"] = [self._count(domain) for domain in self.found.domains]
        return record

    def _count(self, domain: domains.Domain) -> "int | None":
        if domain.status != domains.MEASURED:
            return None
        try:
            return domain.read()
        except (OSError, ValueError):
            return None

    def _wanted(self) -> bool:
        """Whether an agent lives that wants to be measured."""
        self._listen()
        self.agents = [agent for agent in self.agents if wire.alive(agent)]
        return bool(self.agents)

    def _leave(self) -> bool:
        """Let go of the lock, and then look once more; ``False`` if there is reason to stay."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        except OSError:
            return True
        return not (self._wanted() and self.take_lock())

    def _listen(self) -> None:
        """Learn of new agents from what was appended since we last listened."""
        while True:
            data = os.pread(self.descriptor, BLOCK, self._heard)
            whole = data[: data.rfind(b"\n") + 1]
            if not whole:
                return
            self._heard += len(whole)
            self.agents += [line["agent"] for line in wire.parse_lines(whole) if "agent" in line]

    def _write(self, record: "dict[str, Any]") -> None:
        """Append a line; on a full disk a reading is lost, and the next one is tried."""
        line = (b"\n" if self._torn else b"") + wire.canonical(record) + b"\n"
        try:
            self._torn = os.write(self.descriptor, line) != len(line)
        except OSError:
            self._torn = True
