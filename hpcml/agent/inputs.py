"""The inputs and the image of a run, looked at before it starts: are they what was submitted?"""

import os
import time

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IMAGE = "the image"  # among the inputs, none of which can bear such a name
TRUST = 10.0  # a look that took a second is believed for so many seconds, by one agent


class InputError(Exception):
    """An input is not what it was, or not there."""


class Inputs:
    """The inputs and the image that all runs of a batch share.

    Parameters
    ----------
    plan : dict
    runs : str
        The folder of all batches, where the runs lie whose outputs are inputs here.
    """

    def __init__(self, plan: "dict[str, Any]", runs: str) -> None:
        self.digests: "dict[str, Any]" = plan["what"]["inputs"]
        where = plan["where"]
        self.paths: "dict[str, str]" = where["inputs"]
        self.origins: "dict[str, dict[str, str]]" = where["origins"]
        self.stamps: "dict[str, str]" = dict(where["stamps"])
        if plan["what"]["image"] is not None:
            self.paths = dict(self.paths, **{IMAGE: where["image"]})
            self.digests = dict(self.digests, **{IMAGE: plan["what"]["image"]})
            if where["image_stamp"] is not None:
                self.stamps[IMAGE] = where["image_stamp"]
        self.runs = runs
        self.trusted_until = 0.0
        self.used: "dict[str, str]" = {}

    def check(self) -> "dict[str, str]":
        """Look at all of them. Returns the digest of each input; untouched files cost a stat.

        Raises
        ------
        InputError
            One has changed since it was submitted, or since the run that made it has ended.
        """
        began = time.monotonic()
        if began >= self.trusted_until:
            self.used = {name: self._check(name) for name in sorted(self.digests)}
            self.used.pop(IMAGE, None)
            now = time.monotonic()
            self.trusted_until = now + TRUST * (now - began)
        return self.used

    def _check(self, name: str) -> str:
        path, digest = self.paths[name], self.digests[name]
        try:
            if name in self.origins:
                made = self._made(**self.origins[name])
                digest, stamp = made["sha256"], made["stamp"]
            else:
                stamp = self.stamps[name] if name in self.stamps else self._brought(name)
            now = wire.stamp_path(path)
            if now == stamp:
                return str(digest)
            found = wire.digest_path(path)[0]
        except OSError as error:
            raise InputError("%s: %s cannot be read: %s" % (called(name), path, error.strerror))
        if found != digest:
            raise InputError(
                "%s: %s is not what it was: its content has changed since the job was "
                "submitted" % (called(name), path)
            )
        if name not in self.origins:
            self.stamps[name] = now
        return found

    def _brought(self, name: str) -> str:
        """The stamp of an input that was brought here; empty if its marker was lost in part."""
        path, digest = self.paths[name], str(self.digests[name])
        marker = wire.data_marker(digest, os.path.basename(path))
        try:
            whole = wire.read_json(os.path.join(os.path.dirname(self.runs), marker))
        except ValueError:
            return ""
        if whole is None:
            raise InputError("%s: %s has not been brought here whole" % (called(name), path))
        return str(whole["stamp"])

    def _made(self, run: str, output: str) -> "dict[str, str]":
        """What a run said of its output at its end."""
        batch, index = wire.run_parts(run)
        attempts = wire.Attempts(os.path.join(self.runs, batch))
        numbers = attempts.listing().get(index, {})
        end = attempts.read(index, max(numbers), "end") if numbers else None
        made: "dict[str, str] | None" = (end or {}).get("outputs", {}).get(output)
        if made is None:
            raise InputError("run %s has left no %r" % (run, output))
        return made


def called(name: str) -> str:
    """What errors call an input, or the image."""
    return name if name == IMAGE else "input %r" % name
