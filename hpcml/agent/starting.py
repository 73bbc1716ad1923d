"""Starting a command: ``subprocess`` could, and takes a fifth of an agent's start to import."""

import errno
import fcntl
import os
import signal

from hpcml.agent.supervise import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Collection, Mapping, NoReturn, Sequence

# What this process hears, or ignores as every Python does. A command finds it as others do.
OURS = (*FORWARDED, "SIGCHLD", "SIGPIPE", "SIGXFSZ")


def start(
    argv: "Sequence[str]",
    folder: str,
    environment: "Mapping[str, str]",
    streams: "Sequence[int]",
    enter: "Callable[[], None] | None" = None,
    keep: "Collection[int]" = (),
) -> int:
    """Start a command in a session of its own. Returns its process id.

    Parameters
    ----------
    argv : sequence of str
    folder : str
        Its current folder.
    environment : dict
        It is looked for on the PATH of this.
    streams : sequence of int
        Descriptors that become its stdout and stderr. Its stdin is empty.
    enter : callable, optional
        Called in the new process, before that becomes the command.
    keep : collection of int
        Further descriptors that it keeps.

    Raises
    ------
    OSError
        It cannot be run.
    """
    reader, writer = os.pipe()
    signals = [getattr(signal, name) for name in OURS]
    with open(reader, "rb") as told:
        # One that comes before the command is there would be taken for a signal to this process.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            child = os.fork()
            if child == 0:
                try:
                    os.setsid()
                    os.chdir(folder)
                    writer = _arrange(streams, keep, writer)
                    if enter is not None:
                        enter()
                    for number in signals:
                        signal.signal(number, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                    _execute(list(argv), environment)
                except BaseException as error:
                    _fail(writer, error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(writer)
        said = told.read()  # nothing, once it is the command
    if said:
        os.waitpid(child, 0)
        raise OSError(int(said), os.strerror(int(said)))
    return child


def _arrange(streams: "Sequence[int]", keep: "Collection[int]", writer: int) -> int:
    """Put the streams in their places, and close what is not kept. Returns the new writer."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    # First out of the way: any of them may lie where another one is to be.
    found = [fcntl.fcntl(it, fcntl.F_DUPFD_CLOEXEC, 3) for it in (writer, nothing, *streams)]
    writer = found[0]
    for place, descriptor in enumerate(found[1:]):
        os.dup2(descriptor, place)
    for descriptor in keep:
        os.set_inheritable(descriptor, True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != writer and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # that of the listing
    return writer


def _execute(argv: "list[str]", environment: "Mapping[str, str]") -> None:
    """As ``os.execvpe``, which would import other modules for that."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, environment)  # noqa: S606
    refused: "OSError | None" = None
    missing = OSError(errno.ENOENT, "it is nowhere on the PATH")
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        try:
            os.execve(os.path.join(folder, argv[0]), argv, environment)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = refused or error
    raise refused or missing


def _fail(writer: int, error: BaseException) -> "NoReturn":
    try:
        number = error.errno if isinstance(error, OSError) else None
        os.write(writer, b"%d" % (number or errno.EINVAL))
    finally:
        os._exit(127)
