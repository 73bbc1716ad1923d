"""The code of the pages on other tools runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("submitit.md", "Imported(new=2, known=0, unfinished=0, refused=())"),
        ("mlflow.md", "'width': '64'"),
    ],
)
def test_the_code_of_a_page_runs(
    page: str, printed: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    blocks = BLOCK.findall((DOCS / page).read_text())
    (project / "page.py").write_text("\n".join(blocks))
    done = subprocess.run(
        ["sh", "-c", f"umask 022; exec {sys.executable} -W error::UserWarning page.py"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
