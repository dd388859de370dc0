"""The C heap of a process of its own: what it does there must not change this one."""

import gc
import subprocess
import sys
from pathlib import Path

from tests.service.fakes import running

ROOT = Path(__file__).parents[2]
SEVERAL_ARENAS = """
import ctypes, sys, threading
from service import heap
asked = heap.use_one_arena() if sys.argv[1] == "one" else None
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
places = []
def work():
    places.append(libc.malloc(1000) >> 26)  # an arena of a thread lies in a region of 64 MB of its own
    barrier.wait()
barrier = threading.Barrier(5)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
barrier.wait()
print(asked, len(set(places)))
"""
GIVING_BACK = """
import ctypes
from pathlib import Path
from service import heap
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(10_000) for _ in range(5_000)]
for block in blocks: ctypes.memset(block, 1, 10_000)
for block in blocks[:-1]: libc.free(block)  # the last one keeps the heap from shrinking by itself
before = resident()
print(heap.give_back(), before - resident() > 40_000_000)
"""
SETTING_ASIDE = """
import gc
from service import heap
heap.set_aside()
aside = gc.get_freeze_count()
heap.take_back()
print(aside > 1000, gc.get_freeze_count())
"""


def told(program: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_threads_share_one_arena_when_told_to() -> None:
    assert told(SEVERAL_ARENAS, "one") == ["True", "1"]
    assert int(told(SEVERAL_ARENAS, "each")[1]) > 1


def test_freed_pages_are_given_back() -> None:
    assert told(GIVING_BACK) == ["True", "True"]


def test_what_is_there_for_good_is_out_of_the_collectors_sight_until_the_end() -> None:
    assert told(SETTING_ASIDE) == ["True", "0"]


def test_a_server_takes_back_what_it_set_aside(repository: Path) -> None:
    gc.unfreeze()
    with running(repository):
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
