import asyncio
import threading
import time

from inference.errors import NotReady
from inference.ticket import Ticket
from service.bridge import Bridge


def _finished(on_done: object) -> Ticket:
    ticket = Ticket(1, time.perf_counter(), on_done)  # type: ignore[arg-type]
    ticket.fail(NotReady("closing"), time.perf_counter())
    return ticket


def test_answers_that_finish_together_wake_the_loop_once() -> None:
    async def scenario() -> tuple[int, int]:
        bridge = Bridge(asyncio.get_running_loop())
        expected = [bridge.expect() for _ in range(50)]

        def work() -> None:
            for _, on_done in expected:
                _finished(on_done)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()  # the loop is blocked meanwhile: everything must be settled by one wake-up
        tickets = await asyncio.wait_for(asyncio.gather(*(future for future, _ in expected)), 5)
        return len(tickets), bridge.wake_ups

    assert asyncio.run(scenario()) == (50, 1)


def test_many_threads_lose_nothing() -> None:
    async def scenario() -> int:
        bridge = Bridge(asyncio.get_running_loop())
        expected = [bridge.expect() for _ in range(400)]
        threads = [
            threading.Thread(target=lambda part=expected[n::4]: [_finished(on_done) for _, on_done in part])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        return len(await asyncio.wait_for(asyncio.gather(*(future for future, _ in expected)), 5))

    assert asyncio.run(scenario()) == 400


def test_a_caller_who_left_is_skipped() -> None:
    async def scenario() -> bool:
        bridge = Bridge(asyncio.get_running_loop())
        left, left_done = bridge.expect()
        stays, stays_done = bridge.expect()
        left.cancel()
        _finished(left_done)
        _finished(stays_done)
        return (await asyncio.wait_for(stays, 5)).done

    assert asyncio.run(scenario())


def test_an_answer_after_the_loop_closed_goes_nowhere() -> None:
    loop = asyncio.new_event_loop()
    _, on_done = Bridge(loop).expect()
    loop.close()
    assert _finished(on_done).done
