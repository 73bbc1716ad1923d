"""What is said to a site before hpcml is there.

The login shell is the user's own, may be a csh, and prints what it likes. It is asked for /bin/sh
alone, which reads its script from standard input; what comes before a line that begins with a
random word is not ours. The script becomes the site's Python, and that becomes hpcml's helper, once
hpcml's archive is there. Where only a login shell finds Slurm, if need be with modules, the helper
gets the PATH of one.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

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
    if status.st_uid != os.geteuid():
        import pwd
        try:
            owner = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            owner = "user %d" % status.st_uid
        advice = "Choose another workspace in the settings."
        raise NotPrivate("%s belongs to %s" % (path, owner), advice)
    if status.st_mode & mask:
        advice = "Run `chmod go-rwx %s`, or choose another workspace in the settings." % path
        raise NotPrivate("%s is not this user's alone" % path, advice)
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

def find_in_login_shell(wanted, before):
    # Every shell is a login shell if its name begins with a dash; a csh only if it is given nothing
    # else. Its output is no pipe: what it leaves in the background might keep that open.
    import subprocess, tempfile
    shell = os.environ.get("SHELL", "/bin/sh")
    names = "PATH", "LD_LIBRARY_PATH", "SLURM_CONF"
    tell = "; ".join('echo "%s %s=$%s"' % (word, name, name) for name in names)
    argv, null = ["-" + os.path.basename(shell)], subprocess.DEVNULL
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told:
        asked.write((before + "exec /bin/sh -c 'echo; %s'\n" % tell).encode())
        asked.seek(0)
        streams = dict(stdin=asked, stdout=told, stderr=null)
        try:
            started = subprocess.Popen(argv, executable=shell, start_new_session=True, **streams)
        except OSError:
            return
        try:
            started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)  # what it waits for, too: that might print without end
            started.wait()
            return
        told.seek(0)
        lines = told.read().decode(errors="surrogateescape").splitlines()
    start = word + " "
    found = dict(line[len(start):].split("=", 1) for line in lines if line.startswith(start))
    folders = found.get("PATH", "").split(":")
    if any(os.access(os.path.join(folder, wanted), os.X_OK) for folder in folders):
        if "LD_LIBRARY_PATH" in found:  # for Slurm's commands: a Python might not start with it
            found["HPCML_LD_LIBRARY_PATH"] = found.pop("LD_LIBRARY_PATH")
        os.environ.update((name, value) for name, value in found.items() if value)

def main(workspace, library, size, before, wanted):
    os.umask(0o077)
    version = "%d.%d.%d" % sys.version_info[:3]
    if sys.version_info < (3, 6):
        return say(old=version)
    if wanted:
        find_in_login_shell(wanted, before)
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
PATIENCE = 20  # seconds
try:
    main(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
except NotPrivate as error:
    say(problem=error.args[0], advice=error.args[1])
except EnvironmentError as error:
    say(problem="%s: %s" % (error.filename, error.strerror), advice="Look at the path by hand.")
"""


def script(
    word: str,
    python: str,
    workspace: str,
    library: str,
    size: int,
    wanted: str = "",
    modules: Sequence[str] = (),
) -> bytes:
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
    wanted : str, optional
        A command. Where it is not on PATH, the environment of a login shell is tried.
    modules : sequence of str, optional
        Those that this shell is to load first.
    """
    before = "".join(f"module load {shlex.quote(module)}\n" for module in modules)
    # As "-I -S" starts it, in the words of a Python that is too old.
    start = [python, "-E", "-s", "-S", "-c", PYTHON, word, workspace, library, str(size), before]
    lines = [
        f"command -v {shlex.quote(python)} > /dev/null || "
        f"""{{ echo; echo '{word} {{"missing": true}}'; exit; }}""",
        "cd /",
        "echo",
        f'wanted={shlex.quote(wanted)}; command -v "$wanted" > /dev/null && wanted=',
        f'exec {shlex.join(start)} "$wanted"',
        "",
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")
