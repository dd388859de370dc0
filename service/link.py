"""Between the supervisor and one worker process: connections go one way, how the worker is doing comes back.

A pair of sequenced-packet sockets (unix(7)): a message a packet, in order. Its end is a message too: for a worker that
nothing comes any more, because it is to leave or because the supervisor is gone; for the supervisor that the worker is.
"""

import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, Self

_CONNECTION: Final = b"+"
_REPORT: Final = struct.Struct("=BI")


class Phase(IntEnum):
    """How far a worker's life has come."""

    NOT_READY = 0
    READY = 1
    LEAVING = 2


class Report(NamedTuple):
    """What a worker says of itself."""

    phase: Phase
    connections: int


class Link:
    """One end. Never blocks."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Both ends, either of which is either's."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def close(self) -> None:
        """The other end is told."""
        self._end.close()

    # --- the supervisor's side ---

    def give(self, connection: socket.socket) -> bool:
        """Hand a connection over. False where the worker has not taken those before, or is gone."""
        try:
            socket.send_fds(self._end, [_CONNECTION], [connection.fileno()])
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Nothing more will be given. Reports are still heard."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            return

    def hear(self) -> Report | None:
        """The next report; None when the worker is gone. Raises BlockingIOError while there is none."""
        try:
            packet = self._end.recv(_REPORT.size)
        except ConnectionResetError:
            return None
        if not packet:
            return None
        phase, connections = _REPORT.unpack(packet)
        return Report(Phase(phase), connections)

    # --- the worker's side ---

    def take(self) -> socket.socket | None:
        """The next connection; None when no more will come. Raises BlockingIOError while there is none."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._end, len(_CONNECTION), 1)
        except ConnectionResetError:
            # The supervisor died before it had read our last report. That is said once; what it gave is still there.
            packet, descriptors, _, _ = socket.recv_fds(self._end, len(_CONNECTION), 1)
        if not packet:
            return None
        if not descriptors:
            # The kernel drops a descriptor for which this process has no room.
            raise OSError("a connection was lost: too many open files")
        os.set_inheritable(descriptors[0], False)
        return socket.socket(fileno=descriptors[0])

    def tell(self, report: Report) -> None:
        """Say how things are. Lost where nobody reads: the next one says the same."""
        try:
            self._end.send(_REPORT.pack(*report))
        except OSError:
            return


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker process stands: which of how many it is, its link, and the folder all of them count in."""

    number: int
    of: int
    link: Link
    folder: Path

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.of} (pid {os.getpid()})"
