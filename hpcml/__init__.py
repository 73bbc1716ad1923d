"""hpcml: train and run machine-learning models on supercomputers.

>>> import hpcml
>>> run = hpcml.submit("train.py", site="local")    # doctest: +SKIP

The names below are the public interface. Those that a job's own code uses (``params``, ``phase``,
``log`` ...) are here at once and need nothing but Python 3.6; the others are loaded when used.
"""

from hpcml.injob import checkpoint, describe, input_path, log, output_path, params, phase

__version__ = "0.1.0.dev0"

_LAZY = {
    "Job": "hpcml.job",
    "Resources": "hpcml.job",
    "Sweep": "hpcml.job",
    "Dataset": "hpcml.job",
    "Output": "hpcml.job",
    "Checkpoint": "hpcml.job",
    "Plan": "hpcml.planning",
    "plan": "hpcml.submission",
    "submit": "hpcml.submission",
    "Run": "hpcml.run",
    "Runs": "hpcml.run",
    "attach": "hpcml.run",
    "runs": "hpcml.run",
    "HpcmlError": "hpcml.errors",
}

__all__ = [
    "Checkpoint",
    "Dataset",
    "HpcmlError",
    "Job",
    "Output",
    "Plan",
    "Resources",
    "Run",
    "Runs",
    "Sweep",
    "attach",
    "checkpoint",
    "describe",
    "input_path",
    "log",
    "output_path",
    "params",
    "phase",
    "plan",
    "runs",
    "submit",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError("module 'hpcml' has no attribute %r" % name)


def __dir__() -> "list[str]":
    return sorted(set(globals()) | set(_LAZY))
