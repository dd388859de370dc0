"""Options that several commands have, and which artifact they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import WrongUsage

if TYPE_CHECKING:
    from artifact.repository import Artifact

RepositoryFolder = Annotated[
    Path, typer.Option("--repository", envvar="SLIPWAY_REPOSITORY", help="Folder of published models.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of tables.")]
Reference = Annotated[str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.", show_default=False)]


def parse_reference(reference: str) -> tuple[str, str | None]:
    """NAME, NAME:VERSION or NAME@ALIAS as name and version. Raises WrongUsage."""
    name, mark, version = reference.partition("@" if "@" in reference else ":")
    if not name or (mark and not version) or (mark == ":" and not version.isdecimal()):
        raise WrongUsage("a model is named NAME, NAME:VERSION with a number, or NAME@ALIAS")
    return name, version or None


def open_model(root: Path, model: str | None, version: str | None) -> "Artifact":
    """The artifact meant by `--model` and `--version`. Raises WrongUsage when that could be several."""
    from artifact.repository import Repository

    repository = Repository(root)
    if model is None:
        names = repository.models()
        if not names:
            raise WrongUsage(
                f"no models in {root}; slipway train sentiment publishes one, --repository looks elsewhere"
            )
        if len(names) > 1:
            raise WrongUsage(f"say which model with --model: {', '.join(names)}")
        model = names[0]
    return repository.open(model, version)
