from hpcml import records as records
from hpcml.comparison import compare as compare
from hpcml.errors import HpcmlError as HpcmlError
from hpcml.finding import attach as attach
from hpcml.finding import runs as runs
from hpcml.injob import checkpoint as checkpoint
from hpcml.injob import describe as describe
from hpcml.injob import input_path as input_path
from hpcml.injob import log as log
from hpcml.injob import output_path as output_path
from hpcml.injob import params as params
from hpcml.injob import phase as phase
from hpcml.integrations.syncing import sync as sync
from hpcml.job import Checkpoint as Checkpoint
from hpcml.job import Dataset as Dataset
from hpcml.job import Job as Job
from hpcml.job import Output as Output
from hpcml.job import Resources as Resources
from hpcml.job import Sweep as Sweep
from hpcml.planning import Plan as Plan
from hpcml.pruning import prune as prune
from hpcml.run import Run as Run
from hpcml.run import Runs as Runs
from hpcml.submission import plan as plan
from hpcml.submission import resubmit as resubmit
from hpcml.submission import submit as submit

__version__: str
