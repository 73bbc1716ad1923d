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
    "plan": "hpcml.offline",
    "match": "hpcml.matching",
    "submit": "hpcml.submission",
    "resubmit": "hpcml.submission",
    "Run": "hpcml.run",
    "Runs": "hpcml.run",
    "attach": "hpcml.finding",
    "runs": "hpcml.finding",
    "records": "hpcml.records",
    "sync": "hpcml.integrations.syncing",
    "compare": "hpcml.comparison",
    "prune": "hpcml.pruning",
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
    "compare",
    "describe",
    "input_path",
    "log",
    "match",
    "output_path",
    "params",
    "phase",
    "plan",
    "prune",
    "records",
    "resubmit",
    "runs",
    "submit",
    "sync",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        try:
            module = importlib.import_module(_LAZY[name])
            value = module if _LAZY[name] == "hpcml." + name else getattr(module, name)
        except Exception as error:
            _explain(name, error)
            raise
        globals()[name] = value
        return value
    raise AttributeError("module 'hpcml' has no attribute %r" % name)


def _explain(name: str, error: Exception) -> None:
    """Raise what tells more than an import's error in a job, whose Python has not chosen hpcml."""
    import sys

    advice = "Install hpcml into a Python, and name that in the settings: sites.<site>.python."
    if sys.version_info < (3, 11):
        which = (name, sys.executable, "%d.%d" % sys.version_info[:2], advice)
        raise ImportError("hpcml.%s needs Python 3.11 or newer, and %s is %s\n  %s" % which)
    if isinstance(error, ModuleNotFoundError):
        from hpcml.errors import HpcmlError

        missing = (name, error.name, sys.executable)
        problem = "hpcml.%s needs the package %r, which %s does not have" % missing
        raise HpcmlError(problem, advice) from error


def __dir__() -> "list[str]":
    return sorted(set(globals()) | set(_LAZY))
