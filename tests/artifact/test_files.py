"""Hashing, replacing and locking files."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact.files import cache_dir, fsync, lock, record, write_atomically

ROOT = Path(__file__).parents[2]


@given(content=st.binary(max_size=200), repeats=st.sampled_from([1, 6000]))
@settings(deadline=None)  # it writes files, and a busy disk is no failure
def test_a_record_is_the_hash_and_the_size(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, repeats: int
) -> None:
    path = tmp_path_factory.mktemp("record") / "file"
    path.write_bytes(content * repeats)
    found = record(path)
    assert (found.sha256, found.bytes) == (hashlib.sha256(content * repeats).hexdigest(), len(content) * repeats)


def test_writing_atomically_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_contents_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    path.mkdir()  # a file cannot replace a folder
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    write_atomically(path, b"0" * 100_000)
    writer = "\n".join(
        [
            "import sys; from pathlib import Path; from artifact.files import write_atomically",
            "for n in range(60): write_atomically(Path(sys.argv[1]), str(n % 10).encode() * 100_000)",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", writer, str(path)], cwd=ROOT) as process:
        while process.poll() is None:
            content = path.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
    assert process.returncode == 0


def test_syncing_works_on_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    fsync(tmp_path / "file")
    fsync(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync(tmp_path / "absent")


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock(path), pytest.raises(BlockingIOError), lock(path, wait=False):
        pass
    with lock(path, wait=False):
        pass


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = (
        "import os, sys; from pathlib import Path; from artifact.files import lock; "
        "held = lock(Path(sys.argv[1])); held.__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", holder, str(path)], cwd=ROOT, check=False).returncode == 9
    with lock(path, wait=False):
        pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLIPWAY_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/xdg"}, Path("/own")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/slipway")),
        ({"XDG_CACHE_HOME": "relative"}, Path("~/.cache/slipway").expanduser()),
        ({}, Path("~/.cache/slipway").expanduser()),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], expected: Path) -> None:
    assert cache_dir(environ) == expected
