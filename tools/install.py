"""Makes `.venv` and installs the project and its pinned dependencies into it, with one line that keeps moving.

Standard library only, since nothing is installed yet. pip's own output goes to `.venv/install.log`: its progress bars
show only one file at a time and nothing while packages are unpacked, which is half of the wait.
"""

import argparse
import errno
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG_LINES_SHOWN = 15
DISK_GB = 4  # the environment, and what pip unpacks on the way
TICK_SECONDS = 0.5
QUIET_TICK_SECONDS = 15.0  # where nobody watches (no terminal) the line is for the log's reader: rarely is enough
CUDA_HINT = (
    "pip is fetching CUDA libraries, several gigabytes. For the CPU build of torch, stop this and give\n"
    "TORCH_INDEX=https://download.pytorch.org/whl/cpu to the same make command."
)


@dataclass
class Progress:
    """What pip has done so far, read from what it prints."""

    collected: int = 0
    doing: str = "starting pip"
    started: float = field(default_factory=time.monotonic)
    hint: str | None = None

    def read(self, line: str) -> None:
        """Take one line of pip's output into account."""
        words = line.split()
        match words:
            case ["Collecting", package, *_]:
                self.collected += 1
                self.doing = f"resolving {package}"
                if package.startswith("nvidia-"):
                    self.hint = CUDA_HINT
            case ["Processing", path, *_] if path.endswith(".whl"):  # a package that lies on the disk already
                self.collected += 1
            case ["Downloading" | "Using", *_, name, size, unit] if size.startswith("("):
                self.doing = f"downloading {name.rsplit('/', 1)[-1].split('-')[0]} {size} {unit}"
            case ["Installing", "build" | "backend", *_] | ["Preparing" | "Building" | "Getting", *_]:
                self.doing = "building slipway"
            case ["Installing", "collected", "packages:", *names]:
                self.doing = f"unpacking {len(names)} packages"

    def line(self) -> str:
        """The one line to show: elapsed time, count, what is being done."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"  {minutes}:{seconds:02d}  {self.collected} packages found, {self.doing}"


def main(argv: Sequence[str] | None = None) -> int:
    """Install; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _make_environment()
        status = _install(arguments.extras, arguments.torch_index)
    except KeyboardInterrupt:
        _say("\nStopped. The next run goes on from here.")
        return 130
    if status == 0:
        for stamp in arguments.stamp:
            stamp.touch()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Install Slipway into .venv.")
    parser.add_argument("extras", help="the project's extras, comma separated: train or train,dev")
    parser.add_argument("--torch-index", default="", help="one more package index, for another build of torch")
    parser.add_argument("--stamp", type=Path, action="append", default=[], help="a file to touch when all is installed")
    return parser


def _make_environment() -> None:
    """Create `.venv`, or create it anew where an interrupted run left half of one."""
    if sys.prefix == str(VENV):
        return  # tools/setup found the environment whole and runs this with its Python
    _say(f"Making .venv with Python {sys.version.split()[0]}")
    venv.create(VENV, with_pip=True, clear=VENV.exists())


def _install(extras: str, torch_index: str) -> int:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--constraint", "constraints.txt", "--editable", f".[{extras}]"]
    if torch_index:
        command += ["--extra-index-url", torch_index]
    _say(f"Installing slipway[{extras}] with the versions of constraints.txt")
    log = VENV / "install.log"
    with log.open("w", encoding="utf-8") as lines:
        status, seconds = _follow(command, lines)
    if status == 0:
        _say(f"Installed in {seconds:.0f} s")
    else:
        tail = log.read_text(encoding="utf-8").splitlines()[-LOG_LINES_SHOWN:]
        _say("\n".join(tail))
        if any(f"[Errno {errno.ENOSPC}]" in line for line in tail):
            _say(full_disk((VENV, Path(tempfile.gettempdir()))))
        _say(
            f"pip failed, exit status {status}. All it said is in {log.relative_to(ROOT)}; running this again goes on."
        )
    return 1 if status else 0


def full_disk(places: Sequence[Path]) -> str:
    """What to say where pip ran out of disk: it writes to each of `places`."""
    free = " and ".join(f"{shutil.disk_usage(place).free / 1e9:.1f} GB in {place}" for place in places)
    return f"The disk is full: with the CPU build of torch installing takes about {DISK_GB} GB; free are {free}."


def _follow(command: Sequence[str], log: IO[str]) -> tuple[int, float]:
    """Run `command`, its output into `log` and its progress onto one line. Its exit status and seconds."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    progress = Progress()
    with subprocess.Popen(  # noqa: S603 - our own words
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(pip.stdout, lines), daemon=True)
        reader.start()
        _show(lines, log, progress)
        reader.join()
    return pip.returncode, time.monotonic() - progress.started


def _read(source: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def _show(lines: "queue.SimpleQueue[str | None]", log: IO[str], progress: Progress) -> None:
    """Redraw the line at every tick until pip's output ends."""
    terminal = sys.stderr.isatty()
    interval = TICK_SECONDS if terminal else QUIET_TICK_SECONDS
    next_tick = time.monotonic() + interval
    while True:
        try:
            line = lines.get(timeout=max(0.0, next_tick - time.monotonic()))
        except queue.Empty:
            _draw(progress, terminal=terminal)
            next_tick = time.monotonic() + interval
            continue
        if line is None:
            break
        log.write(line)
        progress.read(line)
    if terminal:
        sys.stderr.write("\r\x1b[K")


def _draw(progress: Progress, *, terminal: bool) -> None:
    if progress.hint:
        _say(f"\r\x1b[K{progress.hint}" if terminal else progress.hint)
        progress.hint = None
    if not terminal:
        _say(progress.line())
        return
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write(f"\r\x1b[K{progress.line()[:width]}")
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
