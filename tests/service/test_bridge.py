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


async def _all_of(arrived: "asyncio.Queue[Ticket]", number: int) -> int:
    async with asyncio.timeout(5):
        return len([await arrived.get() for _ in range(number)])


def test_answers_that_finish_together_wake_the_loop_once() -> None:
    async def scenario() -> tuple[int, int]:
        bridge = Bridge(asyncio.get_running_loop())
        arrived: asyncio.Queue[Ticket] = asyncio.Queue()
        expected = [bridge.expect(arrived.put_nowait) for _ in range(50)]

        def work() -> None:
            for on_done in expected:
                _finished(on_done)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()  # the loop is blocked meanwhile: everything must be settled by one wake-up
        return await _all_of(arrived, 50), bridge.wake_ups

    assert asyncio.run(scenario()) == (50, 1)


def test_many_threads_lose_nothing() -> None:
    async def scenario() -> int:
        bridge = Bridge(asyncio.get_running_loop())
        arrived: asyncio.Queue[Ticket] = asyncio.Queue()
        expected = [bridge.expect(arrived.put_nowait) for _ in range(400)]
        threads = [
            threading.Thread(target=lambda part=expected[n::4]: [_finished(on_done) for on_done in part])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        return await _all_of(arrived, 400)

    assert asyncio.run(scenario()) == 400


def test_one_callers_trouble_is_not_the_next_ones() -> None:
    async def scenario() -> int:
        bridge = Bridge(asyncio.get_running_loop())
        arrived: asyncio.Queue[Ticket] = asyncio.Queue()

        def broken(_: Ticket) -> None:
            raise ConnectionResetError

        for then in (broken, arrived.put_nowait):
            _finished(bridge.expect(then))
        return await _all_of(arrived, 1)

    assert asyncio.run(scenario()) == 1


def test_an_answer_after_the_loop_closed_goes_nowhere() -> None:
    loop = asyncio.new_event_loop()
    on_done = Bridge(loop).expect(lambda _: None)
    loop.close()
    assert _finished(on_done).done
