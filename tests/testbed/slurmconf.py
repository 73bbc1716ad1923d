"""Slurm's configuration, as a site would have it, and the switches that make it unfriendly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CPUS = 8  # of each node: more than the machine has, tasks are not bound
MEMORY = 16000  # MB
GPUS = 4
COMPUTE = {"cpu1": 0, "cpu2": 0, "gpu1": GPUS, "gpu2": GPUS}
ACCOUNTS = ("climate", "weather")


@dataclass(frozen=True)
class Switches:
    """What differs between sites. The defaults are Slurm's own, or friendly.

    Attributes
    ----------
    slurmdbd
        Whether there is accounting: without it no sacct, no accounts, no limits.
    max_submit_jobs
        How many jobs each user may have in the queue (`MaxSubmitJobs` of the association).
    max_array_size
        `MaxArraySize`: one more than the highest index.
    min_job_age
        Seconds after which the controller forgets a job that ended.
    account_required
        No default account: who names none is refused.
    mem_forbidden
        A job that asks for memory is refused, as where nodes are given whole.
    login_shell
        The users' shell.
    chatty
        Shells print on start, not only interactive ones.
    slurm_of_profile
        On the login node Slurm's commands are on PATH in login shells alone.
    home_inodes
        How many files a home holds; None: plenty.
    node_timeout
        Seconds until a silent node is down.
    kill_wait
        Seconds between SIGTERM and SIGKILL at the time limit.
    memory_enforced
        The kernel keeps jobs within their memory, in cgroups (of version 1, which the machine must
        have). Else Slurm looks once a second, and kills a job that has more.
    powercap_of_root
        Only root reads the nodes' powercap counters, as Linux has it. Slurm reads others.
    """

    slurmdbd: bool = True
    max_submit_jobs: int | None = None
    max_array_size: int = 1001
    min_job_age: int = 300
    account_required: bool = False
    mem_forbidden: bool = False
    login_shell: str = "/bin/bash"
    chatty: bool = False
    slurm_of_profile: bool = False
    home_inodes: int | None = None
    node_timeout: int = 10
    kill_wait: int = 2
    memory_enforced: bool = False
    powercap_of_root: bool = False


def files(switches: Switches) -> dict[str, str]:
    """What lies in ``/etc/slurm``: the text of each file by its name."""
    found = {
        "slurm.conf": slurm_conf(settings(switches), NODES, PARTITIONS),
        "gres.conf": GRES_CONF,
        "cgroup.conf": CGROUP_CONF if switches.memory_enforced else "CgroupPlugin=disabled\n",
    }
    if switches.mem_forbidden:
        found["job_submit.lua"] = memory_rule(required=False)
    return found


def memory_rule(*, required: bool) -> str:
    """``job_submit.lua`` that refuses jobs which ask for memory, or those which do not."""
    if required:
        return JOB_SUBMIT_LUA.format(refused="not asked(job)", why="Say how much memory it takes")
    why = "Memory may not be requested here: nodes are given with all of theirs"
    return JOB_SUBMIT_LUA.format(refused="asked(job)", why=why)


def settings(switches: Switches) -> dict[str, object]:
    """Of ``slurm.conf``, without nodes and partitions."""
    found: dict[str, object] = {
        "ClusterName": "box",
        "SlurmctldHost": "control",
        "SlurmUser": "slurm",
        "AuthType": "auth/munge",
        "AuthAltTypes": "auth/jwt",
        "AuthAltParameters": "jwt_key=/etc/slurm/jwt.key",
        "CredType": "cred/munge",
        "StateSaveLocation": "/var/spool/slurmctld",
        "SlurmdSpoolDir": "/run/slurm/d",
        "SlurmctldPidFile": "/run/slurm/slurmctld.pid",
        "SlurmdPidFile": "/run/slurm/slurmd.pid",
        # The machine's cores are shared by all nodes.
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SlurmdParameters": "config_overrides",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        # A box is there for minutes: what takes minutes elsewhere takes seconds.
        "SchedulerParameters": "sched_interval=5,sched_min_interval=0,bf_interval=2",
        "SlurmdTimeout": switches.node_timeout,
        "ReturnToService": 2,
        "KillWait": switches.kill_wait,
        "MinJobAge": switches.min_job_age,
        "MaxArraySize": switches.max_array_size,
        "MaxJobCount": 20000,
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "GresTypes": "gpu",
        # Memory is enforced by watching, if the kernel does not, energy comes from the nodes'
        # counters.
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherParams": "OverMemoryKill",
        "JobAcctGatherFrequency": "task=1,energy=1",
        "AcctGatherEnergyType": "acct_gather_energy/pm_counters",
        # The controller asks nodes either for their power or for whether they live: often the
        # one, hardly ever the other. (Jobs' energy does not depend on it.)
        "AcctGatherNodeFreq": 30,
        "DefMemPerCPU": MEMORY // CPUS,
    }
    if switches.slurmdbd:
        found |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "control",
            "AccountingStorageTRES": "gres/gpu",
            "AccountingStorageEnforce": "associations,limits",
        }
    if switches.memory_enforced:
        found["TaskPlugin"] = "task/cgroup"
        del found["JobAcctGatherParams"]
    if switches.mem_forbidden:
        found["JobSubmitPlugins"] = "lua"
    return found


def slurm_conf(
    settings: Mapping[str, object], nodes: Iterable[str], partitions: Iterable[str]
) -> str:
    """The text of ``slurm.conf``."""
    lines = [f"{key}={value}" for key, value in settings.items()]
    return "\n".join([*lines, *nodes, *partitions, ""])


SHAPE = f"CPUs={CPUS} Sockets=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={MEMORY}"
NODES = tuple(
    f"NodeName={name} {SHAPE}" + (f" Gres=gpu:a100:{gpus}" if gpus else "") + " State=UNKNOWN"
    for name, gpus in COMPUTE.items()
)

# `short` has a walltime limit of minutes, `whole` gives whole nodes, jobs in `low` give way.
PARTITIONS = (
    "PartitionName=DEFAULT State=UP MaxTime=1-00:00:00 DefaultTime=00:30:00 PriorityTier=10 "
    "PreemptMode=OFF",
    "PartitionName=cpu Nodes=cpu[1-2] Default=YES",
    "PartitionName=gpu Nodes=gpu[1-2]",
    "PartitionName=short Nodes=cpu[1-2] MaxTime=00:05:00 DefaultTime=00:01:00",
    "PartitionName=whole Nodes=cpu[1-2],gpu[1-2] OverSubscribe=EXCLUSIVE",
    "PartitionName=low Nodes=cpu[1-2],gpu[1-2] PriorityTier=1 PreemptMode=REQUEUE",
)

CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
"""

GRES_CONF = """\
AutoDetect=off
NodeName=gpu[1-2] Name=gpu Type=a100 File=/dev/nvidia[0-3]
"""

JOB_SUBMIT_LUA = """\
local function said(value)
    return value ~= nil and value ~= slurm.NO_VAL64
end

local function asked(job)
    return said(job.min_mem_per_node) or said(job.min_mem_per_cpu)
end

function slurm_job_submit(job, partitions, user)
    if {refused} then
        slurm.log_user("{why}")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end

return slurm.SUCCESS
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key=/etc/slurm/jwt.key
DbdHost=control
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
AllowNoDefAcct=yes
PidFile=/run/slurm/slurmdbd.pid
"""
