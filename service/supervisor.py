"""`slipway serve`: one process, or several that share a port, the cores and their counts.

With several this process serves nothing itself. It listens, forks the workers, and hands each new connection to the
ready worker that has the fewest. (A socket that all accept from gives nearly everything to whoever wakes first; one
for each with SO_REUSEPORT goes by a hash, and what waits at a worker that dies dies with it: docs/log.md.) So a worker
that is not ready takes nothing while another is, a worker that dies takes only what it was answering, and a drain is
that of a single process, once for all: promise 5 is kept here and in service/server.py together.

It stays small and has one thread, or forking would not be safe: what serves is imported by the workers alone.
"""

import contextlib
import fcntl
import os
import sched
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from prometheus_client.multiprocess import mark_process_dead

from service import logs
from service.config import Settings
from service.door import HANDSHAKE_SECONDS, drop_new_connections, say_listening, try_to_listen
from service.link import Link, Phase, Place

Work = Callable[[Settings, Place], int]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_FOLDER: Final = "slipway-values-"
_LOCK: Final = "lock"
# A worker that dies at once is started again after this long, then after twice as long, and so on up to a bound.
_SHORTEST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 30.0
# Who lived this long died of something else than its start.
_HEALTHY_SECONDS: Final = 60.0
# Accepted in one go before anything else gets its turn.
_AT_ONCE: Final = 64
_RETRY_SECONDS: Final = 0.01
# How much longer than its drain may take a worker gets before it is killed.
_PATIENCE_SECONDS: Final = 5.0


def _work(settings: Settings, place: Place) -> int:
    from service.server import work

    return work(settings, place)


def serve(settings: Settings, work: Work = _work) -> int:
    """Serve until a signal. Returns the exit status: 0 when every accepted request was answered, 1 otherwise.

    `work` is the life of each of several workers.
    """
    if settings.workers == 1:
        from service.server import serve as serve_alone

        return serve_alone(settings)
    logs.configure(settings.log_level, settings.log_format)
    listener = try_to_listen(settings.host, settings.port)
    if listener is None:
        return 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        try:
            folder = stack.enter_context(value_folder())
        except OSError as error:
            hint = "workers count there together: make the temporary folder writable, or set TMPDIR to one that is"
            logs.logger().error("no folder for metrics", reason=error.strerror, hint=hint)
            return 1
        return Supervisor(settings, listener, folder, work).run()


@contextlib.contextmanager
def value_folder() -> Iterator[Path]:
    """A new folder for what workers count, removed at the end. Those of supervisors that were killed go first.

    Raises OSError.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Workers hold the lock as well, by inheritance: it is free once the whole family is gone."""
    with contextlib.suppress(OSError), (folder / _LOCK).open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


@dataclass(eq=False)
class Worker:
    """One process, from its fork to its end."""

    number: int
    pid: int
    link: Link
    started: float
    heard: bool = False
    willing: bool = False
    given_up: bool = False
    connections: int = 0


def takers(workers: Iterable[Worker]) -> list[Worker]:
    """Who may be given the next connection, first who has the fewest; those that are not ready only among themselves.

    They answer too while nobody is ready: that they are alive, and what is missing.
    """
    there = [worker for worker in workers if worker.heard and not worker.given_up]
    willing = [worker for worker in there if worker.willing]
    return sorted(willing or there, key=lambda worker: worker.connections)


def back_off(deaths: int) -> float:
    """Seconds until a worker is started again that has died `deaths` times in a row, each soon after its start."""
    return min(_LONGEST_SECONDS, _SHORTEST_SECONDS * 2.0 ** min(deaths - 1, 32))


class Supervisor:
    """The parent of the workers. `run` is called once, in a process with one thread and no other children."""

    def __init__(self, settings: Settings, listener: socket.socket, folder: Path, work: Work) -> None:
        self._settings = settings
        self._listener = listener
        self._folder = folder
        self._work = work
        self._workers: dict[int, Worker] = {}
        self._deaths = [0] * settings.workers
        self._selector = selectors.DefaultSelector()
        self._timers = sched.scheduler(time.monotonic)
        self._watching = False
        self._held: socket.socket | None = None
        self._begun = False
        self._leaving = False
        self._status = 0

    def run(self) -> int:
        """Start the workers and keep them going until a signal, then until they are gone. Returns the exit status."""
        with self._selector, self._signals_to_selector():
            say_listening(self._listener, workers=self._settings.workers)
            for number in range(self._settings.workers):
                self._start(number)
            while self._workers or not self._leaving:
                self._watch_listener()
                for key, _ in self._selector.select(self._timers.run(blocking=False)):
                    key.data()
                self._reap()
        logs.logger().info("every worker has ended", status=self._status)
        return self._status

    # --- signals ---

    @contextlib.contextmanager
    def _signals_to_selector(self) -> Iterator[None]:
        """Each signal as a byte to read; the handlers themselves do nothing."""
        reader, writer = socket.socketpair()
        with reader, writer:
            for end in (reader, writer):
                end.setblocking(False)
            before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._selector.register(reader, selectors.EVENT_READ, partial(self._obey, reader))
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _obey(self, reader: socket.socket) -> None:
        for number in reader.recv(4096):
            if number != signal.SIGCHLD:
                self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        """Begin to drain; the second time, end at once."""
        if self._leaving:
            logs.logger().error("stopped at once by a second signal")
            self._kill()
            return
        self._leaving = True
        was_ready = any(worker.willing for worker in self._workers.values())
        delay = self._settings.drain_delay_seconds if was_ready and number == signal.SIGTERM else 0.0
        logs.logger().info("draining every worker", signal=number.name, delay_seconds=delay)
        self._send(number)
        self._timers.enter(delay, 0, self._drop_new)
        bound = delay + HANDSHAKE_SECONDS + self._settings.drain_timeout_seconds + _PATIENCE_SECONDS
        self._timers.enter(bound, 0, self._kill)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, number)

    # --- the end ---

    def _drop_new(self) -> None:
        """Closing resets what the kernel has accepted and we have not: first nothing new may begin."""
        drop_new_connections(self._listener)
        self._timers.enter(HANDSHAKE_SECONDS, 0, self._close)

    def _close(self) -> None:
        """Hand out what is left, then tell the workers that it was all."""
        if self._accept() or self._held is not None:
            self._timers.enter(_RETRY_SECONDS, 0, self._close)
            return
        self._watch_listener(never=True)
        self._listener.close()
        for worker in self._workers.values():
            worker.given_up = True
            worker.link.end()

    def _kill(self) -> None:
        """What was accepted and not answered is lost."""
        self._status = 1
        self._send(signal.SIGKILL)

    # --- connections ---

    def _watch_listener(self, *, never: bool = False) -> None:
        """While nobody can take a connection it waits in the kernel."""
        wanted = not never and self._held is None and bool(takers(self._workers.values()))
        if wanted == self._watching or self._listener.fileno() < 0:
            return
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        else:
            self._selector.unregister(self._listener)
        self._watching = wanted

    def _accept(self) -> bool:
        """Hand out what has come. True if there may be more."""
        for _ in range(_AT_ONCE):
            if self._held is not None or not takers(self._workers.values()):
                return False
            try:
                connection, _ = self._listener.accept()
            except OSError:  # no more, or it is gone already
                return False
            self._give(connection)
        return True

    def _give(self, connection: socket.socket) -> None:
        """To the first who takes it. Where none does, all have many to take up: it is held until one has room."""
        self._held = None
        for worker in takers(self._workers.values()):
            if worker.link.give(connection):
                worker.connections += 1
                connection.close()
                return
        self._held = connection
        self._timers.enter(_RETRY_SECONDS, 0, self._give, (connection,))

    # --- workers ---

    def _start(self, number: int) -> None:
        if self._leaving:
            return
        ours, theirs = Link.pair()
        try:
            pid = self._fork(Place(number, self._settings.workers, theirs, self._folder), ours)
        except OSError as error:
            ours.close()
            logs.logger().error("a worker cannot be started", worker=number, reason=error.strerror)
            self._start_later(number)
            return
        finally:
            theirs.close()
        worker = self._workers[pid] = Worker(number, pid, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, partial(self._hear, worker))

    def _start_later(self, number: int) -> float:
        self._deaths[number] += 1
        delay = back_off(self._deaths[number])
        self._timers.enter(delay, 0, self._start, (number,))
        return delay

    def _fork(self, place: Place, ours: Link) -> int:
        """The child's process id. Raises OSError."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Signals are held back until the worker can obey them: one that comes earlier would kill it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become(place)
        finally:
            if pid != 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _become(self, place: Place) -> NoReturn:
        """The child's whole life. Nothing of the parent's is undone in it, therefore `_exit`."""
        status = 1
        try:
            # A terminal's Ctrl-C goes to the whole group, and would come twice: from it and from the parent.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            self._selector.close()
            self._listener.close()
            for worker in self._workers.values():
                worker.link.close()
            status = self._work(self._settings, place)
        except BaseException:
            logs.logger().exception("a worker failed", worker=place.number)
        finally:
            # Come what may, a log that nobody reads any more included: above this is the parent's code.
            try:
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _hear(self, worker: Worker) -> None:
        try:
            report = worker.link.hear()
        except BlockingIOError:
            return
        if report is None:
            self._forget_link(worker)
            return
        self._begun = worker.heard = True
        worker.connections = report.connections
        # On its way out it still answers, if it ever did: until nobody gives it anything any more.
        worker.willing = report.phase is Phase.READY or (report.phase is Phase.LEAVING and worker.willing)
        if report.phase is Phase.LEAVING and not self._leaving and not worker.given_up:
            worker.given_up = True
            worker.link.end()

    def _forget_link(self, worker: Worker) -> None:
        worker.given_up = True
        if worker.link.fileno() >= 0:
            self._selector.unregister(worker.link)
            worker.link.close()

    def _reap(self) -> None:
        """Take note of every child that has ended; as process 1 of a container, of orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._replace(worker, os.waitstatus_to_exitcode(status))

    def _replace(self, worker: Worker, status: int) -> None:
        self._forget_link(worker)
        mark_process_dead(worker.number, str(self._folder))  # type: ignore[no-untyped-call]  # the library left it out
        log = logs.logger().bind(worker=worker.number, pid=worker.pid, **_how(status))
        if self._leaving:
            if status != 0:
                self._status = 1
                log.error("a worker did not drain")
        elif not self._begun:
            log.error("a worker cannot start")
            self._status = 1
            self._stop(signal.SIGINT)
        else:
            lived = time.monotonic() - worker.started
            if lived > _HEALTHY_SECONDS:
                self._deaths[worker.number] = 0
            delay = self._start_later(worker.number)
            log.warning("a worker ended, starting another", lived_seconds=round(lived, 1), after_seconds=delay)


def _how(status: int) -> dict[str, object]:
    """An exit status, or the signal that killed."""
    return {"status": status} if status >= 0 else {"killed_by": signal.Signals(-status).name}
