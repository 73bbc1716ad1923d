"""What is said to a site before hpcml is there.

The login shell is the user's own, may be a csh, and prints what it likes. It is asked for /bin/sh
alone, which reads its script from standard input; what comes before a line that begins with a
random word is not ours. The script becomes the site's Python, and that becomes hpcml's helper, once
hpcml's archive is there.
"""

from __future__ import annotations

import shlex

SHELL = "exec /bin/sh"  # the same in every shell

# Python 2 must get as far as saying that it is too old.
PYTHON = r"""
import json, os, stat, sys

class NotPrivate(Exception):
    pass

def say(**said):
    os.write(1, (word + " " + json.dumps(said) + "\n").encode("ascii"))

def private(path, mask):
    status = os.lstat(path)
    if status.st_uid != os.geteuid() or status.st_mode & mask:
        raise NotPrivate(path)
    return status

def folder(path, mask):
    if not os.path.isdir(path):
        os.makedirs(path, 0o700)
    private(os.path.realpath(path), mask)

def receive(path, size):
    say(send=size)
    temporary = "%s.tmp-%d-%s" % (path, os.getpid(), word)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while size:
            piece = os.read(0, min(size, 1 << 20))
            if not piece:
                sys.exit(1)
            size -= len(piece)
            while piece:
                piece = piece[os.write(descriptor, piece):]
        os.fsync(descriptor)  # its length is what it is known by, and must not be there alone
        os.close(descriptor)
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)

def is_whole(path, size):
    if not os.path.lexists(path):
        return False
    status = private(path, 0o022)
    return stat.S_ISREG(status.st_mode) and status.st_size == size

def main(workspace, library, size):
    os.umask(0o077)
    version = "%d.%d.%d" % sys.version_info[:3]
    if sys.version_info < (3, 6):
        return say(old=version)
    workspace = os.path.expanduser(workspace)
    folder(workspace, 0o077)
    folder(workspace + "/lib", 0o022)
    path = workspace + "/lib/" + library
    if not is_whole(path, size):
        receive(path, size)
    os.chdir(workspace)
    say(serve=os.getcwd(), workspace=workspace)
    argv = [sys.executable, "-I", "-S", "-X", "utf8", path, "serve", workspace]
    if sys.version_info < (3, 7):  # it knows no -X utf8
        if "LC_ALL" not in os.environ:
            os.environ.update(LC_ALL="C.UTF-8", HPCML_LOCALE="1")
    os.execv(sys.executable, argv)

word = sys.argv[1]
try:
    main(sys.argv[2], sys.argv[3], int(sys.argv[4]))
except NotPrivate as error:
    path = str(error)
    advice = "Run `chmod go-rwx %s`, or choose another workspace in the settings." % path
    say(problem="%s is not this user's alone" % path, advice=advice)
except EnvironmentError as error:
    say(problem="%s: %s" % (error.filename, error.strerror), advice="Look at the path by hand.")
"""


def script(word: str, python: str, workspace: str, library: str, size: int) -> bytes:
    """What /bin/sh reads.

    Parameters
    ----------
    word : str
        What the lines begin with that are answers.
    python : str
        The site's Python for hpcml's helper.
    workspace : str
        Of which ``~/`` is the home there.
    library : str
        File name of hpcml's archive.
    size : int
        Its bytes.
    """
    # As "-I -S" starts it, in the words of a Python that is too old.
    start = [python, "-E", "-s", "-S", "-c", PYTHON, word, workspace, library, str(size)]
    lines = [
        f"command -v {shlex.quote(python)} > /dev/null || "
        f"""{{ echo; echo '{word} {{"missing": true}}'; exit; }}""",
        "cd /",
        "echo",
        f"exec {shlex.join(start)}",
        "",
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")
