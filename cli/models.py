"""`slipway models`: the published versions, looked at, checked, and named by aliases."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifact.errors import SlipwayError
from cli.errors import FAILED, WrongUsage
from cli.options import AsJson, Reference, RepositoryFolder, parse_reference
from cli.output import Result, interval_of, make_table, open_console, talk, write_json

if TYPE_CHECKING:
    from artifact.manifest import Estimate, Manifest, VariantResult
    from artifact.repository import Artifact, Repository


def list_models(repository: RepositoryFolder = Path("models"), as_json: AsJson = False) -> int:
    """Every published version, its aliases and its accuracy."""
    from artifact.repository import Repository

    opened = Repository(repository)
    rows = [_summary(opened, name, version) for name in opened.models() for version in opened.versions(name)]
    if as_json:
        write_json(rows, indent=2)
    elif rows:
        open_console().print(_models_table(rows))
    else:
        talk(f"no models in {repository}; slipway train sentiment publishes one, --repository looks elsewhere")
    broken = [row for row in rows if "error" in row]
    for row in broken:
        talk(f"{row['model']}:{row['version']} cannot be read: {row['error']}", style="red")
    return FAILED if broken else 0


def _summary(repository: "Repository", name: str, version: int) -> Result:
    """One version in a line. A version that cannot be read is listed with the reason."""
    row: Result = {"model": name, "version": version}
    try:
        row["aliases"] = sorted(alias for alias, number in repository.aliases(name).items() if number == version)
        opened = repository.open(name, version, verify=False)
    except SlipwayError as error:
        return row | {"error": error.message}
    manifest = opened.manifest
    accuracy = manifest.gate.reference_metrics.get("accuracy")
    return row | {
        "task": manifest.task,
        "labels": list(manifest.labels),
        "variants": [variant.name for variant in manifest.variants],
        "accuracy": accuracy and accuracy.model_dump(),
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "published": manifest.provenance.created.isoformat(),
        "digest": opened.digest,
    }


def _models_table(rows: Sequence[Result]) -> object:
    from artifact.manifest import Estimate

    cells = []
    for row in rows:
        accuracy = row.get("accuracy")
        cells.append(
            [
                row["model"],
                str(row["version"]),
                ", ".join(row.get("aliases", ())),
                row.get("task", "cannot be read"),
                ", ".join(row.get("labels", ())),
                ", ".join(row.get("variants", ())),
                interval_of(Estimate.model_validate(accuracy)) if accuracy else "",
                row.get("published", "")[:16].replace("T", " "),
            ]
        )
    return make_table(
        ["model", "version", "aliases", "task", "labels", "variants", "accuracy [95%]", "published"], cells
    )


def show_model(reference: Reference, repository: RepositoryFolder = Path("models"), as_json: AsJson = False) -> None:
    """What one version is, how it was measured, and what the gate said."""
    from artifact.repository import Repository

    opened = Repository(repository)
    name, version = parse_reference(reference)
    artifact = opened.open(name, version, verify=False)
    aliases = sorted(alias for alias, number in opened.aliases(name).items() if number == artifact.manifest.version)
    if as_json:
        write_json(
            {"digest": artifact.digest, "aliases": aliases, "manifest": artifact.manifest.model_dump(mode="json")}, 2
        )
        return
    console = open_console()
    for part in _description(artifact, aliases):
        console.print(part, markup=False)


def _description(artifact: "Artifact", aliases: Sequence[str]) -> Iterator[object]:
    """What `models show` prints, part by part."""
    manifest = artifact.manifest
    rows = ", ".join(f"{count} {split}" for split, count in manifest.provenance.rows.items())
    facts = {
        "model": f"{manifest.name}:{manifest.version}" + "".join(f" @{alias}" for alias in aliases),
        "digest": artifact.digest,
        "folder": str(artifact.path),
        "task": f"{manifest.task} ({', '.join(manifest.labels)})",
        "limit": f"{manifest.limits.max_input_tokens} tokens per input{_windows(manifest)}",
        "published": manifest.provenance.created.isoformat(timespec="minutes"),
        "data": f"{manifest.provenance.data_name} ({rows})" if rows else manifest.provenance.data_name,
        "gate": f"{'passed' if manifest.gate.passed else 'refused'}, {manifest.gate.test_rows} test rows",
    }
    yield make_table(["", ""], [[key, value] for key, value in facts.items() if value])
    yield _metrics_table(manifest)
    if manifest.gate.variants:
        yield make_table(
            [
                "variant",
                "verdict",
                "MB",
                "accuracy [95%]",
                "largest drift",
                "labels kept",
                "drift by neighbours",
                "texts/s",
            ],
            [_verdict(result) for result in manifest.gate.variants],
        )
    for result in manifest.gate.variants:
        if result.reason:
            yield f"{result.name} was refused: {result.reason}"
    files = [[name, f"{record.bytes:,}", record.sha256[:16]] for name, record in manifest.files.items()]
    yield make_table(["file", "bytes", "sha256 starts with"], files)


def _windows(manifest: "Manifest") -> str:
    """How longer texts are read."""
    tokens = manifest.preprocessing.window_tokens
    return f", read in windows of {tokens}" if tokens else ""


def _metrics_table(manifest: "Manifest") -> object:
    """Metrics of the trained model beside those of the baseline, each with its interval."""
    gate = manifest.gate
    rows = [
        [name, *(interval_of(metrics[name]) if name in metrics else "" for metrics in _both(manifest))]
        for name in gate.reference_metrics | gate.baseline_metrics
    ]
    return make_table(["metric [95%]", "this model", "baseline"], rows)


def _both(manifest: "Manifest") -> tuple[dict[str, "Estimate"], dict[str, "Estimate"]]:
    return manifest.gate.reference_metrics, manifest.gate.baseline_metrics


def texts_per_second(result: "VariantResult") -> str:
    """Texts a second on one thread in batches of 8, at the length nearest to 32 tokens."""
    eights = [cell for cell in result.speed if cell["batch_size"] == 8]
    nearest = min(eights, key=lambda cell: abs(cell["tokens"] - 32), default=None)
    return f"{nearest['inputs_per_second']:.0f}" if nearest else ""


def _verdict(result: "VariantResult") -> list[str]:
    accuracy = result.metrics.get("accuracy")
    return [
        result.name,
        "published" if result.published else "refused",
        f"{result.bytes / 1e6:.1f}",
        interval_of(accuracy) if accuracy else "",
        f"{result.max_score_difference:.2g}",
        f"{result.label_agreement:.2%}",
        f"{result.neighbour_max_score_difference:.2g}, {result.neighbour_label_flips} labels",
        texts_per_second(result),
    ]


def verify_models(
    reference: Annotated[
        str | None, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    everything: Annotated[bool, typer.Option("--all", help="Every version of every model.")] = False,
    as_json: AsJson = False,
) -> int:
    """Hash every file and reproduce the golden inputs on this CPU, with each variant."""
    from artifact.repository import Repository

    opened = Repository(repository)
    if (reference is None) != everything:
        raise WrongUsage("say which version to verify, NAME:VERSION, or --all of them")
    if reference is None:
        chosen = [(name, version) for name in opened.models() for version in opened.versions(name)]
    else:
        name, wanted = parse_reference(reference)
        chosen = [(name, opened.resolve(name, wanted))]
    results = [_verified(opened, *version, quiet=as_json) for version in chosen]
    if as_json:
        write_json(results, indent=2)
    elif not results:
        talk(f"no models in {repository}")
    return FAILED if any("error" in result for result in results) else 0


def _verified(repository: "Repository", name: str, version: int, *, quiet: bool) -> Result:
    """Verify one version, and say so unless `quiet`."""
    with open_console(talk=True).status(f"{name}:{version}"):
        result = {"model": name, "version": version} | _verify(repository, name, version)
    if not quiet:
        open_console().print(_sentence(result), markup=False, soft_wrap=True)
    return result


def _verify(repository: "Repository", name: str, version: int) -> Result:
    from inference.model import Model

    try:
        artifact = repository.open(name, version)
        checked, skipped = [], []
        for variant in artifact.manifest.variants:
            if variant.format == "torchscript" and not _has_torch():
                skipped.append(variant.name)
                continue
            Model.load(artifact, variant=variant.name).close()
            checked.append(variant.name)
    except SlipwayError as error:
        return {"error": error.message}
    return {
        "digest": artifact.digest,
        "files": len(artifact.manifest.files),
        "variants": checked,
        "skipped": skipped,
        "unlisted": artifact.unlisted(),
    }


def _has_torch() -> bool:
    from importlib.util import find_spec

    return find_spec("torch") is not None


def _sentence(result: Result) -> str:
    """What verifying found, for a person."""
    name = f"{result['model']}:{result['version']}"
    if "error" in result:
        return f"{name}  FAILED  {result['error']}"
    golden = f"golden inputs reproduced by {', '.join(result['variants']) or 'no variant'}"
    notes = [f"{', '.join(result['skipped'])} not run: pip install 'slipway[torchscript]'"] if result["skipped"] else []
    notes += [f"not in the manifest and never read: {', '.join(result['unlisted'])}"] if result["unlisted"] else []
    return "; ".join([f"{name}  ok  {result['files']} files hashed, {golden}", *notes])


def alias_model(
    name: Annotated[str, typer.Argument(help="The model.", show_default=False)],
    alias: Annotated[str, typer.Argument(help="The alias, such as production or canary.", show_default=False)],
    version: Annotated[
        int | None, typer.Argument(help="The version it should mean from now on.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    remove: Annotated[bool, typer.Option("--remove", help="Drop the alias instead.")] = False,
) -> None:
    """Point an alias at a version, or drop it. A request that names no version gets `production`."""
    from artifact.repository import Repository

    if (version is None) != remove:
        raise WrongUsage("give the version the alias should mean, or --remove to drop the alias, not both")
    opened = Repository(repository)
    before = opened.aliases(name).get(alias)
    if version is None:
        opened.remove_alias(name, alias)
        talk(f"{name}@{alias} is gone; it meant version {before}")
    else:
        opened.set_alias(name, alias, version)
        talk(f"{name}@{alias} means version {version}" + (f"; before, {before}" if before else ""))
