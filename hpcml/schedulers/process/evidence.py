"""What the files of a chunk say to its queue. Each is read once, however often one looks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hpcml.agent import wire
from hpcml.schedulers import Word
from hpcml.states import State

Owner = tuple[object, ...]


class Evidence:
    """Attempts that are under way, and what was said about the others.

    Attributes
    ----------
    words : dict
        Final words by (index, attempt): another object as soon as there is a new one.
    cancels : set of int
        Runs that somebody wants cancelled.
    begun : set of int
        Runs of which an attempt was taken, be it to refuse it.
    """

    def __init__(self, folder: str) -> None:
        self.words: Mapping[tuple[int, int], Word] = {}
        self.cancels: set[int] = set()
        self.begun: set[int] = set()
        self._attempts, self._said = wire.Attempts(folder), wire.Words(folder)
        self._names: set[str] = set()
        self._under_way: dict[int, tuple[int, Owner]] = {}  # attempt and owner, without an end
        self._owners: dict[Owner, dict[str, Any]] = {}

    def listen(self) -> None:
        """Read what has been said since we last listened."""
        records = self._said.new()
        for line in records:
            if line.get("request") == "cancel":
                self.cancels.update(wire.about(line))
        new = {
            key: Word(State(record["state"]), record["reason"])
            for key, record in wire.first_words(records).items()
        }
        if new:
            self.words = {**new, **self.words}  # the first word counts

    def look(self) -> None:
        """Learn which attempts have started and ended since we last looked."""
        try:
            names = set(os.listdir(self._attempts.folder))
        except FileNotFoundError:
            names = set()  # somebody has removed the batch
        for index, numbers in wire.attempts_of(names - self._names).items():
            self.begun.add(index)
            for number, kinds in sorted(numbers.items()):
                self._learn(index, number, ended="end" in kinds)
        self._names = names

    def _learn(self, index: int, number: int, *, ended: bool) -> None:
        known, _ = self._under_way.get(index, (0, ()))
        if number < known:
            return
        self._under_way.pop(index, None)
        start = None if ended else self._attempts.read(index, number, "start")
        if start is not None and "refused" not in start:
            owner = start["owner"]
            key = (owner["host"], owner["boot"], owner["space"], owner["pid"], owner["started"])
            self._owners[key] = owner
            self._under_way[index] = number, key

    def under_way(self) -> tuple[list[int], list[int]]:
        """Indices of started attempts without an end: with a live owner here, and without."""
        owners = {owner for _, owner in self._under_way.values()}
        # One process may own many: an agent works through its runs one after the other.
        live = {owner for owner in owners if wire.alive(self._owners[owner])}
        alive = [index for index, (_, owner) in self._under_way.items() if owner in live]
        silent = [index for index, (_, owner) in self._under_way.items() if owner not in live]
        return alive, silent
