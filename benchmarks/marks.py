"""What a mark in a running job costs, beside the bare system call it would be at least."""

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
import json, os, statistics, sys, timeit

import hpcml

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
line = b'{"m":12345678901234,"e":"log","step":3,"v":{"loss":0.5123}}\\n'


def bare():
    os.write(descriptor, line)


def log():
    hpcml.log(step=3, loss=0.5123)


def phase():
    with hpcml.phase("epoch"):
        pass


taken = [[timeit.timeit(f, number=2000) / 2000 for f in (bare, log, phase)] for _ in range(31)]
bare, log, phase = (statistics.median(column) for column in zip(*taken))
print(json.dumps({"bare": bare, "log": log, "phase": phase / 2}))
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """``log`` and one mark of ``phase`` (it makes two) beside ``os.write`` of such a line."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "0").mkdir()
        environment = {**os.environ, "HPCML_BATCH": folder, "HPCML_INDEX": "0"}
        argv = [sys.executable, "-c", CODE, f"{folder}/bare"]
        output = subprocess.run(argv, env=environment, check=True, capture_output=True).stdout
    found = {name: seconds * 1e6 for name, seconds in json.loads(output).items()}
    for name in ("log", "phase"):
        yield row(f"mark: {name}", "µs", found[name], "os.write", found["bare"], limit=2.0)
