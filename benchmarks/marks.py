"""What a mark in a running job costs, beside its line made and written by hand.

Beside the bare system call, too, without a limit: that a line is made takes as long as the call
where calls are fast, and a third of it where they are slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CODE = """
import json, os, statistics, sys, time, timeit

import hpcml

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
line = b'{"m":12345678901234,"e":"log","step":3,"v":{"loss":0.5123}}\\n'


def bare():
    os.write(descriptor, line)


def log_by_hand():
    made = b'{"m":%d,"e":"log","step":%d,"v":{"loss":%a}}\\n' % (time.monotonic_ns(), 3, 0.5123)
    os.write(descriptor, made)


def phase_by_hand():
    os.write(descriptor, b'{"m":%d,"e":"begin","phase":"epoch"}\\n' % time.monotonic_ns())


def log():
    hpcml.log(step=3, loss=0.5123)


def phase():
    with hpcml.phase("epoch"):
        pass


measured = bare, log, log_by_hand, phase, phase_by_hand
taken = [[timeit.timeit(f, number=2000) / 2000 for f in measured] for _ in range(31)]
found = {f.__name__: statistics.median(column) for f, column in zip(measured, zip(*taken))}
print(json.dumps(found | {"phase": found["phase"] / 2}))
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """``log``, and one mark of ``phase`` (it makes two)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "0").mkdir()
        environment = {**os.environ, "HPCML_BATCH": folder, "HPCML_INDEX": "0"}
        argv = [sys.executable, "-c", CODE, f"{folder}/bare"]
        output = subprocess.run(argv, env=environment, check=True, capture_output=True).stdout
    found = {name: seconds * 1e6 for name, seconds in json.loads(output).items()}
    for name in ("log", "phase"):
        ours, by_hand = found[name], found[f"{name}_by_hand"]
        yield row(f"mark: {name}", "µs", ours, "by hand", by_hand, limit=1.5)
        yield row(f"mark: {name}", "µs", ours, "os.write", found["bare"])
