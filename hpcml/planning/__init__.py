"""(Resolved, Site) → Plan. Pure: opens nothing, asks nothing, knows no clock."""

from hpcml.planning.model import Plan, run_digest
from hpcml.planning.planner import make_plan

__all__ = ["Plan", "make_plan", "run_digest"]
