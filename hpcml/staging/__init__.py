"""Data on its way: a job's inputs and image to a site, once; what a run has left, back."""

from hpcml.staging.fetching import Left, fetch
from hpcml.staging.inputs import Input, stage, staged

__all__ = ["Input", "Left", "fetch", "stage", "staged"]
