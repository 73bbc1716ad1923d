"""The demo on a supercomputer in a box: from outside, over SSH, as one of its users.

    python -m examples.box         in the repository's root, as root

The box comes up, the demo runs there, the box goes down: at Ctrl-C and after a failure, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.testbed.box import Box, this_python
from tests.testbed.machine import CannotHaveBox
from tests.testbed.slurmconf import COMPUTE

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "temperature"
HOME = HERE / "home"
WATTS = 400.0  # what each compute node draws

PYTHON = "/home/alice/venv/bin/python"
# On a real site one makes a virtual environment, and installs into it what the demo needs. The
# hosts of a box see those of this machine.
MAKE_PYTHON = """
mkdir -p ~/venv/bin ~/venv/lib/"$2"
ln -s "$1" ~/venv/bin/python
echo "home = ${1%/*}" >~/venv/pyvenv.cfg
ln -s "$3" ~/venv/lib/"$2"/site-packages
"""

# Energy stands with the batch steps, in J.
COLUMNS = "JobID,JobName%32,Partition,NodeList,State,ElapsedRaw,ConsumedEnergyRaw"
ACCOUNTED = ["sacct", f"--format={COLUMNS}"]

SETTINGS = """\
sites:
  box:
    ssh_config: {ssh_config}
    python: {python}
"""


def main() -> int:
    """Run the demo; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        with Box(binds=this_python(), powercap_of_root=True) as box:
            took = time.monotonic() - began
            print(f"A supercomputer in a box is up after {took:.1f} s.", flush=True)
            for host in COMPUTE:
                box.set_power(host, (60.0, WATTS))
            make_python(box)
            environment = environment_of_user(box)
            code = subprocess.run(demo(), env=environment, check=False).returncode
            print("\nWhat Slurm itself says of it (sacct):")
            print(box.run("login", ACCOUNTED).stdout, end="")
    except CannotHaveBox as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        code = 130
    print("\nThe box is gone. What was fetched, the plots and the records stay in")
    print(f"  {HOME}")
    return code


def demo() -> list[str]:
    """The command that runs the demo on the box, and leaves what it fetches in the home."""
    hpcml = shlex.join(["env", f"HOME={HOME}", str(Path(sys.executable).with_name("hpcml"))])
    argv = [sys.executable, str(DEMO / "demo.py"), "--site", "box", "--to", str(HOME / "demo")]
    return [*argv, "--hpcml", hpcml]


def environment_of_user(box: Box) -> dict[str, str]:
    """An environment whose home has the profile of the box and settings."""
    shutil.rmtree(HOME, ignore_errors=True)
    config = HOME / ".config" / "hpcml"
    (config / "sites").mkdir(parents=True)
    shutil.copy(HERE / "box.yaml", config / "sites")
    settings = SETTINGS.format(ssh_config=box.ssh_config(), python=PYTHON)
    (config / "config.yaml").write_text(settings)
    ours = ("XDG_", "HPCML_")
    environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)}
    return {**environment, "HOME": str(HOME)}


def make_python(box: Box) -> None:
    """Make the Python of jobs on the site: this one, with its libraries."""
    real = os.path.realpath(sys.executable)
    version = f"python{sysconfig.get_python_version()}"
    libraries = sysconfig.get_path("purelib")
    box.run("login", ["sh", "-euc", MAKE_PYTHON, "sh", real, version, libraries])


if __name__ == "__main__":
    sys.exit(main())
