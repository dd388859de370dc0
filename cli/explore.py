"""`slipway explore`: a data set before training on it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import needs
from cli.options import AsJson
from cli.output import make_table, open_console, talk, write_json


def explore(
    recipe_or_file: Annotated[
        str,
        typer.Argument(
            help="A bundled recipe's name, a TOML file, or a .csv, .tsv, .jsonl or .parquet table.", show_default=False
        ),
    ],
    held_out: Annotated[
        list[Path] | None, typer.Option(help="A table none of whose texts may be in the data. Can be repeated.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A second table: how far has it drifted from the data?")] = None,
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("explore.html"),
    text_column: Annotated[str, typer.Option(help="Column with the text, where no recipe says so.")] = "text",
    label_column: Annotated[str, typer.Option(help="Column with the label, where no recipe says so.")] = "label",
    encoder: Annotated[
        str | None, typer.Option(help="Whose tokens to count: packaged name, folder or hub id. Default: the recipe's.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where finished parts are kept. Default: runs/NAME/explore.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Look at a data set before training on it: one HTML page, and what training will do about each finding.

    A part that an earlier run of the same data finished is kept: the command goes on where it was stopped.
    """
    with needs("explore", "train"):
        from artifact.files import cache_dir
        from training.explore_page import explore_to_page

        found, advice = explore_to_page(
            recipe_or_file,
            output,
            held_out=held_out or (),
            against=against,
            columns=(text_column, label_column),
            encoder=encoder,
            cache=cache_dir(os.environ),
            console=open_console(talk=True),
            run_dir=run_dir,
        )
    if as_json:
        write_json(asdict(found) | {"advice": [asdict(each) for each in advice]})
    else:
        rows = [[each.topic, each.level, each.found, each.training] for each in advice]
        open_console().print(make_table(["about", "", "found", "what training does"], rows))
    talk(f"the page is {output}")
    return 0
