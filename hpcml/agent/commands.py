"""Commands that are given their input and tell what they print: those of the scheduler above all.

They find nothing of who calls in their environment, and end with who has started them.
"""

import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Sequence, Set, Tuple

PIECE = 1 << 20  # bytes, of files too, that are held at a time
MOST_PRINTED = 64 << 20  # bytes that a command may print
NOT_FOUND = 127  # exit code of what is not there, as a shell says it

# Whoever calls may be part of a job, or have preferences: SLURM_*, SBATCH_*, SQUEUE_FORMAT and
# their like would change what is asked, and a batch job is given what its submission had. Answers
# are in English; lists of array tasks come whole, times in s since 1970.
KEPT = ("PATH", "HOME", "USER", "LD_LIBRARY_PATH", "SLURM_CONF")
SAID = {"LC_ALL": "C", "TZ": "UTC", "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}


def environment() -> "Dict[str, str]":
    """What commands find: of this process's environment no more than where things are."""
    kept = {name: os.environ.get(name, "") for name in KEPT}
    # Of a login shell, where only that finds Slurm (hpcml.transports.ssh.first_contact).
    kept["LD_LIBRARY_PATH"] = os.environ.get("HPCML_LD_LIBRARY_PATH") or kept["LD_LIBRARY_PATH"]
    return dict(SAID, **{name: value for name, value in kept.items() if value})


class EndlessError(Exception):
    """A command has printed more than anybody will read."""


class Commands:
    """Those that one process has under way."""

    def __init__(self) -> None:
        self._groups: "Set[int]" = set()

    def run(self, argv: "Sequence[str]", stdin: bytes = b"") -> "Tuple[int, bytes, bytes]":
        """Run a command. Returns its exit code, or less the signal, and what it printed.

        Raises
        ------
        OSError
            It cannot be started, or somebody else has learnt how it ended (ECHILD).
        EndlessError
            It printed without end, and was killed.
        """
        streams = _Streams(stdin)
        try:
            try:
                process = _start(argv, streams.theirs)
            except FileNotFoundError as error:
                return NOT_FOUND, b"", os.fsencode("%s: %s\n" % (argv[0], error.strerror))
            self._groups.add(process)
            try:
                streams.talk()
            except BaseException:
                os.killpg(process, signal.SIGKILL)
                raise
            finally:
                try:
                    _, status = os.waitpid(process, 0)
                finally:  # whoever has waited for it: its number may be another's from now on
                    self._groups.discard(process)
        finally:
            streams.close()
        stdout, stderr = streams.printed()
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return -ended_by or os.WEXITSTATUS(status), stdout, stderr

    def end(self) -> None:
        """End those that are under way."""
        for group in list(self._groups):
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it has just ended


def _start(argv: "Sequence[str]", streams: "Tuple[int, int, int]") -> int:
    """Start a command with these as its input, output and errors, in a session of its own.

    So it does not hear a Ctrl-C, and cannot ask a terminal. Returns its process and group.
    """
    # Popen does more than is needed here, at twice the CPU time.
    others = _others()
    if hasattr(os, "posix_spawnp") and others and min(streams) > 2 and _is_somewhere():
        try:
            return os.posix_spawnp(  # novm
                argv[0],
                list(argv),
                environment(),
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, one, to) for to, one in enumerate(streams)),  # novm
                    *((os.POSIX_SPAWN_CLOSE, one) for one in others),  # novm
                ],
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
            )
        except NotImplementedError:
            pass  # built for an old C library, which has no setsid here
    import subprocess

    stdin, stdout, stderr = streams
    popen = subprocess.Popen(
        argv,
        cwd=None if _is_somewhere() else "/",  # Slurm's commands want to be somewhere
        env=environment(),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    popen.returncode = 0  # it is not Popen that waits: where others have, it would say 0
    return popen.pid


def _others() -> "List[int]":
    """Descriptors of this process besides its streams; none: that is not known.

    To ask each of them whether a command would inherit it takes longer than to have all closed.
    """
    try:
        return [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2]
    except OSError:  # not mounted here
        return []


def _is_somewhere() -> bool:
    """Whether the folder that this process is in is there."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


class _Streams:
    """The pipes to a command and from it.

    Attributes
    ----------
    theirs : tuple of int
        What the command is given as its input, output and errors.
    """

    def __init__(self, stdin: bytes) -> None:
        self._open: "Set[int]" = set()
        self._given, self._input = memoryview(stdin), -1
        try:
            if stdin:
                reading, self._input = self._pipe()
                os.set_blocking(self._input, False)
            else:
                reading = os.open(os.devnull, os.O_RDONLY)
                self._open.add(reading)
            (output, stdout), (errors, stderr) = self._pipe(), self._pipe()
        except BaseException:
            self.close()
            raise
        self.theirs = reading, stdout, stderr
        self._outputs = output, errors
        self._printed: "Dict[int, List[bytes]]" = {output: [], errors: []}

    def talk(self) -> None:
        """Write the command's input and read what it prints, until it has closed its output."""
        for descriptor in self.theirs:
            self._close(descriptor)
        poll, left = select.poll(), MOST_PRINTED
        for descriptor in self._outputs:
            poll.register(descriptor, select.POLLIN)
        if self._input >= 0:
            poll.register(self._input, select.POLLOUT)
        while self._open:
            for descriptor, _ in poll.poll():
                if descriptor == self._input:
                    goes_on = self._give()
                else:
                    piece = os.read(descriptor, PIECE)
                    self._printed[descriptor].append(piece)
                    left -= len(piece)
                    goes_on = bool(piece)
                if left < 0:
                    raise EndlessError
                if not goes_on:
                    poll.unregister(descriptor)
                    self._close(descriptor)

    def printed(self) -> "Tuple[bytes, bytes]":
        """What it has printed, and what as errors."""
        output, errors = self._outputs
        return b"".join(self._printed[output]), b"".join(self._printed[errors])

    def close(self) -> None:
        """Close whatever is open."""
        for descriptor in list(self._open):
            self._close(descriptor)

    def _give(self) -> bool:
        """Write what can be written at once; ``False``: that was all, or nobody reads it."""
        try:
            self._given = self._given[os.write(self._input, self._given[:PIECE]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return bool(self._given)

    def _pipe(self) -> "Tuple[int, int]":
        pipe = os.pipe()
        self._open.update(pipe)
        return pipe

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)
