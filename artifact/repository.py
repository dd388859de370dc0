"""The model repository: `<model>/<version>/` folders and each model's `aliases.json`."""

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from artifact.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound
from artifact.files import lock, record, write_atomically
from artifact.manifest import GOLDEN, MANIFEST, MODEL_NAME, FileRecord, Golden, Manifest

PRODUCTION = "production"
_ALIASES = "aliases.json"
_LOCK = ".aliases.lock"
_NAME = re.compile(MODEL_NAME)
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_AliasMap = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class Artifact:
    """One opened version: its folder, its manifest and the digest that identifies it."""

    path: Path
    manifest: Manifest
    digest: str

    def golden(self) -> Golden:
        """The golden inputs and their answers. Raises ArtifactCorrupt."""
        try:
            return Golden.model_validate_json((self.path / GOLDEN).read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactCorrupt(f"{self.path / GOLDEN}: {first_problem(error)}") from error

    def unlisted(self) -> list[str]:
        """Files in the folder that the manifest does not list. They were never hashed and are never read."""
        present = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}
        return sorted(present - self.manifest.files.keys() - {MANIFEST})


def open_artifact(path: Path, *, verify: bool = True) -> Artifact:
    """Read the manifest at `path` and, unless told not to, check every file it lists.

    Raises ArtifactNotFound when there is no manifest, ArtifactCorrupt naming the file and the reason otherwise.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactNotFound(f"{path}: no {MANIFEST} here") from error
    except OSError as error:
        raise ArtifactCorrupt(f"{path / MANIFEST}: {error.strerror}") from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path / MANIFEST}: {first_problem(error)}") from error
    if not manifest.files:
        raise ArtifactCorrupt(f"{path / MANIFEST}: files is empty, so nothing here can be trusted")
    if verify:
        _verify(path, manifest)
    return Artifact(path, manifest, f"sha256:{hashlib.sha256(raw).hexdigest()}")


def _verify(root: Path, manifest: Manifest) -> None:
    inside = root.resolve()
    for name, expected in manifest.files.items():
        path = root / name
        try:
            if not path.resolve(strict=True).is_relative_to(inside):
                raise ArtifactCorrupt(f"{path}: a link that leaves the artifact")
            if not stat.S_ISREG(path.stat().st_mode):
                raise ArtifactCorrupt(f"{path}: not a plain file")
            found = record(path)
        except OSError as error:
            raise ArtifactCorrupt(f"{path}: {error.strerror}") from error
        except RuntimeError as error:  # what Python 3.11 makes of a loop of links
            raise ArtifactCorrupt(f"{path}: links that lead nowhere") from error
        _compare(path, found, expected)


def _compare(path: Path, found: FileRecord, expected: FileRecord) -> None:
    if found.bytes != expected.bytes:
        raise ArtifactCorrupt(f"{path}: {found.bytes} bytes, the manifest promises {expected.bytes}")
    if found.sha256 != expected.sha256:
        raise ArtifactCorrupt(f"{path}: sha256 differs from the manifest")


def _folders(path: Path) -> list[str]:
    """Names of the folders in `path`; none when it is missing. Raises ArtifactError when it cannot be read."""
    try:
        return [entry.name for entry in path.iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from error


def first_problem(error: Exception) -> str:
    """The first problem, with the field it concerns and without the offending value."""
    if isinstance(error, ValidationError):
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        return f"{where}: {problem['msg']}" if where else problem["msg"]
    return str(getattr(error, "strerror", None) or error)


class Repository:
    """A folder of published models. Holds no state: every call reads the disk, so it never goes stale."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of the models that have at least one version, sorted."""
        return sorted(name for name in _folders(self.root) if _NAME.fullmatch(name) and self.versions(name))

    def versions(self, model: str) -> list[int]:
        """Published versions of `model`, ascending. Empty for a model nobody published.

        A folder without a manifest is not a version: it was not published, or is still being copied here.
        """
        home = self.root / self._checked(model)
        names = (name for name in _folders(home) if _VERSION.fullmatch(name))
        return sorted(int(name) for name in names if (home / name / MANIFEST).is_file())

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version. Raises ArtifactCorrupt when the file cannot be read as that."""
        path = self.root / self._checked(model) / _ALIASES
        try:
            return _AliasMap.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise ArtifactCorrupt(f"{path}: {first_problem(error)}") from error

    def resolve(self, model: str, version: int | str | None = None) -> int:
        """The version number meant by a number, an alias or nothing (production, else the greatest).

        Raises ArtifactNotFound.
        """
        versions = self.versions(model)
        if not versions:
            raise ArtifactNotFound(f"no model {model!r} in {self.root}")
        if version is None:
            chosen = self.aliases(model).get(PRODUCTION, versions[-1])
        elif isinstance(version, str) and not _VERSION.fullmatch(version):
            aliases = self.aliases(model)
            if version not in aliases:
                raise ArtifactNotFound(f"model {model!r} has no alias {version!r}")
            chosen = aliases[version]
        else:
            chosen = int(version)
        if chosen not in versions:
            raise ArtifactNotFound(f"model {model!r} has no version {chosen}")
        return chosen

    def open(self, model: str, version: int | str | None = None, *, verify: bool = True) -> Artifact:
        """Open a version named as in `resolve`. Raises ArtifactNotFound, ArtifactCorrupt."""
        number = self.resolve(model, version)
        artifact = open_artifact(self.root / model / str(number), verify=verify)
        if (artifact.manifest.name, artifact.manifest.version) != (model, number):
            raise ArtifactCorrupt(f"{artifact.path / MANIFEST}: describes another model or version than its folder")
        return artifact

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point `alias` at `version`. Raises ArtifactNotFound, ArtifactError."""
        if not _ALIAS.fullmatch(alias):
            raise ArtifactError("an alias is a lower-case word: letters, digits, '-' and '_'")
        if version not in self.versions(model):
            raise ArtifactNotFound(f"model {model!r} has no version {version}")
        with self.editing_aliases(model) as aliases:
            aliases[alias] = version

    def remove_alias(self, model: str, alias: str) -> None:
        """Drop `alias`. Raises ArtifactNotFound when there is none."""
        with self.editing_aliases(model) as aliases:
            if aliases.pop(alias, None) is None:
                raise ArtifactNotFound(f"model {model!r} has no alias {alias!r}")

    @contextmanager
    def editing_aliases(self, model: str) -> Iterator[dict[str, int]]:
        """The aliases, to change in place; written in one step at exit. One editor at a time, across processes."""
        home = self.root / self._checked(model)
        if not home.is_dir():
            raise ArtifactNotFound(f"no model {model!r} in {self.root}")
        try:
            with lock(home / _LOCK):
                before = self.aliases(model)
                aliases = dict(before)
                yield aliases
                if aliases != before:
                    content = json.dumps(aliases, indent=2, sort_keys=True).encode() + b"\n"
                    write_atomically(home / _ALIASES, content)
        except OSError as error:
            raise ArtifactError(f"{home / _ALIASES}: {error.strerror}") from error

    def _checked(self, model: str) -> str:
        if not _NAME.fullmatch(model):
            raise ArtifactNotFound(f"{model!r} is not a model name")
        return model
