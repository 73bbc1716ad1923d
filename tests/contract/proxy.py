"""A way that takes its time: a TCP proxy that holds back every byte, and counts turns."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time


class Proxy:
    """Between a client and a port of this machine.

    Attributes
    ----------
    port : int
        Where clients connect to.
    delay : float
        Seconds by which whatever goes either way is late.
    turns : int
        How often the client has said something after it had heard something: round trips, of all
        that is spoken.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.delay, self.turns, self._target = delay, 0, target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for source in (self._listening, self._woken):
            self._selector.register(source, selectors.EVENT_READ)
        self._late: list[tuple[float, int, socket.socket, bytes]] = []
        self._numbers = itertools.count()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._heard = True
        self._cut = self._over = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drop every connection there is, without a word."""
        self._cut = True
        self._wake.send(b"!")

    def close(self) -> None:
        """End it."""
        self._over = True
        self._wake.send(b"!")
        self._thread.join()

    def _work(self) -> None:
        while not self._over:
            wait = max(self._late[0][0] - time.monotonic(), 0.0) if self._late else None
            for key, _ in self._selector.select(wait):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listening:
                    self._meet()
                elif source is self._woken:
                    source.recv(1)
                elif source in self._peers:
                    self._take(source)
            if self._cut:
                self._cut = False
                self._drop()
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, target, data = heapq.heappop(self._late)
                self._pass_on(target, data)
        self._drop()
        self._listening.close()

    def _meet(self) -> None:
        client = self._listening.accept()[0]
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            return client.close()
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        self._clients.add(client)
        return None

    def _take(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        if data and source in self._clients:
            self.turns += self._heard
            self._heard = False
        elif data:
            self._heard = True
        if not data:
            self._selector.unregister(source)
        due = time.monotonic() + self.delay
        heapq.heappush(self._late, (due, next(self._numbers), self._peers[source], data))

    def _pass_on(self, target: socket.socket, data: bytes) -> None:
        try:
            if data:
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone

    def _drop(self) -> None:
        for one in list(self._peers):
            if one.fileno() in self._selector.get_map():
                self._selector.unregister(one)
            one.close()
        self._peers, self._late = {}, []
        self._clients.clear()
