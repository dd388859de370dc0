"""The commands under one name, and the end of every one: an exit status, and one line about what went wrong."""

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from artifact.errors import SlipwayError
from cli.bench import bench
from cli.compress import compress
from cli.errors import FAILED, WRONG_USAGE
from cli.evaluate import evaluate
from cli.explore import explore
from cli.models import alias_model, list_models, show_model, verify_models
from cli.output import talk
from cli.predict import predict
from cli.runs import list_runs
from cli.serve import serve
from cli.train import train
from cli.tune import tune

_EPILOG: Final = (
    "Exit status: 0 done, 1 failed, 2 wrong usage or settings, 3 the gate refused the model, 130 interrupted."
)


@dataclass
class Run:
    """What `main` wants to know about the command line after it has failed."""

    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; what went wrong is one line on stderr."""
    run = Run(debug=os.environ.get("SLIPWAY_DEBUG", "0") not in ("", "0"))
    try:
        status = typer.main.get_command(app).main(args=arguments, prog_name="slipway", standalone_mode=False, obj=run)
        sys.stdout.flush()  # a reader that left must be noticed here, not after the last exception handler
    except BrokenPipeError:
        # The reader left, as `head` does. Python flushes stdout once more at exit: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except typer.TyperException as error:
        return _report_usage(error)
    except SlipwayError as error:
        return _report(run, error.message, error.exit_status)
    except Exception as error:
        return _report(run, f"unexpected {type(error).__name__}: {error} (SLIPWAY_DEBUG=1 shows where)", FAILED)
    return int(status or 0)


def _report(run: Run, message: str, status: int) -> int:
    """Say `message` in one red line; in debug mode, called while an exception is handled, show its traceback first."""
    if run.debug:
        traceback.print_exc()
    talk(f"error: {' '.join(message.split())}", style="red")
    return status


def _report_usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # typer has shown the help already
        return WRONG_USAGE
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    return _report(Run(), f"{error.format_message().rstrip('.')}{hint}", WRONG_USAGE)


def slipway(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error came from, as SLIPWAY_DEBUG=1 does.")
    ] = False,
) -> None:
    """From data to traffic: train a model, check it, publish it, serve it on CPUs."""
    context.ensure_object(Run).debug |= debug


def _models() -> typer.Typer:
    found = typer.Typer(no_args_is_help=True)
    found.command("list")(list_models)
    found.command("show")(show_model)
    found.command("verify")(verify_models)
    found.command("alias")(alias_model)
    return found


def _commands() -> typer.Typer:
    """All of `slipway`, in the order in which its help names them."""
    found = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        epilog=_EPILOG,
        pretty_exceptions_enable=False,
    )
    found.callback()(slipway)
    found.command()(train)
    found.command()(tune)
    found.command("runs")(list_runs)
    found.command()(explore)
    found.command()(compress)
    found.command()(serve)
    found.command()(predict)
    found.command()(evaluate)
    found.command()(bench)
    found.add_typer(_models(), name="models", help="Look at the published models, check them, and move their aliases.")
    return found


app: Final = _commands()
