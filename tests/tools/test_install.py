"""tools/install.py: what it reads from pip's output."""

from tools.install import Progress, full_disk


def test_a_full_disk_is_one_sentence_with_the_figures() -> None:
    said = [
        "Collecting six",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device: 'a'",
    ]
    assert full_disk(said, 1_440_000_000) == "The disk is full: installing takes 4 GB, and 1.4 GB are free now."
    assert full_disk(["ERROR: No matching distribution found for six"], 0) == ""


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
