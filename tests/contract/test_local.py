"""The contract of transports, on this machine's files."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcml.settings import Binding
from hpcml.testing.transports import TransportSuite
from hpcml.transports import Transport
from hpcml.transports.local import LocalTransport
from tests.conftest import eventually
from tests.contract.conftest import a_site


class TestLocalTransport(TransportSuite):
    @pytest.fixture
    def make(self, home: Path) -> Callable[[], Transport]:
        binding = Binding(str(home / "work" / "space"), "python3", "python3", "")
        return lambda: LocalTransport(a_site(), binding)


def test_a_command_that_hangs_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """And not with a fork of that."""
    program = """
        import os, sys, threading, time
        from hpcml.settings import Binding
        from hpcml.transports.local import LocalTransport
        from tests.contract.conftest import a_site

        files = LocalTransport(a_site(), Binding(sys.argv[1] + "/ws", "python3", "python3", ""))
        argv = ["/bin/sh", "-c", 'echo $$ > "$0/new"; mv "$0/new" "$0/pid"; exec sleep 1000']
        threading.Thread(target=files.run, args=[[*argv, sys.argv[1]]], daemon=True).start()
        while not os.path.exists(sys.argv[1] + "/pid"):
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            sys.exit()
        os.waitpid(child, 0)
        print(os.path.exists("/proc/" + open(sys.argv[1] + "/pid").read().strip()))
    """
    argv = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    process = (tmp_path / "pid").read_text().strip()
    eventually(lambda: not Path("/proc", process).exists())
