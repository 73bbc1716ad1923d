"""The energy of runs on record, and the schema that it came with."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import hpcml
from hpcml import records
from hpcml.agent import wire
from hpcml.records import schema
from hpcml.timeline import tell
from tests.byhand import ByHand
from tests.records.telling import NOW, SECOND, ended, lines_of, log
from tests.unit.test_energy import lines, readings
