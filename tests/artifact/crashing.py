"""Dies at the k-th thing a publisher does to the disk, for every k; run as a program in a scratch folder.

Every open, rename, chmod, mkdir and flock raises an audit event (PEP 578) before it happens: ending the process
there is what a kill -9 between two system calls does. Prints how many crashes there were.
"""

import os
import sys
from pathlib import Path

from tests.artifact.build import publish_toy

SURVIVED, CRASHED = 0, 9
EVENTS = frozenset({"open", "os.rename", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "fcntl.flock"})


def publish_and_die(root: Path, step: int) -> None:
    """Publish, unless `step` disk operations come first."""
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left < 0:
                os._exit(CRASHED)

    sys.addaudithook(count)
    publish_toy(root)
    os._exit(SURVIVED)


def crash_everywhere(scratch: Path) -> int:
    """One repository per crash, each of which already holds version 1; returns the number of crashes."""
    for step in range(1000):
        root = scratch / str(step)
        publish_toy(root)
        child = os.fork()
        if child == 0:
            publish_and_die(root, step)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == SURVIVED:
            return step
    raise RuntimeError("publishing never came to an end")


if __name__ == "__main__":
    print(crash_everywhere(Path(sys.argv[1])))
