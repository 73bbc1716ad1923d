"""Pages of the documentation, run as a reader would who types what they see, from top to bottom.

What stands in a fenced block decides what becomes of it:

``python``
    A cell of a notebook; all cells of a page have the same kernel.
``python title="train.py"``, or any other language with a title
    A file of that name, in the page's folder, or below the home if it begins with ``~/``.
``console``
    Each line that begins with ``$`` is run by bash. ``ID`` is the run that was submitted last.
Another language without a title
    Is there to be read.

What the page need not show stands in HTML comments: ``<!-- python ... -->`` is a cell as well,
``<!-- raises: NameOfError -->`` and ``<!-- exit: 70 -->`` say how the next block ends.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds for a cell: a limit for what hangs
LATEST = "import hpcml; print(hpcml.runs()[-1].id)"
_COMMENT = re.compile(r"<!--\s*(python\b|raises:|exit:)\s*(.*?)\s*-->", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A piece of a page.

    Attributes
    ----------
    line : int
    kind : {"cell", "file", "console"}
    text : str
    title : str
        Of a file.
    ends : str
        The error that it raises, or the exit code; empty: it succeeds.
    """

    line: int
    kind: str
    text: str
    title: str = ""
    ends: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """What of a page is to be run, in its order."""
    ends = ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block":
            for kind, text in _COMMENT.findall(token.content):
                if kind == "python":
                    yield Block(line, "cell", text)
                else:
                    ends = text
        elif token.type == "fence":
            language, title = token.info.split(" ")[0], _TITLE.search(token.info)
            if title:
                yield Block(line, "file", token.content, title[1])
            elif language in ("python", "console"):
                kind = "cell" if language == "python" else "console"
                yield Block(line, kind, token.content, ends=ends)
                ends = ""


class Reader:
    """Somebody who follows a page in an empty folder.

    Parameters
    ----------
    page : Path
    folder : Path
        Where they work.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        plain = {name: it for name, it in os.environ.items() if not name.startswith("XDG_")}
        self.environment = {**plain, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        self.environment["MLFLOW_DISABLE_TELEMETRY"] = "true"  # tests call nobody

    def follow(self) -> None:
        """Do all that the page says."""
        manager, client = start_new_kernel(
            kernel_name="python3", cwd=str(self.folder), env=self.environment
        )
        try:
            for block in blocks(self.page):
                self._do(block, client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)

    def _do(self, block: Block, client: BlockingKernelClient) -> None:
        where = f"{self.page.relative_to(ROOT)}:{block.line}"
        if block.kind == "file":
            path = self.folder / Path(block.title).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "console":
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    self._command(line[2:].split("  #")[0], block.ends or "0", where)
        else:
            self._cell(block, client, where)

    def _cell(self, block: Block, client: BlockingKernelClient, where: str) -> None:
        said: list[str] = []

        def hear(message: dict) -> None:
            content = message["content"]
            said.append(content.get("text") or "\n".join(content.get("traceback", ())))

        reply = client.execute_interactive(block.text, timeout=PATIENCE, output_hook=hear)
        raised = reply["content"].get("ename", "")
        assert raised == block.ends, f"{where} raised {raised or 'nothing'}:\n{''.join(said)}"

    def _command(self, command: str, ends: str, where: str) -> None:
        if re.search(r"\bID\b", command):
            command = re.sub(r"\bID\b(\.\.\.)?", self._latest(), command)
        done = self._run(["bash", "-c", command])
        told = f"{where}: {command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert str(done.returncode) == ends, told

    def _latest(self) -> str:
        return self._run([sys.executable, "-c", LATEST]).stdout.strip()

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
