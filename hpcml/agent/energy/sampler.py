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
LAG = 10 * 10**6  # ns that reading all counters may take, so that the time is theirs
TRIES = 5  # to read them within that: we may be stopped, or wait for a core
BOOTTIME = getattr(time, "CLOCK_BOOTTIME", 7)  # Python 3.6 has no name for it
SLEPT = 0.1  # s that the machine was suspended for, at least
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
        self._asleep: "float | None" = None

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
        now, asleep, counts = self._counts()
        record: "dict[str, Any]" = {"m": now}
        if now / 1e9 >= self._clock_at:
            self._clock_at = now / 1e9 + CLOCK_INTERVAL
            record["t"] = time.time()
        if self._asleep is not None and asleep - self._asleep > SLEPT:
            record["slept"] = asleep - self._asleep
        self._asleep = asleep
        record["v"] = counts
        return record

    def _counts(self) -> "tuple[int, float, list[int | None]]":
        """When, how long the machine has slept until then in all, and what the counters show.

        Counts that were read long after that time belong to another one: they are null.
        """
        for _ in range(TRIES):
            now = wire.monotonic_ns()
            asleep = time.clock_gettime(BOOTTIME) - now / 1e9
            counts = [self._count(domain) for domain in self.found.domains]
            if wire.monotonic_ns() - now <= LAG:
                return now, asleep, counts
        return now, asleep, [None] * len(counts)

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
