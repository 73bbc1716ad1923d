"""The energy that the machine used while a run ran: what was read there, and what that tells.

The readings come from the site (:mod:`hpcml.agent.energy`). Missing is ``None`` here, never 0, and
nothing is estimated.
"""

from hpcml.energy.accounted import or_accounted
from hpcml.energy.measuring import is_awaited, measure
from hpcml.energy.model import Energy, Gap, PhaseEnergy
from hpcml.energy.readings import Readings

__all__ = ["Energy", "Gap", "PhaseEnergy", "Readings", "is_awaited", "measure", "or_accounted"]
