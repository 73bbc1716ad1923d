"""What can be said about the machine a run is on, from files that any user may read."""

import os

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def host_facts() -> "dict[str, Any]":
    """CPU model, cores, memory, system and accelerators of this machine.

    Returns
    -------
    dict
        ``cores`` are those this process may use, ``memory`` is in bytes; what cannot be read is
        ``None``.
    """
    system = os.uname()
    return {
        "host": system[1],
        "kernel": system[2],
        "architecture": system[4],
        "os": _after("/etc/os-release", "PRETTY_NAME=", '"'),
        "boot": wire.boot_id() or None,
        "cpu": cpu_model(),
        "cores": cores(),
        "memory": memory(),
        "accelerators": accelerators(),
    }


def cores() -> int:
    """Number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def memory() -> "int | None":
    """Bytes of memory of this machine."""
    text = _after("/proc/meminfo", "MemTotal:")
    return int(text.split()[0]) * 1024 if text else None


def cpu_model() -> "str | None":
    """The CPU's name as the kernel tells it; Arm kernels tell numbers only."""
    name = _after("/proc/cpuinfo", "model name", ": \t")
    return name or _after("/proc/cpuinfo", "CPU part", ": \t")


def accelerators() -> "list[dict[str, str | None]]":
    """Accelerators whose device files are visible, with the driver's name for them if it has one.

    Returns
    -------
    list of dict
        ``kind`` (``nvidia``, ``amd``, ``graphcore``) and ``device``; ``model`` where known.
    """
    found: "list[dict[str, str | None]]" = []
    models = {}
    for card in _names("/proc/driver/nvidia/gpus"):
        path = "/proc/driver/nvidia/gpus/%s/information" % card
        minor = _after(path, "Device Minor:")
        models["/dev/nvidia%s" % minor] = _after(path, "Model:")
    devices = _names("/dev")
    for device in _numbered(devices, "nvidia"):
        found.append({"kind": "nvidia", "device": device, "model": models.get(device)})
    if os.path.exists("/dev/kfd"):
        for name in _names("/dev/dri"):
            if name.startswith("renderD"):
                found.append({"kind": "amd", "device": "/dev/dri/" + name, "model": None})
    for device in _numbered(devices, "ipu"):
        found.append({"kind": "graphcore", "device": device, "model": None})
    return found


def _names(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _numbered(names: "list[str]", kind: str) -> "list[str]":
    """``/dev/nvidia0`` and so on, in the order of their numbers."""
    numbers = [name[len(kind) :] for name in names if name.startswith(kind)]
    return ["/dev/%s%s" % (kind, n) for n in sorted(filter(str.isdigit, numbers), key=int)]


def _after(path: str, key: str, strip: str = " \t") -> "str | None":
    """The rest of the first line that starts with ``key``; ``None`` if there is none."""
    try:
        with open(path, errors="replace") as file:
            for line in file:
                if line.startswith(key):
                    return line[len(key) :].strip().strip(strip + " \t") or None
    except OSError:
        pass
    return None
