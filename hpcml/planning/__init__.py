"""(Resolved, Site) → Plan. Pure: opens nothing, asks nothing, knows no clock."""

from hpcml.planning.fitting import Fitting
from hpcml.planning.model import Plan, run_digest
from hpcml.planning.packing import PACK, lay_out
from hpcml.planning.paying import account, account_rule
from hpcml.planning.placement import fittings
from hpcml.planning.planner import make_plan

__all__ = [
    "PACK",
    "Fitting",
    "Plan",
    "account",
    "account_rule",
    "fittings",
    "lay_out",
    "make_plan",
    "run_digest",
]
