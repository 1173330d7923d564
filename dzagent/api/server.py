"""Serves connections so that no client can hold up another: one thread does all reading and writing, never waiting.

gunicorn's gthread worker reads requests and writes answers in its few threads, so as many half-sent requests as it
has threads, or clients that do not read, stop everybody (its `timeout` does not apply there). Here a thread gets a
request only when all of it has arrived, and gives back the whole answer. A client has a limited time for each thing
it does, and when there are too many connections, the one that has been waiting longest for its client goes.

Requests that change something have a thread of their own: a disk that is slow to sync delays no reader.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import queue
import selectors
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from dzagent.api.connection import WITH_CLIENT, Answer, Connection, Limits, State
from dzagent.api.framing import Hopeless, More, Whole, find_request
from dzagent.api.pool import Job, Pool

log = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWEEP = 0.5
"""Seconds between two looks at the deadlines."""
_CHUNK = 64 * 1024
_ACCEPTS = 256  # connections taken at once before others are served again
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_READS = (b"GET ", b"HEAD ", b"OPTIONS ")


class Server:
    """The loop. Everything but `answer` runs in the thread that calls `run`.

    answer: turns the bytes of one request into an Answer, in a thread; what it raises becomes a 500.
    refuse: makes the Answer to a request that never gets there, from a status code and a sentence; it closes.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        answer: Callable[[bytes], Answer],
        refuse: Callable[[int, str], Answer],
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._listeners = list(listeners)
        self._answer, self._refuse = answer, refuse
        self._limits, self._clock = limits, clock
        self._selector = selectors.DefaultSelector()
        self._connections: dict[Connection, None] = {}  # the one that waits longest is first
        self._swept = clock()
        self._done: queue.SimpleQueue[tuple[Connection, Pool, Future[Answer]]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._reads = Pool("read", limits.readers)
        self._writes = Pool("write", 1)

    def wake(self) -> None:
        """Make the loop look around now; safe in any thread and in a signal handler."""
        try:
            os.write(self._wake_write, b".")
        except OSError:  # full: it wakes anyway
            return

    def run(self, stopping: Callable[[], bool], beat: Callable[[], None], *, grace: float = 5.0) -> None:
        """Serve until told to stop, calling `beat` at least once a second; then finish what is being answered."""
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        while not stopping():
            beat()
            self._turn(0.5 if self._connections else 1.0)
        self._stop(self._clock() + grace, beat)

    def _stop(self, end: float, beat: Callable[[], None]) -> None:
        for listener in self._listeners:
            self._selector.unregister(listener)
        while self._clock() < end:
            for connection in [c for c in self._connections if c.state in {State.READING, State.LINGERING}]:
                self._drop(connection)
            if not self._connections:
                break  # nobody waits for an answer
            beat()
            self._turn(0.1)
        for connection in list(self._connections):
            self._drop(connection)
        self._reads.close()
        self._writes.close()
        self._selector.close()
        os.close(self._wake_read)
        # the other end stays open: a thread that is still at work may write to it

    def _turn(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            if isinstance(key.data, Connection):
                self._ready(key.data, events)
            elif isinstance(key.data, socket.socket):
                self._accept(key.data)
            else:
                self._woken()
        if self._clock() - self._swept >= SWEEP:
            self._sweep()

    def _sweep(self) -> None:
        self._swept = now = self._clock()
        for connection in [c for c in self._connections if c.deadline < now and c.state in WITH_CLIENT]:
            self._late(connection)

    # ---- connections come and go ---------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock = listener.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _FULL:
                    return  # the client gave up before we came
                log.warning("no more connections can be opened: %s", error.strerror)
                self._make_room()
                return
            sock.setblocking(False)
            if len(self._connections) >= self._limits.connections:
                self._make_room()
            connection = Connection(sock)
            self._expect(connection, self._limits.request)
            self._ready(connection, selectors.EVENT_READ)  # most requests are here with their connection

    def _make_room(self) -> None:
        oldest = next((c for c in self._connections if c.state is not State.BUSY), None)
        if oldest is not None:
            self._drop(oldest)

    def _late(self, connection: Connection) -> None:
        if connection.state is State.READING and connection.received:
            self._reply(connection, self._refuse(408, "the request did not arrive in time"), unread=True)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self._connections.pop(connection, None)
        connection.state = State.CLOSED
        connection.sock.close()

    def _watch(self, connection: Connection, events: int) -> None:
        if events == connection.watched:
            return
        if not connection.watched:
            self._selector.register(connection.sock, events, connection)
        elif not events:
            self._selector.unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, events, connection)
        connection.watched = events

    # ---- one connection ------------------------------------------------------------------------------------

    def _ready(self, connection: Connection, events: int) -> None:
        if connection.state is State.CLOSED:  # dropped earlier in this turn
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._write(connection)
            elif connection.state is State.LINGERING:
                self._discard(connection)
            else:
                self._read(connection)
        except BlockingIOError:  # nothing there, or no room
            self._watch(connection, events)
        except OSError:  # the client is gone
            self._drop(connection)

    def _read(self, connection: Connection) -> None:
        data = connection.sock.recv(_CHUNK)
        if not data:
            self._drop(connection)
            return
        if not connection.received:
            self._expect(connection, self._limits.request)
        connection.received += data
        self._look(connection)

    def _expect(self, connection: Connection, seconds: float) -> None:
        """From now the client has this long for what it does next."""
        connection.deadline = self._clock() + seconds
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def _look(self, connection: Connection) -> None:
        """See whether what has been received is a whole request."""
        found = find_request(connection.received, max_body=self._limits.body)
        if isinstance(found, More):
            self._watch(connection, selectors.EVENT_READ)
            if found.expects and not connection.continued:
                connection.continued = True
                with contextlib.suppress(BlockingIOError):  # it will send the body anyway, a little later
                    connection.sock.send(CONTINUE)
        elif isinstance(found, Hopeless):
            self._reply(connection, self._refuse(found.code, found.message), unread=True)
        else:
            self._start(connection, found)

    def _start(self, connection: Connection, found: Whole) -> None:
        request = bytes(connection.received[: found.size])
        del connection.received[: found.size]
        connection.continued = False
        connection.unread = connection.close = found.last
        connection.state = State.QUEUED
        self._watch(connection, 0)
        pool = self._reads if request.lstrip(b"\r\n").startswith(_READS) else self._writes
        pool.put(Job(connection, request))
        self._pump(pool)

    def _pump(self, pool: Pool) -> None:
        """Give free threads to those whose turn it is."""
        while (job := pool.next()) is not None:
            job.connection.state = State.BUSY
            future = pool.run(functools.partial(self._answer, job.request))
            future.add_done_callback(functools.partial(self._finished, job.connection, pool))

    def _finished(self, connection: Connection, pool: Pool, done: Future[Answer]) -> None:
        """Runs in the thread that answered."""
        self._done.put((connection, pool, done))
        self.wake()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while True:
            try:
                connection, pool, done = self._done.get_nowait()
            except queue.Empty:
                return
            pool.release()
            self._reply(connection, self._outcome(done))
            self._pump(pool)

    def _outcome(self, done: Future[Answer]) -> Answer:
        error = done.exception()
        if error is None:
            return done.result()
        log.error("a request failed", exc_info=error)
        return self._refuse(500, "internal error: see the log")

    def _reply(self, connection: Connection, answer: Answer, *, unread: bool = False) -> None:
        """Begin to send; what the socket takes now goes at once, which is nearly always all of it."""
        connection.close = connection.close or answer.close
        connection.unread = connection.unread or unread
        connection.pending = memoryview(answer.data)
        connection.state = State.WRITING
        self._expect(connection, self._limits.answer)
        try:
            self._write(connection)
        except BlockingIOError:
            self._watch(connection, selectors.EVENT_WRITE)
        except OSError:  # the client is gone
            self._drop(connection)

    def _write(self, connection: Connection) -> None:
        while connection.pending:
            connection.pending = connection.pending[connection.sock.send(connection.pending) :]
        connection.pending = memoryview(b"")
        if not connection.close:
            self._next(connection)
        elif connection.unread:
            self._linger(connection)
        else:
            self._drop(connection)

    def _next(self, connection: Connection) -> None:
        connection.state = State.READING
        connection.served = True
        waiting = bool(connection.received)
        self._expect(connection, self._limits.request if waiting else self._limits.idle)
        self._watch(connection, selectors.EVENT_READ)
        if waiting:  # a client that sent its next request without waiting for the answer
            self._look(connection)

    def _linger(self, connection: Connection) -> None:
        """Let a client that is still sending read its answer: closing at once would break its connection."""
        connection.sock.shutdown(socket.SHUT_WR)
        connection.state = State.LINGERING
        self._expect(connection, self._limits.linger)
        self._watch(connection, selectors.EVENT_READ)

    def _discard(self, connection: Connection) -> None:
        data = connection.sock.recv(_CHUNK)
        connection.discarded += len(data)
        if not data or connection.discarded > self._limits.discard:
            self._drop(connection)
