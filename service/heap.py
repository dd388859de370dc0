"""The C library's heap of a serving process, kept small: glibc's mallopt(3) and malloc_trim(3), where there is glibc.

Every thread that allocates gets an arena of its own by default, and keeps there what it freed. The engine has its own
arena for tensors; what is left are tokenizers, sessions being built and Python's larger objects, for which one arena
is as fast (docs/memory.md).
"""

import ctypes
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
