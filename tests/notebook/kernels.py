"""A real kernel, and what a notebook would show below its cells."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

from tests.conftest import eventually

PATIENCE = 120  # seconds for a cell


@dataclass
class Shown:
    """What stands below a cell, and how often it was rewritten.

    Attributes
    ----------
    outputs : list of dict
        By MIME type, in order; ``error`` has the name of an exception.
    displays : dict
        Index into the outputs by display id.
    """

    printed: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    displays: dict[str, int] = field(default_factory=dict)
    updates: int = 0

    def take(self, message: dict[str, Any]) -> None:
        """What a notebook does with a message of the kernel."""
        kind, content = message["msg_type"], message["content"]
        name = content.get("transient", {}).get("display_id")
        if kind == "stream":
            self.printed += content["text"]
        elif kind in ("display_data", "execute_result"):
            if name is not None:
                self.displays[name] = len(self.outputs)
            self.outputs.append(content["data"])
        elif kind == "update_display_data":
            self.updates += 1
            self.outputs[self.displays[name]] = content["data"]
        elif kind == "error":
            self.outputs.append({"error": content["ename"]})

    @property
    def text(self) -> str:
        """The last output, as text."""
        return str(self.outputs[-1].get("text/plain", self.outputs[-1])) if self.outputs else ""


class Kernel:
    """A kernel that runs cells.

    Parameters
    ----------
    folder : Path
        Where it works.
    """

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = start_new_kernel(cwd=str(folder))

    def run(self, cell: str, watch: Callable[[Shown], object] = lambda shown: None) -> Shown:
        """Run a cell; ``watch`` is called whenever something new is shown."""
        shown = Shown()

        def take(message: dict[str, Any]) -> None:
            shown.take(message)
            watch(shown)

        self.client.execute_interactive(cell, output_hook=take, timeout=PATIENCE)
        return shown

    def begin(self, cell: str, until: Callable[[Shown], object]) -> None:
        """Have it run a cell, and return when something is shown, while it goes on."""
        shown = Shown()
        self.client.execute(cell)
        while not until(shown):
            shown.take(self.client.get_iopub_msg(timeout=PATIENCE))

    def restart(self) -> None:
        """As the menu does."""
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=PATIENCE)

    def kill(self) -> None:
        """SIGKILL; a new one is started once it is gone."""
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        eventually(lambda: not self.manager.is_alive())
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=PATIENCE)

    def stop(self) -> None:
        """End it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
