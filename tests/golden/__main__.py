"""``python -m tests.golden``: write the plans of all shipped sites anew, and show what changed."""

from __future__ import annotations

import difflib
import sys

from tests.golden.plans import FOLDER, cases, sites, text


def main() -> int:
    written = set()
    for site in sites():
        for case in cases(site):
            before = case.file.read_text() if case.file.exists() else ""
            after = text(case.plan())
            name = str(case.file.relative_to(FOLDER))
            change = difflib.unified_diff(
                before.splitlines(True), after.splitlines(True), name, name
            )
            sys.stdout.writelines(change)
            case.file.parent.mkdir(exist_ok=True)
            case.file.write_text(after)
            written.add(case.file)
    for gone in {*FOLDER.glob("*/*.txt")} - written:
        print(f"{gone.relative_to(FOLDER)} is gone")
        gone.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
