"""tools/install.py: what it reads from pip's output."""

import re
from pathlib import Path

from tools.install import Progress, full_disk


def test_a_full_disk_is_one_sentence_with_the_figures(tmp_path: Path) -> None:
    told = full_disk((tmp_path, Path("/")))
    assert re.search(rf"takes about 4 GB; free are [\d.]+ GB in {re.escape(str(tmp_path))} and [\d.]+ GB in /\.$", told)


def test_progress_counts_packages_and_says_what_is_being_done() -> None:
    progress = Progress()
    for line in ("Collecting six", "Processing ./six-1.0-py3-none-any.whl", "  Downloading six-1.0-py3.whl (9 kB)"):
        progress.read(line)
    assert progress.collected == 2
    assert progress.line().endswith("2 packages found, downloading six (9 kB)")
    progress.read("Installing collected packages: six, torch")
    assert progress.line().endswith("unpacking 2 packages")


def test_cuda_libraries_are_remarked_on() -> None:
    progress = Progress()
    progress.read("Collecting nvidia-cublas-cu12")
    assert progress.hint is not None
    assert "TORCH_INDEX=" in progress.hint
