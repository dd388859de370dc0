import os
import socket

import pytest

from service.link import Link, Phase, Report


def test_connections_and_reports_arrive_in_order() -> None:
    ours, theirs = Link.pair()
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (near, far) in enumerate(pairs):
        assert ours.give(far)
        far.close()
        near.sendall(b"%d" % number)
    for number in range(3):
        taken = theirs.take()
        assert taken is not None
        assert not os.get_inheritable(taken.fileno())
        assert taken.recv(1) == b"%d" % number
        taken.close()
        theirs.tell(Report(Phase.READY, number))
    assert [ours.hear() for _ in range(3)] == [Report(Phase.READY, number) for number in range(3)]
    for near, _ in pairs:
        near.close()
    for end in (ours, theirs):
        end.close()


def test_neither_end_waits() -> None:
    ours, theirs = Link.pair()
    with pytest.raises(BlockingIOError):
        ours.hear()
    with pytest.raises(BlockingIOError):
        theirs.take()
    ours.close()
    theirs.close()


def test_after_the_end_reports_are_still_heard() -> None:
    ours, theirs = Link.pair()
    ours.end()
    assert theirs.take() is None
    theirs.tell(Report(Phase.LEAVING, 1))
    assert ours.hear() == Report(Phase.LEAVING, 1)
    theirs.close()
    assert ours.hear() is None
    ours.end()
    ours.close()


def test_who_is_gone_is_given_nothing_and_does_not_disturb() -> None:
    ours, theirs = Link.pair()
    near, far = socket.socketpair()
    with near, far:
        theirs.close()
        assert not ours.give(far)
        assert ours.hear() is None
    ours.close()


def test_who_does_not_take_is_given_no_more() -> None:
    ours, theirs = Link.pair()
    near, far = socket.socketpair()
    with near, far:
        given = 0
        while ours.give(far):
            given += 1
            assert given < 100_000
        assert given > 10
        while (taken := _take(theirs)) is not None:
            taken.close()
        assert ours.give(far)
    ours.close()
    theirs.close()


def _take(link: Link) -> socket.socket | None:
    try:
        return link.take()
    except BlockingIOError:
        return None
