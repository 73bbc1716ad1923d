"""Data on its way: a job's inputs to a site, once, and what a run has left back from there."""

from hpcml.staging.fetching import Left, fetch
from hpcml.staging.inputs import Input, stage, staged_inputs

__all__ = ["Input", "Left", "fetch", "stage", "staged_inputs"]
