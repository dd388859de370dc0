"""`slipway compress`: smaller versions of a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import WrongUsage, needs
from cli.options import AsJson, RepositoryFolder
from cli.output import make_table, open_console, talk, write_json


def compress(
    recipe: Annotated[str, typer.Argument(help="The recipe of a finished `slipway train`.", show_default=False)],
    smaller: Annotated[
        float | None, typer.Option(min=1.0, help="Find one that is so many times smaller than fp32.")
    ] = None,
    faster: Annotated[
        float | None, typer.Option(min=1.0, help="... so many times faster with 32 texts at once.")
    ] = None,
    lose: Annotated[
        float | None, typer.Option(min=0.0, help="... and loses at most so many points of accuracy. Default: 0.5.")
    ] = None,
    attempt: Annotated[
        list[str] | None, typer.Option("--try", help="A further candidate: layers=3+distil=2+int8+weights=int8.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Nothing but what --try names, and fp32.")] = False,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Texts without labels to distil with, one a line, UTF-8.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish what was found as the next version, through the gate.")
    ] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Make that version `production`.")] = False,
    repository: RepositoryFolder = Path("models"),
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the finished run, where train was given one.")] = None,
    as_json: AsJson = False,
) -> int:
    """Measure smaller versions of a trained model, and find the one that reaches a target.

    Without a target every candidate is measured. With one, those that need training are left out where something
    that does not reaches it. Exit status 1 when nothing does. What was measured is kept in the run's folder.
    """
    asked = (smaller, faster, lose)
    if publish and asked == (None, None, None):
        raise WrongUsage("--publish needs a target: --smaller, --faster or --lose")
    if only and not attempt:
        raise WrongUsage("--only needs --try: say what to measure")
    with needs("compress", "train"):
        from training import candidates, tradeoffs
        from training.compress import Options, check, read_unlabelled
        from training.compress import compress as measure
        from training.pareto import Target
        from training.recipe import load_recipe

        target = None
        if asked != (None, None, None):
            target = Target(smaller or 0.0, faster or 0.0, 0.5 if lose is None else lose)
        texts = read_unlabelled(unlabelled) if unlabelled else ()
        plan = candidates.plan(attempt or (), only=only, unlabelled=bool(texts))
        options = Options(plan, target, texts, publish=publish, promote=promote, repository=repository)
        outcome = measure(load_recipe(recipe), options, run_dir)
        if as_json:
            write_json(outcome.model_dump(mode="json"))
        else:
            open_console().print(make_table(tradeoffs.HEADINGS, tradeoffs.rows(outcome)))
            for line in tradeoffs.refusals(outcome):
                open_console().print(f"refused: {line}", markup=False, soft_wrap=True)
        if said := tradeoffs.sentence(outcome):
            talk(said)
        check(outcome, target)
    return 0
