"""What a container image says of itself, in the header of the SIF format.

Source of the header's layout: https://github.com/apptainer/sif, ``pkg/sif/sif.go``.
"""

from __future__ import annotations

HEADER = 48  # bytes: a line that starts the image, the magic word, version, architecture
MAGIC = slice(32, 42), b"SIF_MAGIC\0"
ARCHITECTURE = slice(45, 47)
NAMES = {b"01": "i386", b"02": "x86_64", b"03": "arm", b"04": "aarch64", b"05": "ppc64"}
NAMES |= {b"06": "ppc64le", b"11": "s390x", b"12": "riscv64"}


def architecture(path: str) -> str | None:
    """For which CPUs an image is built, as ``uname -m`` says it; ``None``: that cannot be told."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER)
    except OSError:
        return None
    place, magic = MAGIC
    return NAMES.get(header[ARCHITECTURE]) if header[place] == magic else None
