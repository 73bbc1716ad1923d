"""A client's helper on a site: what a transport does with files and commands, done there.

It reads requests from its input and writes answers to its output, both as frames
(:func:`hpcml.agent.wire.frame_head`). A request's head is ``{"id", "call", "args"}``; its body is
the content of the files that it names with their sizes. An answer's is ``{"id", "result"}`` or
``{"id", "error"}``, with the site's time, and before it may come any number of ``{"id", "part"}``.

Requests with the same ``chain`` depend on each other: where one fails, none of those after it is
done. The helper ends with its input, and leaves no command behind.
"""

import io
import os
import signal
import sys
import threading
import time

from hpcml.agent import files, wire
from hpcml.agent.commands import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator

IDLE = 1800  # seconds without a request, after which the client is taken to be gone
# What takes its time, and holds up nobody else.
BESIDE = ("run", "fetch", "usage", "walk", "digest", "touch", "seal")


class Body:
    """What follows the head of a request."""

    def __init__(self, read: "Callable[[int], bytes]", size: int) -> None:
        self._read, self.left = read, size

    def pieces(self, size: int) -> "Iterator[bytes]":
        """The next so many bytes, as they come."""
        while size:
            piece = self._read(min(size, PIECE))
            size -= len(piece)
            self.left -= len(piece)
            yield piece

    def rest(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces(self.left))


class Helper:
    """One client's helper.

    Parameters
    ----------
    workspace : str
        Absolute path of the workspace.
    reading, writing : int
        Descriptors of its input and output.
    """

    def __init__(self, workspace: str, reading: int, writing: int) -> None:
        self.files = files.Files(workspace)
        self._input, self._output = os.fdopen(reading, "rb"), writing
        self._lock = threading.Lock()  # of the output
        self._broken: "set[int]" = set()  # chains in which a request has failed
        self._held: "set[int]" = set()  # descriptors that hold the workspace
        self._beside: "set[int]" = set()  # requests under way beside the conversation

    def serve(self) -> None:
        """Do what is asked until nobody asks any more."""
        signal.signal(signal.SIGALRM, self._idle)
        self._answer(0, time.time(), result=None)  # here we are
        while True:
            signal.alarm(IDLE)  # the client's machine may be gone for good, and nobody says so
            try:
                head, size = wire.read_frame_head(self._read)
                signal.alarm(0)
                body = Body(self._read, size)
                self._take(head, body)
                body.rest()
            except (EOFError, BrokenPipeError):
                return self.files.end_commands()

    def _idle(self, *_: "Any") -> None:
        """Nobody has asked for long: end, unless an answer is awaited, or something held."""
        if not self._beside and not self._held:
            self.files.end_commands()
            os._exit(0)
        signal.alarm(IDLE)

    # --- requests -------------------------------------------------------------------------

    def _take(self, head: "dict[str, Any]", body: Body) -> None:
        began = time.time()
        if head.get("chain") in self._broken:
            error = {"problem": "what it depends on was not done", "advice": "See there."}
            return self._answer(head["id"], began, error=error)
        if head["call"] not in BESIDE:
            return self._do(head, body, began)
        kept = io.BytesIO(body.rest())  # the next request follows it
        arguments = head, Body(kept.read, len(kept.getvalue())), began
        self._beside.add(head["id"])
        threading.Thread(target=self._do_beside, args=arguments, daemon=True).start()
        return None

    def _do_beside(self, head: "dict[str, Any]", body: Body, began: float) -> None:
        try:
            self._do(head, body, began)
        except BrokenPipeError:
            pass  # the client is gone, and the input ends, too
        finally:
            self._beside.discard(head["id"])

    def _do(self, head: "dict[str, Any]", body: Body, began: float) -> None:
        try:
            method = getattr(self, "_call_" + head["call"])
            result, content = method(head["id"], body, *head["args"]), ()
            if isinstance(result, tuple):
                result, content = result
            self._answer(head["id"], began, content, result=result)
        except (EOFError, BrokenPipeError):
            raise
        except files.Trouble as trouble:
            error = {"problem": trouble.problem, "advice": trouble.advice}
            self._fail(head, began, error)
        except Exception as error:  # a fault of ours: say so, and go on
            import traceback

            said = "".join(traceback.format_exception_only(type(error), error)).strip()
            problem = "hpcml's helper failed at %s: %s" % (head["call"], said)
            self._fail(head, began, {"problem": problem, "advice": "Please report it."})

    def _fail(self, head: "dict[str, Any]", began: float, error: "dict[str, str]") -> None:
        if head.get("chain") is not None:
            self._broken.add(head["chain"])
        self._answer(head["id"], began, error=error)

    def _call_put(self, _: int, body: Body, sizes: "list[Any]") -> None:
        for name, size in sizes:
            self.files.put(name, body.pieces(size))

    def _call_publish(
        self, _: int, body: Body, folder: str, sizes: "list[Any]", *names: "list[str]"
    ) -> bool:
        content = ((name, body.pieces(size)) for name, size in sizes)
        return self.files.publish(folder, content, *names)

    def _call_put_once(self, _: int, body: Body, sizes: "list[Any]") -> "list[str]":
        made = []
        for name, size in sizes:
            if self.files.put_once(name, body.pieces(size)):
                made.append(name)
        return made

    def _call_put_verified(self, _: int, body: Body, rows: "list[Any]") -> "list[str]":
        """Rows are name, bytes in the body, digest, and whether it is executable."""
        others = []
        for name, size, digest, executable in rows:
            if not self.files.put_verified(name, body.pieces(size), digest, executable):
                others.append(name)
        return others

    def _call_link(self, _: int, body: Body, links: "dict[str, str]") -> None:
        for name, target in links.items():
            self.files.link(name, target)

    def _call_seal(self, _: int, body: Body, folder: str) -> None:
        self.files.seal(folder)

    def _call_append(self, _: int, body: Body, name: str, record: "dict[str, Any]") -> None:
        self.files.append(name, record)

    def _call_get(self, _: int, body: Body, names: "dict[str, int]") -> "tuple[Any, Any]":
        found = self.files.get(names)
        return [(name, len(content)) for name, content in found.items()], found.values()

    def _call_list(self, _: int, body: Body, folder: str) -> "Any":
        return self.files.list(folder)

    def _call_walk(self, _: int, body: Body, names: "list[str]") -> "Any":
        found = ((name, self.files.walk(name)) for name in names)
        return {name: entries for name, entries in found if entries is not None}

    def _call_digest(self, _: int, body: Body, names: "list[str]") -> "Any":
        found = ((name, self.files.digest(name)) for name in names)
        return {name: said for name, said in found if said is not None}

    def _call_names_in(self, _: int, body: Body, folders: "list[str]") -> "Any":
        found = ((folder, self.files.names(folder)) for folder in folders)
        return {folder: names for folder, names in found if names is not None}

    def _call_open_private(self, _: int, body: Body, name: str) -> "tuple[None, Any]":
        with self.files.open_private(name) as file:
            return None, [file.read()]

    def _call_remove(self, _: int, body: Body, names: "list[str]") -> None:
        for name in names:
            self.files.remove(name)

    def _call_move(self, _: int, body: Body, source: str, target: str) -> bool:
        return self.files.move(source, target)

    def _call_touch(self, _: int, body: Body, names: "list[str]", markers: "list[str]") -> "Any":
        names = names + [marker for marker in markers if self.files.is_whole(marker)]
        found = ((name, self.files.touch(name)) for name in names)
        return {name: status for name, status in found if status is not None}

    def _call_usage(self, _: int, body: Body, names: "list[str]") -> "Any":
        used = self.files.usage(names)
        return None if used is None else list(used)

    def _call_lock(self, _: int, body: Body, alone: bool) -> "Any":
        descriptor = self.files.lock(alone)
        if descriptor is not None:
            self._held.add(descriptor)
        return descriptor

    def _call_unlock(self, _: int, body: Body, descriptor: int) -> None:
        self._held.remove(descriptor)
        self.files.unlock(descriptor)

    def _call_run(self, _: int, body: Body, argv: "list[str]") -> "tuple[Any, Any]":
        code, stdout, stderr = self.files.run(argv, body.rest())
        return [code, len(stdout), len(stderr)], [stdout, stderr]

    def _call_fetch(self, number: int, body: Body, names: "list[str]") -> None:
        for index, mode, mtime, pieces in self.files.stream(names):
            row, held = [index, mode, mtime], next(pieces, b"")
            for piece in pieces:
                self._write({"id": number, "part": row}, [held])
                row, held = [], piece
            self._write({"id": number, "part": row, "last": True}, [held])

    # --- frames ---------------------------------------------------------------------------

    def _answer(
        self, number: int, began: float, content: "Iterable[bytes]" = (), **said: "Any"
    ) -> None:
        now = time.time()
        self._write(dict(said, id=number, time=now, took=now - began), list(content))

    def _write(self, head: "dict[str, Any]", content: "list[bytes]") -> None:
        start = wire.frame_head(head, sum(map(len, content)))
        with self._lock:
            for piece in [b"".join([start, *content])] if len(content) < 3 else [start, *content]:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._output, view) :]

    def _read(self, size: int) -> bytes:
        """So many bytes, or EOFError."""
        data = self._input.read(size)
        if len(data) < size:
            raise EOFError
        return data


def main(workspace: str) -> int:
    """Serve the client at the other end of standard input and output. Returns the exit code."""
    if os.environ.pop("HPCML_LOCALE", ""):  # it was for this Python's own start
        del os.environ["LC_ALL"]
    try:
        Helper(workspace, 0, 1).serve()
    except files.Trouble as trouble:
        sys.stderr.write("hpcml: %s\n" % trouble.problem)
        return 70  # EX_SOFTWARE
    return 0
