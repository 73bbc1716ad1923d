"""How ranks are started, and what runs images: a partition may differ from its site."""

from __future__ import annotations

from typing import Literal

from hpcml.documents import fact, facts
from hpcml.sites.facts import Folder, Option, Text, Word


@facts
class Container:
    """What runs images."""

    runtime: Literal["apptainer", "singularity-ce", "cscs-ce", "docker", "none"] | None = fact(
        default=None, description="hpcml starts images by apptainer and singularity-ce."
    )
    module: Option | None = fact(default=None, description="Module to be loaded first.")
    where: Literal["everywhere", "compute"] = fact(
        default="everywhere", description="Where it can be called."
    )
    group: Word | None = fact(default=None, description="Unix group of those who may.")
    access: Text = fact(default="", description="How one gets into the group.")
    test: list[Text] = fact(
        default_factory=list, description="Command that fails for who is not in the group."
    )
    build: Literal["yes", "no"] | None = fact(
        default=None, description="Whether images can be built on the site."
    )
    binds: list[Folder] = fact(
        default_factory=list, description="Folders that images are to see beside hpcml's."
    )


@facts
class Launch:
    """How srun is to start ranks, and how these meet."""

    mpi: Word | None = fact(
        default=None, description="--mpi of srun; default: the site's own choice."
    )
    cpu_bind: Option | None = fact(default=None, description="--cpu-bind of srun.")
    rendezvous_suffix: Option | None = fact(
        default=None, description='What makes a host name one of the fast network: "i".'
    )
    interface: Word | None = fact(
        default=None, description="Network interface of the fast network: NCCL and Gloo are told."
    )
