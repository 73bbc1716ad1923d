"""A warm interpreter: it has the job's imports done, and forks for each run of a function.

It is one in the job's own Python (its other half: hpcml.call), asked through a socket. What it
forks tells its process id, it waits for that, and tells how it ended. Should it die meanwhile, the
run's process becomes a child of this agent, which adopts orphans.
"""

import json
import socket
import subprocess

from hpcml.agent import supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Warm:
    """The process, and the way to ask it.

    Parameters
    ----------
    argv : list of str
        Its command; the number of the socket's descriptor is appended.
    """

    def __init__(
        self, argv: "list[str]", environment: "dict[str, str]", streams: "list[int]"
    ) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        except OSError:
            self.socket.close()
            raise
        finally:
            theirs.close()
        self.pid = self.process.pid

    def close(self) -> None:
        """Let it go: it ends when nobody can ask it any more."""
        self.socket.close()

    def fork(self, request: "dict[str, Any]") -> "Fork":
        """Have it fork for a run."""
        self.socket.sendall(json.dumps(request).encode("ascii") + b"\n")
        return Fork(self)

    def lost(self) -> None:
        """It has ended, and was collected."""
        self.process.returncode = 0


class Used:
    """Of what ``os.wait4`` says of a process: CPU time in s, memory in KiB."""

    def __init__(self, ru_utime: float, ru_stime: float, ru_maxrss: int) -> None:
        self.ru_utime, self.ru_stime, self.ru_maxrss = ru_utime, ru_stime, ru_maxrss


class Fork(supervise.Command):
    """A run's process, or the warm interpreter while that has not answered yet.

    The interpreter may refuse to fork: then it ends, and a fresh one must do.
    """

    def __init__(self, warm: Warm) -> None:
        super().__init__(warm.pid)
        self.warm = warm
        self._listening = True
        self._heard = b""

    def awaited(self) -> "list[int]":
        return [self.warm.socket.fileno()] if self._listening else []

    def hear(self) -> None:
        while self._listening:
            try:
                piece = self.warm.socket.recv(4096, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                piece = b""
            self._listening = bool(piece)  # else it has died: what it forked comes to us
            self._heard += piece
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                self._learn(json.loads(line.decode("ascii")))

    def _learn(self, answer: "dict[str, Any]") -> None:
        if "pid" in answer:
            self.pid = answer["pid"]
            return
        self._listening = False  # there is nothing more to say
        if "refused" in answer:
            self.refused = answer["refused"]
        else:
            self.status, self.used = answer["ended"], Used(**answer["usage"])
