"""The door: sockets, limits and an orderly end, around any WSGI application.

With `connection`, the only module that knows waitress, which parses, buffers and runs the workers. Here is what it
leaves open: an address has its share of the connections, the bodies together have a bound, and a stop loses nothing
that had been received.

One thread (that of `serve`) does all reading and most writing; workers run the application. Time is the monotonic
clock's alone: boards without a battery set their wall clock while they serve.
"""

# mypy: allow-subclassing-any
# (waitress has no type stubs)

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from edge.web.connection import CROWDED, FULL, STOPPING, Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

_RECV_BYTES = 131_072
"""Bytes read at a time: a picture of 200 KB is two reads (waitress's 8 KiB halves the uploads a second)."""

_BACKLOG = 1024
"""Connections that the system holds until they are accepted."""

_LIVE_END_SECONDS = 0.5
"""For answers that go on for ever to say at a stop that they end here."""
_SPARED_SECONDS = 1.0
"""A connection is not cut for another before it has had this long for its request."""
_WAIT_FOR_ROOM_SECONDS = 0.1
"""Between two looks for a connection to spare, where there was none: looking costs some 0.3 ms."""


class CannotListenError(OSError):
    """The address cannot be listened on; the message is a sentence for whoever configured it."""


@dataclass(frozen=True)
class ServerLimits:
    """Where to listen, and how much of the box one client, or all together, may take."""

    host: str
    """Address or name to listen on, IPv4 or IPv6 without brackets. A name counts as IPv4."""
    port: int
    """TCP port; 0 takes any free one (`Server.port` tells which)."""
    threads: int
    """Workers running the application: a little above the inference pool, so that cheap routes need not wait for it."""
    max_connections: int = 1000
    """Open connections; above, the slowest gives way. Slow clients cost a connection and not a worker: at 1,000 of them
    others were still served in 2 ms, in 31 MB. Each is a file descriptor: the process must be allowed a few hundred
    more."""
    max_connections_per_address: int = 64
    """Open connections of one remote address, refused with 429 above. A recorder that relays 32 cameras with two
    connections each fits; no single machine takes more than a fifteenth of the door."""
    uncapped_addresses: frozenset[str] = frozenset({"127.0.0.1", "::1"})
    """Remote addresses without that cap: loopback, since a TLS proxy there brings everybody under one address."""
    trusted_proxy: str = ""
    """Remote address whose X-Forwarded-For and -Proto are believed (last entry only); empty: nobody's are. Forwarding
    headers of all others never reach the application."""
    max_body_bytes: int = 24 * 1024 * 1024
    """Bytes of one body: a 16 MB picture in base64, with room. Bodies are kept in memory, never on the card."""
    max_bodies_bytes: int = 256 * 1024 * 1024
    """Bytes of all bodies in hand together; above, the largest unfinished uploads are refused with 503. Without it,
    a thousand connections could hold a thousand bodies."""
    max_header_bytes: int = 16_384
    """Bytes of request line and headers: a browser's with its cookies are 4 KB."""
    request_deadline_seconds: float = 15.0
    """From a request's first byte to its last. It is not renewed by progress, so that a byte a second buys nothing;
    24 MiB in 15 s is 13 Mbit/s."""
    idle_seconds: float = 20.0
    """A connection without a request, or that does not take its answer, is closed after this long: longer than the
    pause between two frames of a slow camera."""
    stop_seconds: float = 10.0
    """For requests in hand to finish after `stop`: longer than a request takes, shorter than systemd's patience."""


class _Door(TcpWSGIServer):
    """The listening socket, the connections and the loop over them."""

    active_channels: dict[int, Connection]  # by descriptor; waitress keeps it
    accepting: bool
    draining = False

    def __init__(
        self,
        application: WSGIApplication,
        limits: ServerLimits,
        sock: socket.socket,
        refused: Callable[[int], None],
    ) -> None:
        self.limits = limits
        self.refused = refused
        self._pulling = threading.RLock()  # reentrant: a signal handler may interrupt its own thread in here
        self._shut = False
        self._next_sweep = self._accept_after = 0.0
        self._sweep_seconds = min(1.0, limits.request_deadline_seconds / 4, limits.idle_seconds / 4)
        self._last_said: dict[str, float] = {}
        adj = Adjustments(
            sockets=[sock],
            threads=limits.threads,
            recv_bytes=_RECV_BYTES,
            # neither bodies nor answers ever spill to a temporary file: the card wears, and it is slower
            inbuf_overflow=sys.maxsize,
            outbuf_overflow=sys.maxsize,
            max_request_header_size=limits.max_header_bytes,
            # the parser above judges by the payload; waitress counts chunk framing too and refuses at the limit itself
            max_request_body_size=2 * limits.max_body_bytes + 1_048_576,
            clear_untrusted_proxy_headers=False,
            expose_tracebacks=False,
            log_socket_errors=False,  # a traceback for each camera that loses its Wi-Fi
            ident="",
        )
        # a warning for every queued request would be written to the card at the worst moment
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        sockinfo = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(application, adj=adj, _sock=sock, bind_socket=False, sockinfo=sockinfo)

    def readable(self) -> bool:
        """Whether to accept; waitress also starts its cleanup here, by the wall clock: ours is in `turn`."""
        return self.accepting and time.monotonic() >= self._accept_after

    def handle_accept(self) -> None:
        if len(self.active_channels) >= self.limits.max_connections and not self._make_room():
            self._accept_after = time.monotonic() + _WAIT_FOR_ROOM_SECONDS
            self._say("all %d connections are taken, new ones wait", self.limits.max_connections)
            return
        try:
            accepted = self.accept()
        except OSError as error:  # out of descriptors: the socket stays readable, and the loop would spin
            self._accept_after = time.monotonic() + 1.0
            self._say("cannot accept connections: %s", error)
            return
        if accepted is None:
            return
        sock, address = accepted
        try:
            if self._is_crowded(address[0]):
                self._turn_away(sock, address[0])
                return
            self.set_socket_options(sock)
        except OSError:  # gone already
            sock.close()
            return
        Connection(self, sock, address, self.adj, self._map)

    def _make_room(self) -> bool:
        """Cut one connection for a new one, if there is one to spare; whether there was.

        The one that has been silent, or sending one request, for longest; first of an address that has half its share
        or more. None that is owed an answer, and none in its first second: no camera's request needs that.
        """
        since = time.monotonic() - _SPARED_SECONDS
        spare = [(c, c.waiting_since) for c in self.active_channels.values() if not c.in_hand]
        held = Counter(channel.addr[0] for channel in self.active_channels.values())
        many = max(2, self.limits.max_connections_per_address // 2)
        late = [(held[channel.addr[0]] < many, at, channel) for channel, at in spare if at <= since]
        if not late:
            return False
        self._say("all %d connections are taken, the latest are cut for new ones", self.limits.max_connections)
        min(late, key=lambda one: one[:2])[2].handle_close()
        return True

    def _is_crowded(self, address: str) -> bool:
        if address in self.limits.uncapped_addresses:
            return False
        held: int = sum(channel.addr[0] == address for channel in self.active_channels.values())
        return held >= self.limits.max_connections_per_address

    def _turn_away(self, sock: socket.socket, address: str) -> None:
        self._say("refused a connection: %s has %d open", address, self.limits.max_connections_per_address)
        self.refused(CROWDED.code)
        with sock:
            sock.setblocking(False)
            sock.send(CROWDED.to_bytes())
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(BlockingIOError):  # closing over unread bytes resets, and the answer may be lost
                sock.recv(_RECV_BYTES)

    def _say(self, message: str, *arguments: object) -> None:
        """Log a complaint that a client can provoke: once a minute."""
        now = time.monotonic()
        if now - self._last_said.get(message, -60.0) >= 60.0:
            self._last_said[message] = now
            log.warning(message, *arguments)

    def turn(self, seconds: float) -> None:
        """Wait for something to do, do it, and sweep when it is time."""
        self.asyncore.loop(timeout=min(seconds, self._sweep_seconds), use_poll=True, map=self._map, count=1)
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_seconds
            self.maintenance(now)

    def maintenance(self, now: float) -> None:
        """Cut what is late; waitress's own looks at idle connections alone, and at the wall clock."""
        for channel in list(self.active_channels.values()):
            channel.sweep(now)
        held = sum(channel.body_bytes for channel in self.active_channels.values())
        uploads = [c for c in self.active_channels.values() if c.request is not None and not c.in_hand]
        for channel in sorted(uploads, key=lambda upload: upload.body_bytes, reverse=True):
            if held <= self.limits.max_bodies_bytes:
                break
            held -= channel.body_bytes
            channel.refuse(FULL)

    def drain(self) -> bool:
        """Finish what is in hand within `stop_seconds`; True if all of it was answered and read."""
        deadline = time.monotonic() + self.limits.stop_seconds
        self.turn(0)  # what has arrived but was not read yet is in hand as well
        self.draining = True
        self.asyncore.dispatcher.close(self)  # only the listening socket: close() would take the workers' trigger too
        self._end_live()
        while self._finish_connections() and time.monotonic() < deadline:
            self.turn(0.05)
        unfinished = self._finish_connections()
        if not unfinished:
            deadline = max(deadline, time.monotonic() + 0.5)  # idle workers need a moment to leave
        workers = self.task_dispatcher
        workers.set_thread_count(0)
        # a client may have left while its request is still being worked on: that is in hand too
        while workers.threads and time.monotonic() < deadline:
            time.sleep(0.01)
        return not unfinished and not workers.threads

    def _end_live(self) -> None:
        """End the answers that go on for ever: nobody loses anything by that, so no time is theirs but a moment."""
        deadline = time.monotonic() + _LIVE_END_SECONDS
        while [c for c in list(self.active_channels.values()) if c.end_live()] and time.monotonic() < deadline:
            self.turn(0.02)
        for channel in list(self.active_channels.values()):
            if channel.live is not None:
                channel.handle_close()

    def _finish_connections(self) -> int:
        """Close whom we owe nothing; how many are still owed something."""
        owed = 0
        for channel in list(self.active_channels.values()):
            if channel.in_hand:
                owed += 1
            elif channel.request is not None:
                channel.refuse(STOPPING)
            elif channel.discarding_until is None:
                channel.handle_close()
        return owed

    def shut(self) -> None:
        """Let go of everything; cuts what is still there."""
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        self.asyncore.dispatcher.close(self)
        self.task_dispatcher.shutdown(timeout=0)
        with self._pulling:
            self._shut = True
            self.trigger.close()

    def pull_trigger(self) -> None:
        """Wake the loop; never after the end, when the pipe's number may belong to another file."""
        with self._pulling:
            if not self._shut:
                super().pull_trigger()


class Server:
    """Serves a WSGI application until stopped. Listens (clients may connect) from the moment it is made.

    Raises CannotListenError.
    """

    def __init__(
        self,
        application: WSGIApplication,
        limits: ServerLimits,
        *,
        bound: socket.socket | None = None,
        refused: Callable[[int], None] = lambda code: None,
    ) -> None:
        """`bound` is what `bind` returned for the same limits; None: it is done here.

        `refused` is told the status code of every request that the application does not get to see.
        """
        self._stopping = False
        sock = bound or bind(limits)
        with _sentences(limits):
            sock.listen(_BACKLOG)
        name = sock.getsockname()
        self._socket_name = (str(name[0]), int(name[1]))
        self._door = _Door(application, limits, sock, refused)

    @property
    def port(self) -> int:
        """The port really bound."""
        return self._socket_name[1]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._door.active_channels)

    @property
    def address(self) -> str:
        """Host and port as a URL has them: `127.0.0.1:8080`, `[::1]:8080`."""
        host, port = self._socket_name
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def serve(self) -> bool:
        """Serve until `stop`; True if every request in hand was finished, False if some were cut. Once only."""
        try:
            while not self._stopping:
                self._door.turn(1.0)
            return self._door.drain()
        finally:
            self._door.shut()

    def stop(self) -> None:
        """End `serve`: no new connections, requests in hand finished. From any thread or signal handler."""
        self._stopping = True
        self._door.pull_trigger()


def bind(limits: ServerLimits) -> socket.socket:
    """Take the address before anybody can connect: that it is taken is known before the rest is made.

    Raises CannotListenError.
    """
    is_v6 = ":" in limits.host
    sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a start right after a stop
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the same on every system
        with _sentences(limits):
            sock.bind((limits.host, limits.port))
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _sentences(limits: ServerLimits) -> Iterator[None]:
    """Turn what the system says of an address into a sentence."""
    try:
        yield
    except (OSError, OverflowError) as error:
        reasons = {
            errno.EADDRINUSE: "another program has this port",
            errno.EACCES: "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        number = error.errno if isinstance(error, OSError) and error.errno is not None else errno.EINVAL
        reason = reasons.get(number, error)
        raise CannotListenError(number, f"cannot listen on {limits.host} port {limits.port}: {reason}") from error
