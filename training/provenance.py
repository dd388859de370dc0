"""Where a model comes from, as its manifest says: recipe, libraries, commit and CPU."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from inference.layout import read_cpu
from training.recipe import Recipe

ROOT: Final = Path(__file__).resolve().parent.parent
_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy", "scikit-learn")


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe for the manifest: a folder on the machine that trained is nobody else's business, its name may be."""
    named = recipe.with_files(lambda path: Path(path.name))
    # `chosen` only where a study chose: a reader from before it knows no such key.
    left_out = {"tune", "track"} | (set() if recipe.chosen else {"chosen"})
    values: dict[str, Any] = named.model_dump(mode="json", exclude=left_out)
    if recipe.encoder.source == "folder":
        values["encoder"]["name"] = Path(recipe.encoder.name).name
    return values


def libraries() -> dict[str, str]:
    """Versions of Python and of what decides a model and its files."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str:
    """The commit `folder` is checked out at, `+changes` when files differ; empty when this code is under no commit."""
    git = shutil.which("git")
    if git is None or _git(git, folder, "ls-files", "--error-unmatch", __file__) is None:
        return ""
    commit = _git(git, folder, "rev-parse", "HEAD")
    changed = _git(git, folder, "status", "--porcelain", "--untracked-files=no")
    return "" if commit is None else f"{commit}{'+changes' if changed else ''}"


def _git(git: str, folder: Path, *arguments: str) -> str | None:
    """What git prints, or None when it refuses or takes long."""
    command = [git, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name and the instruction sets that decide how fast and how exact int8 is."""
    cpu = read_cpu(cpuinfo)
    return f"{cpu.model} ({', '.join(cpu.instructions)})" if cpu.instructions else cpu.model
