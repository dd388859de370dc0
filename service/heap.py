"""The heap of a serving process, kept small and quiet: glibc's mallopt(3) and malloc_trim(3), where there is glibc.

Every thread that allocates gets an arena of its own by default, and keeps there what it freed. The engine has its own
arena for tensors; what is left are tokenizers, sessions being built and Python's larger objects, for which one arena
is as fast (docs/memory.md).

Python's own collector looks at every object there is from time to time, and all threads wait: modules, routes and
models are taken out of its sight once they are there (docs/log.md).
"""

import ctypes
import gc
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h


def use_one_arena() -> bool:
    """Let threads that start from now on share the first arena. False where the C library knows no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1


def give_back() -> bool:
    """Hand pages that were freed to the kernel. False when there were none, or the C library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and trim(0) == 1


def set_aside() -> None:
    """Collect what is garbage now, and never again look at what is not, until `take_back`."""
    gc.collect()
    gc.freeze()


def take_back() -> None:
    """Undo `set_aside`: what it kept may be garbage by now."""
    gc.unfreeze()
