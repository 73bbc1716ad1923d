"""The container image of a job, at its site: once by digest, and verified there."""

from __future__ import annotations

import posixpath
from pathlib import Path

from hpcml.agent import wire
from hpcml.errors import JobError, TransportError
from hpcml.planning import Plan
from hpcml.transports import Transport


def staged_image(plan: Plan) -> str | None:
    """Where the image of a plan lies in the workspace of its site, if it is brought there."""
    digest, workspace = plan.what["image"], plan.where["workspace"]
    path = wire.image_file(str(digest))
    return path if plan.where["image"] == posixpath.join(workspace, path) else None


def stage_image(digest: str, source: Path, files: Transport) -> None:
    """Bring an image to the site.

    Raises
    ------
    JobError
        It has changed since it was digested.
    TransportError
        The site cannot be reached, or its disk is full; or the copy there is not what was sent.
    """
    path = wire.image_file(digest)
    for _ in range(2):
        if files.put_verified({path: source}, {path: digest}, ()):
            problem = f"{source} has changed since it was looked at, or while it was sent"
            raise JobError("image", problem, "Submit again when nobody writes to it.")
        said = files.digest([path]).get(path)
        if said is not None and said.sha256 == digest:
            return
        files.remove([path])  # after a power loss it may be there without its content
    raise TransportError(
        f"the copy of {source} on the site is not what was sent",
        "Look for who else writes to the workspace, or whether its disk fails.",
    )
