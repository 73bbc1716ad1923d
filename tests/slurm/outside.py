"""hpcml outside of a supercomputer in a box, which it reaches by ssh as a user of it."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from tests.slurm.site import PROFILE
from tests.testbed.box import Box


class Outside:
    """This process's hpcml, with a site called ``box`` that it reaches by ssh.

    Attributes
    ----------
    there : str
        A folder that all hosts of the box see, by their name for it.
    folder : Path
        The same one, as this machine finds it.
    """

    def __init__(
        self,
        box: Box,
        home: Path,
        *,
        facts: str = "",
        partition: str = "",
        account: str = "",
        workspace: str = "",
    ) -> None:
        self.box = box
        self.there = f"/scratch/{uuid.uuid4().hex[:8]}"
        box.run("login", ["mkdir", "-m", "700", self.there])
        self.folder = box.path("login", self.there)
        profile = PROFILE.format(home=self.there, facts=facts, partition=partition)
        profile = profile.replace("transport: local", "transport: ssh\nssh: {host: box}")
        profile = profile.replace(f"{self.there}/ws", workspace or f"{self.there}/ws")
        config = home / "config" / "hpcml"
        (config / "sites").mkdir(parents=True)
        (config / "sites" / "box.yaml").write_text(profile)
        python = os.path.realpath(sys.executable)
        yours = f"ssh_config: {box.ssh_config()}, python: {python}"
        yours += f", account: {account}" if account else ""
        (config / "config.yaml").write_text(f"sites: {{box: {{{yours}}}}}\n")
