"""Making an artifact visible in one step: hash, write the manifest last, rename into place."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact.errors import ArtifactError
from artifact.files import fsync, record
from artifact.manifest import MANIFEST, Manifest
from artifact.repository import Repository

_STAGING_PREFIX = ".staging-"


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A folder on the repository's own file system, gone at exit unless it was published by then.

    Readers never see it: a version is a decimal number and a model name never starts with a dot.
    """
    repository.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=repository))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, repository: Path, manifest: Manifest, *, promote: bool = False) -> tuple[Path, Manifest]:
    """Publish the files in `staged` as the next free version and return its folder and final manifest.

    `manifest.version` and `manifest.files` are filled here. Two publishers at once get two versions: the rename
    fails for the one that comes second, which then tries the next number. The first version of a model becomes
    `production`; a later one only with `promote`. Raises ArtifactError when the disk refuses.
    """
    try:
        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        files.pop(MANIFEST, None)
        for path in files.values():
            path.chmod(0o644)
            fsync(path)
        records = {name: record(path) for name, path in files.items()}
        staged.chmod(0o755)
        target, final = _claim(staged, repository, manifest.model_copy(update={"files": records}))
    except OSError as error:
        raise ArtifactError(f"could not publish {manifest.name}: {error.strerror or error}") from error
    opened = Repository(repository)
    with opened.editing_aliases(final.name) as aliases:
        if promote or "production" not in aliases:
            aliases["production"] = final.version
    return target, final


def _claim(staged: Path, repository: Path, manifest: Manifest) -> tuple[Path, Manifest]:
    """Rename `staged` onto the first version number that is still free."""
    home = repository / manifest.name
    home.mkdir(parents=True, exist_ok=True)
    version = max(Repository(repository).versions(manifest.name), default=0)
    while True:
        version += 1
        final = Manifest.model_validate(manifest.model_dump() | {"version": version})
        path = staged / MANIFEST
        path.write_text(final.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fsync(path)
        fsync(staged)
        try:
            # The target, if it exists, is a version and so not empty: rename refuses to replace it.
            os.rename(staged, home / str(version))
        except OSError:
            if (home / str(version)).exists():
                continue
            raise
        fsync(home)
        return home / str(version), final
