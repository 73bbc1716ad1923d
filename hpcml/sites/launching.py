"""How ranks are started, and what runs images: a partition may differ from its site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpcml.sites.facts import Facts, Folder, Option, Text, Word


class Container(Facts):
    """What runs images."""

    runtime: Literal["apptainer", "singularity-ce", "cscs-ce", "docker", "none"] | None = Field(
        None, description="hpcml starts images by apptainer and singularity-ce."
    )
    module: Option | None = Field(None, description="Module to be loaded first.")
    where: Literal["everywhere", "compute"] = Field(
        "everywhere", description="Where it can be called."
    )
    group: Word | None = Field(None, description="Unix group of those who may.")
    access: Text = Field("", description="How one gets into the group.")
    test: list[Text] = Field(
        default_factory=list, description="Command that fails for who is not in the group."
    )
    build: Literal["yes", "no"] | None = Field(
        None, description="Whether images can be built on the site."
    )
    binds: list[Folder] = Field(
        default_factory=list, description="Folders that images are to see beside hpcml's."
    )


class Launch(Facts):
    """How srun is to start ranks, and how these meet."""

    mpi: Word | None = Field(None, description="--mpi of srun; default: the site's own choice.")
    cpu_bind: Option | None = Field(None, description="--cpu-bind of srun.")
    rendezvous_suffix: Option | None = Field(
        None, description='What makes a host name one of the fast network: "i".'
    )
    interface: Word | None = Field(
        None, description="Network interface of the fast network: NCCL and Gloo are told."
    )
