"""`slipway bench`: what runs a model fastest on this machine."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import FAILED, WrongUsage
from cli.options import AsJson, RepositoryFolder, open_model, parse_reference
from cli.output import make_table, open_console, talk, write_json

if TYPE_CHECKING:
    from inference.engines import Report


def bench(
    model: Annotated[str | None, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.", show_default=False)] = None,
    engines: Annotated[bool, typer.Option("--engines", help="Every variant and engine there is.")] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="About how long to measure.")] = 30.0,
    repository: RepositoryFolder = Path("models"),
    as_json: AsJson = False,
) -> int:
    """Measure what runs a model fastest on this machine, and keep the choice for `slipway serve`."""
    from artifact.files import cache_dir
    from inference.engines import bench as measure
    from inference.engines import open_cache

    if not engines:
        raise WrongUsage("say what to measure: --engines (make bench measures the whole service)")
    name, version = parse_reference(model) if model else (None, None)
    artifact = open_model(repository, name, version)
    with open_console(talk=True).status("opening") as status:
        report = measure(
            artifact,
            open_cache(cache_dir(os.environ)),
            seconds=seconds,
            on_turn=lambda plan: status.update(str(plan)),
        )
    open_console().print(_engines_table(report))
    choice = report.choice
    talk(f"{choice.plan}: {choice.why}" if choice else "no plan keeps the floors; the rule decides")
    if as_json:
        write_json(
            {
                "model": f"{artifact.manifest.name}:{artifact.manifest.version}",
                "digest": artifact.digest,
                "choice": asdict(choice) if choice else None,
                "kept": str(report.kept) if report.kept else None,
                "measured": [asdict(each) | {"refused": report.refused.get(each.plan)} for each in report.found],
            }
        )
    return 0 if choice else FAILED


def _engines_table(report: "Report") -> object:
    rows = [
        [
            f"{'* ' if report.choice and each.plan == report.choice.plan else ''}{each.plan}",
            f"{each.texts_per_second:.0f}",
            f"{each.alone_p50_seconds * 1e3:.1f}",
            f"{each.cpu_seconds_per_text * 1e3:.2f}",
            f"{each.checks.golden_difference:.2g}",
            f"{each.checks.agreement:.1%}",
            f"{each.checks.neighbour_difference:.2g}, {each.checks.neighbour_flips} labels",
            report.refused.get(each.plan, "ok"),
        ]
        for each in sorted(report.found, key=lambda each: -each.texts_per_second)
    ]
    headings = ["plan", "texts/s", "ms alone", "CPU ms/text", "golden drift", "labels kept", "drift by neighbours", ""]
    return make_table(headings, rows)
