"""Making an artifact visible in one step: hash, write the manifest last, rename into place."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from artifact.errors import ArtifactError
from artifact.files import fsync, lock, record
from artifact.manifest import MANIFEST, FileRecord, Manifest
from artifact.repository import PRODUCTION, Repository, first_problem, open_artifact

_STAGING_PREFIX = ".staging-"
_LOCK = ".lock"


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A folder on the repository's own file system, gone at exit unless it was published by then.

    Readers never see it: a version is a decimal number and a model name never starts with a dot. What a killed
    process left behind is removed by the next one. Raises ArtifactError when the disk refuses.
    """
    with ExitStack() as held:
        try:
            folder = _open_staging(repository, held)
        except OSError as error:
            raise ArtifactError(f"{repository} cannot be written to: {error.strerror}") from error
        yield folder


def _open_staging(repository: Path, held: ExitStack) -> Path:
    """A fresh folder under a lock of its own: a staging folder that nobody has locked belongs to nobody."""
    repository.mkdir(parents=True, exist_ok=True)
    with lock(repository / _LOCK):
        for left in repository.glob(f"{_STAGING_PREFIX}*"):
            with suppress(OSError), lock(left / _LOCK, wait=False):
                shutil.rmtree(left, ignore_errors=True)
        home = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=repository))
        held.callback(shutil.rmtree, home, ignore_errors=True)
        held.enter_context(lock(home / _LOCK))
    folder = home / "files"
    folder.mkdir()
    return folder


def publish(staged: Path, repository: Path, manifest: Manifest, *, promote: bool = False) -> tuple[Path, Manifest]:
    """Publish the files in `staged` as the next free version and return its folder and final manifest.

    `manifest` is a draft: its version and files are filled here. Two publishers at once get two versions: the
    rename fails for the one that comes second, which then tries the next number. The first version of a model
    becomes `production`; a later one only with `promote`. Raises ArtifactError when the disk refuses, or when
    what was staged is not what a reader would accept.
    """
    try:
        files = _seal(staged)
        target, final = _claim(staged, repository, manifest.model_copy(update={"files": files}))
    except OSError as error:
        raise ArtifactError(f"could not publish {manifest.name}: {error.strerror or error}") from error
    opened = Repository(repository)
    with opened.editing_aliases(final.name) as aliases:
        # Where production is not set, the version already being served keeps its place, be it that two publishers
        # arrive here in the wrong order or that one died before it came this far.
        served = max((v for v in opened.versions(final.name) if v < final.version), default=final.version)
        aliases[PRODUCTION] = final.version if promote else aliases.get(PRODUCTION, served)
    return target, final


def _seal(staged: Path) -> dict[str, FileRecord]:
    """Make everything in `staged` readable by any user and safe on disk; return what the files hash to."""
    files = {}
    for path in sorted(staged.rglob("*")):
        name = path.relative_to(staged).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"could not publish {name!a}: it is a link or not a plain file")
        path.chmod(0o755 if path.is_dir() else 0o644)
        fsync(path)
        if path.is_file() and name != MANIFEST:
            files[name] = record(path)
    staged.chmod(0o755)
    return files


def _claim(staged: Path, repository: Path, manifest: Manifest) -> tuple[Path, Manifest]:
    """Rename `staged` onto the first version number that is still free."""
    home = repository / manifest.name
    home.mkdir(parents=True, exist_ok=True)
    opened = Repository(repository)
    # An alias may outlive its version: to use that number again would promote this one unasked.
    version = max([*opened.versions(manifest.name), *opened.aliases(manifest.name).values()], default=0)
    while True:
        version += 1
        final = _write_manifest(staged, manifest.model_copy(update={"version": version}))
        target = home / str(version)
        try:
            # The target, if it exists, is a version and so not empty: rename refuses to replace it.
            staged.rename(target)
        except OSError:
            if os.path.lexists(target):
                continue
            raise
        fsync(home)
        return target, final


def _write_manifest(staged: Path, manifest: Manifest) -> Manifest:
    """Write the manifest and read it back as any reader would, so that nothing unreadable becomes visible."""
    path = staged / MANIFEST
    try:
        path.write_bytes(Manifest.model_validate(manifest.model_dump()).model_dump_json(indent=2).encode() + b"\n")
    except ValidationError as error:
        raise ArtifactError(f"could not publish {manifest.name}: {first_problem(error)}") from error
    path.chmod(0o644)
    fsync(path)
    fsync(staged)
    opened = open_artifact(staged, verify=False)
    opened.golden()
    return opened.manifest
