"""The `slipway` command.

Each half of Slipway is imported when its subcommand runs and not before, so that `--help` is quick and serving
needs none of the training libraries. What a command finds goes to stdout, what it has to say about it to stderr.

    SlipwayError                 (artifact/errors.py)
    ├── WrongUsage           exit 2  the command line, or this installation, cannot do what was asked
    └── ServerFailed         exit 1  the server behind --url cannot be reached, or refuses the whole request
"""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import typer

from artifact.errors import SlipwayError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from artifact.manifest import Estimate, Manifest, VariantResult
    from artifact.repository import Artifact, Repository
    from inference.engines import Report
    from inference.model import Model
    from inference.ticket import Ticket
    from training.evaluation import Asked
    from training.reproduce import Check, Repeat
    from training.runs import Run as TrainingRun
    from training.tune_report import Tuned

FAILED, WRONG_USAGE = 1, 2
_GROUP: Final = 128  # inputs on their way at once: enough to fill batches, few enough to hold in memory
_READ_BYTES: Final = 1 << 16
_MAX_LINE_BYTES: Final = 4 << 20
_ATTEMPTS: Final = 6
_EPILOG: Final = (
    "Exit status: 0 done, 1 failed, 2 wrong usage or settings, 3 the gate refused the model, 130 interrupted."
)


class WrongUsage(SlipwayError):
    """The command line, or this installation, cannot do what was asked."""

    code = "wrong_usage"
    exit_status = WRONG_USAGE


class ServerFailed(SlipwayError):
    """The server behind `--url` cannot be reached, or refuses the whole request."""

    code = "server_failed"


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
)
models = typer.Typer(no_args_is_help=True)
app.add_typer(models, name="models", help="Look at the published models, check them, and move their aliases.")

RepositoryFolder = Annotated[
    Path, typer.Option("--repository", envvar="SLIPWAY_REPOSITORY", help="Folder of published models.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of tables.")]
Reference = Annotated[str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.", show_default=False)]


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
    _talk(f"error: {' '.join(message.split())}", style="red")
    return status


def _report_usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # typer has shown the help already
        return WRONG_USAGE
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    return _report(Run(), f"{error.format_message().rstrip('.')}{hint}", WRONG_USAGE)


def _console(*, talk: bool = False) -> "Console":
    """A console on stdout for data, or on stderr for talk; wide where nobody's window sets a limit."""
    from rich.console import Console

    stream = sys.stderr if talk else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 160)


def _talk(text: str, style: str = "") -> None:
    """One line on stderr, never wrapped, never read as markup."""
    _console(talk=True).print(text, style=style, markup=False, soft_wrap=True)


def _write_json(value: object, indent: int | None = None) -> None:
    """One JSON document on stdout, there at once for whoever reads along."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


@contextmanager
def _extra(command: str, extra: str) -> Iterator[None]:
    """Turn a library that is not installed into the one line that says how to install it. Raises WrongUsage."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "a library").partition(".")[0]
        raise WrongUsage(
            f"slipway {command} needs {missing}, which is not installed here: pip install 'slipway[{extra}]'"
        ) from error


@app.callback()
def slipway(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error came from, as SLIPWAY_DEBUG=1 does.")
    ] = False,
) -> None:
    """From data to traffic: train a model, check it, publish it, serve it on CPUs."""
    context.ensure_object(Run).debug |= debug


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A bundled recipe's name, or a TOML file.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the new version `production`. The first version always is.")
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and the report; a run found there goes on.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Repeat this published model, NAME:VERSION or NAME@ALIAS, and compare."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --from: where the local table lies now; of several, their folder.")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="With --from: where the local encoder lies now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --from: one JSON document instead of tables.")] = False,
) -> int:
    """Train a model, put it through the gate, and publish it as the next version.

    With --from nothing is published: the model is trained again from its own manifest, and the exit status is 0 when
    it came out the same, 1 when it did not.
    """
    if (recipe is None) == (source is None):
        raise WrongUsage("give a recipe, or --from with the model to repeat (see slipway train --help)")
    if source is None and (data or encoder or as_json):
        raise WrongUsage("--data, --encoder and --json go with --from")
    if source is not None and promote:
        raise WrongUsage("--from publishes nothing, so there is nothing to --promote")
    with _extra("train", "train"):
        if recipe is not None:
            from training.pipeline import run_cli

            return run_cli(recipe, repository=repository, promote=promote, run_dir=run_dir)
        from training.reproduce import repeat

        found = repeat(_open(repository, *_parse(str(source))), run_dir, data=data, encoder=encoder)
    return _report_repeat(found, as_json=as_json)


def _report_repeat(found: "Repeat", *, as_json: bool) -> int:
    """Whether a repeated model came out the same, and what was not as it had been."""
    if as_json:
        _write_json(asdict(found) | {"verdict": found.verdict}, indent=2)
    else:
        for checks in filter(None, (found.outcome, found.differences)):
            _console().print(_table(["", "published", "now", ""], [_check_cells(check) for check in checks]))
        _console().print(_repeat_sentence(found), markup=False, soft_wrap=True)
    return FAILED if found.verdict == "different" else 0


def _check_cells(check: "Check") -> list[str]:
    """A check for a table: of a digest its first sixteen digits."""
    shown = [re.sub(r"\b([0-9a-f]{16})[0-9a-f]{24,48}\b", r"\1...", fact) for fact in (check.published, check.now)]
    return [check.name, *shown, {True: "same", False: "differs", None: ""}[check.same]]


def _repeat_sentence(found: "Repeat") -> str:
    others = ", ".join(each.name for each in found.differences)
    if not found.outcome:
        return f"{found.model} was not trained again; what differs: {others}"
    if found.verdict == "different":
        suspects = f"what else differs: {others}" if others else "nothing that is recorded explains it"
        missed = ", ".join(each.name for each in found.outcome if each.same is False)
        return f"{found.model} came out different: {missed}; {suspects}"
    how = (
        "the same, bit for bit"
        if found.verdict == "identical"
        else "with the same answers; its manifest has no digest of the weights to compare"
    )
    return f"{found.model} came out {how}" + (f", although these differ: {others}" if others else "")


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a TOML file.", show_default=False)],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all. Default: tune.trials of the recipe.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at once, each in a process of its own.")] = 1,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the study; one found there goes on. Default: below runs.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Look for better values of a recipe's fields; the best trial becomes a recipe file.

    The recipe's `[tune]` section says what to search and how. The same command goes on with a study that was killed,
    and a greater --trials adds to one that is over.
    """
    with _extra("tune", "train"):
        from training.recipe import load_recipe
        from training.tune import tune as run

        found = run(load_recipe(recipe), run_dir, trials=trials, jobs=jobs)
    if as_json:
        _write_json(json.loads(json.dumps(asdict(found), default=str)), indent=2)
        return 0
    _console().print(_trials_table(found))
    _console().print(f"{found.recipe}", markup=False, soft_wrap=True)
    _talk(f"best: trial {found.best.number}; slipway train {found.recipe}; plots in {found.folder / 'report.html'}")
    return 0


def _trials_table(found: "Tuned") -> object:
    """Every trial; the best, and with two objectives those that no other beats, with a star."""
    names = list(dict.fromkeys(name for trial in found.trials for name in trial.values))
    timed = any(trial.latency_seconds is not None for trial in found.trials)
    rows = []
    for trial in found.trials:
        quality = "" if trial.quality is None else f"{trial.quality:.4f}"
        latency = "" if trial.latency_seconds is None else f"{trial.latency_seconds * 1e3:.1f}"
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.values.values()]
        star = "* " if trial.number in found.front else ""
        rows.append(
            [f"{star}{trial.number}", trial.state, quality, *([latency] * timed), f"{trial.seconds:.0f}", *values]
        )
    columns = ["trial", "state", found.objective, *(["ms a text"] * timed), "seconds"]
    return _table([*columns, *(name.rpartition(".")[2] for name in names)], rows)


@app.command("runs")
def list_runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs to compare, by the beginning of their folder's name.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> int:
    """List the runs that went through the gate, or compare some of them."""
    from training.runs import differences, find_runs
    from training.runs import list_runs as read

    runs = read(root)
    chosen = find_runs(runs, names) if names else runs
    different = differences(chosen) if names else {}
    if as_json:
        found = [{"run": run.name, "folder": str(run.folder)} | run.summary.model_dump(mode="json") for run in chosen]
        _write_json({"runs": found, "differences": different}, indent=2)
    elif not runs:
        _talk(f"no finished runs in {root}; slipway train leaves one, --root looks elsewhere")
    else:
        _console().print(_comparison_table(chosen, different) if names else _runs_table(chosen))
    return 0


def _runs_table(runs: Sequence["TrainingRun"]) -> object:
    rows = []
    for run in runs:
        summary = run.summary
        accuracy = summary.metrics.get("accuracy")
        rows.append(
            [
                run.name,
                f"{summary.finished:%Y-%m-%d %H:%M}",
                f"{summary.model}:{summary.version}" if summary.version else "refused",
                _interval(accuracy) if accuracy else "",
                f"{summary.steps:,}",
                f"{summary.seconds:.0f}",
            ]
        )
    return _table(["run", "finished", "published", "accuracy [95%]", "steps", "seconds"], rows)


def _comparison_table(runs: Sequence["TrainingRun"], different: dict[str, list[str]]) -> object:
    """One column for each run: what differs between them, then what each was worth."""
    names = dict.fromkeys(name for run in runs for name in run.summary.metrics)
    rows = [[name, *values] for name, values in different.items()]
    for name in names:
        found = [run.summary.metrics.get(name) for run in runs]
        rows.append([name, *(_interval(estimate) if estimate else "" for estimate in found)])
    return _table(["", *(run.name for run in runs)], rows)


@app.command()
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
    as_json: AsJson = False,
) -> int:
    """Look at a data set before training on it: one HTML page, and what training will do about each finding."""
    with _extra("explore", "train"):
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
            console=_console(talk=True),
        )
    if as_json:
        _write_json(asdict(found) | {"advice": [asdict(each) for each in advice]})
    else:
        rows = [[each.topic, each.level, each.found, each.training] for each in advice]
        _console().print(_table(["about", "", "found", "what training does"], rows))
    _talk(f"the page is {output}")
    return 0


@app.command()
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
    with _extra("compress", "train"):
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
            _write_json(outcome.model_dump(mode="json"))
        else:
            _console().print(_table(tradeoffs.HEADINGS, tradeoffs.rows(outcome)))
            for line in tradeoffs.refusals(outcome):
                _console().print(f"refused: {line}", markup=False, soft_wrap=True)
        if said := tradeoffs.sentence(outcome):
            _talk(said)
        check(outcome, target)
    return 0


@app.command()
def serve(
    repository: Annotated[Path | None, typer.Option(help="Folder of published models. Default: models.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose. Default: 8000.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to serve. Default: the best one for this CPU.")] = None,
    default_model: Annotated[str | None, typer.Option(help="Model that answers when a request names none.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes that share the port. Default: 1.")] = None,
    model_workers: Annotated[
        int | None, typer.Option(help="Worker threads of each model. Default: one per core of a process.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. Default: info.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console. Default: json.")] = None,
) -> int:
    """Serve the published models over HTTP until SIGTERM or Ctrl-C.

    A flag wins over the environment variable of the same name: --port over SLIPWAY_PORT. docs/settings.md lists
    every setting; those without a flag are set in the environment.
    """
    from service.config import load_settings
    from service.supervisor import serve as run

    return run(
        load_settings(
            {
                "repository": repository,
                "host": host,
                "port": port,
                "variant": variant,
                "default_model": default_model,
                "workers": workers,
                "model_workers": model_workers,
                "log_level": log_level,
                "log_format": log_format,
            }
        )
    )


# --- predict ---------------------------------------------------------------------------------------------------


@app.command()
def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to predict; without any, the lines of stdin.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    model: Annotated[str | None, typer.Option(help="Model to ask. Not needed where there is only one.")] = None,
    version: Annotated[str | None, typer.Option(help="Version number or alias. Default: production.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to run. Default: the model's first.")] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut a text that is too long instead of refusing it.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="Ask this server instead of reading the repository.")] = None,
) -> int:
    """Predict texts, from the repository without a server, or from a server with --url.

    Writes one JSON object a line, in the order of the inputs. An input that gets no prediction gets an object with
    `error` and its number, counted from 1; the others are answered, and the exit status is 1.
    """
    groups = _arguments(texts) if texts else _stdin_lines()
    if url is not None:
        if variant is not None:
            raise WrongUsage("--variant cannot be asked of a server: it serves one (see slipway serve --variant)")
        return _predict_all(groups, RemoteModel(url, model=model, version=version, truncate=truncate))
    from inference.model import Model

    loaded = Model.load(_open(repository, model, version), variant=variant)
    try:
        return _predict_all(groups, LocalModel(loaded, truncate=truncate))
    finally:
        loaded.close()


Group = Sequence[str | SlipwayError]  # inputs that go together; one that cannot be read is its own error
Result = dict[str, Any]
Predictor = Callable[[Sequence[str]], list[Result]]


def _predict_all(groups: Iterable[Group], predictor: Predictor) -> int:
    """Answer every input in order, one group at a time. Exit status 1 when any of them got an error."""
    number, status = 0, 0
    for group in groups:
        answers = iter(predictor([text for text in group if isinstance(text, str)]))
        for text in group:
            number += 1
            result = next(answers) if isinstance(text, str) else _error(text.code, text.message)
            if "error" in result:
                result["error"]["input"], status = number, FAILED
            _write_json(result)
    return status


def _error(code: str, message: str) -> Result:
    return {"error": {"code": code, "message": message}}


def _arguments(texts: Sequence[str]) -> Iterator[Group]:
    for start in range(0, len(texts), _GROUP):
        yield texts[start : start + _GROUP]


def _stdin_lines() -> Iterator[Group]:
    """The lines of stdin. A group is what one read brought, so nobody who types waits for a group to fill."""
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), _READ_BYTES):
        if len(rest) > _MAX_LINE_BYTES and b"\n" not in chunk:
            continue  # already too long to be accepted: remember no more of it
        *lines, rest = (rest + chunk).split(b"\n")
        for start in range(0, len(lines), _GROUP):
            yield [_decoded(line) for line in lines[start : start + _GROUP]]
    if rest:
        yield [_decoded(rest)]


def _decoded(line: bytes) -> str | SlipwayError:
    from inference.errors import BadInput

    if len(line) > _MAX_LINE_BYTES:
        return BadInput("line", f"is longer than {_MAX_LINE_BYTES} bytes")
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return BadInput("line", "is not UTF-8")


class LocalModel:
    """Answers from a model loaded here. Each input is a request of its own, so that one refusal is only its own."""

    def __init__(self, model: "Model", *, truncate: bool) -> None:
        self._model = model
        self._truncate = truncate

    def __call__(self, texts: Sequence[str]) -> list[Result]:
        """One result per text; all of them are under way before the first is waited for."""
        return [self._result(future) for future in [self._submit(text) for text in texts]]

    def _submit(self, text: str) -> "Future[Ticket]":
        from inference.errors import InferenceError
        from inference.model import Request

        future: Future[Ticket] = Future()
        try:
            self._model.submit(Request([text], truncate=self._truncate), future.set_result)
        except InferenceError as error:
            future.set_exception(error)
        return future

    def _result(self, future: "Future[Ticket]") -> Result:
        from inference.errors import InferenceError

        try:
            answer = future.result().result()
        except InferenceError as error:
            return _error(error.code, error.message)
        prediction = answer.predictions[0]
        scores = dict(zip(self._model.manifest.labels, prediction.scores, strict=True))
        return {
            "label": prediction.label,
            "score": prediction.score,
            "scores": scores,
            "input_tokens": answer.input_tokens[0],
            "truncated": answer.truncated[0],
        }


class RemoteModel:
    """Answers from a server. Inputs travel together, and one by one when the server refuses them together."""

    def __init__(self, url: str, *, model: str | None, version: str | None, truncate: bool) -> None:
        parts = _address(url)
        self._secure = parts.scheme == "https"
        self._address = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/") + "/predict"
        self._url = f"{parts.scheme}://{self._address}"
        self._request: Result = {"parameters": {"truncate": truncate}}
        if model is not None:
            self._request["model"] = model
        if version is not None:
            self._request["version"] = int(version) if version.isdecimal() else version

    def __call__(self, texts: Sequence[str]) -> list[Result]:
        """One result per text. Raises ServerFailed when the fault is not with a text."""
        if not texts:
            return []
        status, body = self._post({**self._request, "inputs": list(texts)})
        try:
            if status == 200:
                return self._results(body, len(texts))
            code, message = str(body["error"]["code"]), str(body["error"]["message"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ServerFailed(f"{self._url} answers {status}, and not as Slipway does") from error
        if status not in (413, 422, 500, 504):
            raise ServerFailed(f"{self._url} answers {status}: {message}")
        if len(texts) > 1:
            return [result for text in texts for result in self([text])]
        return [_error(code, message)]

    @staticmethod
    def _results(body: Any, expected: int) -> list[Result]:
        """Predictions with their share of `usage`, in the form `LocalModel` has. Raises ValueError, KeyError, ..."""
        usage = body["usage"]
        rows = zip(body["predictions"], usage["input_tokens"], usage["truncated"], strict=True)
        results = [{**row, "input_tokens": tokens, "truncated": cut} for row, tokens, cut in rows]
        if len(results) != expected:
            raise ValueError(f"{len(results)} predictions for {expected} inputs")
        return results

    def _post(self, request: Result) -> tuple[int, Any]:
        """Status and decoded body. Comes back later when asked to (429, 503), a few times."""
        for attempt in range(1, _ATTEMPTS + 1):
            status, retry_after, raw = self._exchange(json.dumps(request).encode())
            if status not in (429, 503) or attempt == _ATTEMPTS:
                break
            time.sleep(min(float(retry_after) if retry_after.isdecimal() else 1.0, 30.0))
        try:
            return status, json.loads(raw)
        except ValueError as error:
            raise ServerFailed(f"{self._url} answers {status}, and not with JSON") from error

    def _exchange(self, body: bytes) -> tuple[int, str, bytes]:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        try:
            connection = (HTTPSConnection if self._secure else HTTPConnection)(self._address, timeout=120)
            try:
                connection.request("POST", self._path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.headers.get("Retry-After", ""), response.read()
            finally:
                connection.close()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ServerFailed(f"no answer from {self._url}: {reason}") from error


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise WrongUsage(f"--url: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUsage("--url is not an http or https address, such as http://127.0.0.1:8000")
    return parts


def _open(root: Path, model: str | None, version: str | None) -> "Artifact":
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


# --- evaluate --------------------------------------------------------------------------------------------------


@app.command()
def evaluate(
    target: Annotated[
        str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS; with --folds a recipe.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled .csv, .tsv, .jsonl or .parquet file. Default: the test split.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of --data with the text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of --data with the label or rating.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to run. Default: the model's first.")] = None,
    against: Annotated[str | None, typer.Option(help="Another model, compared on the same rows.")] = None,
    against_variant: Annotated[str | None, typer.Option(help="Variant of --against. Default: its first.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Column to cut slices by; may be repeated.")] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Condition that cuts a slice, such as 'tokens > 40'; may be repeated."),
    ] = None,
    probes: Annotated[Path | None, typer.Option(help="TOML file of terms to swap, in place of our own.")] = None,
    perturbed_rows: Annotated[int, typer.Option(min=0, help="Rows to change and predict again; 0 for none.")] = 500,
    recipe: Annotated[str | None, typer.Option(help="The model's recipe, where its data is a local file.")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate a recipe in so many folds; a finished fold is kept.")
    ] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="With --folds: only the frozen encoder.")] = False,
    run_dir: Annotated[Path | None, typer.Option(help="With --folds: where finished folds are kept.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page here.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws resamples and changes to texts.")] = 0,
    repository: RepositoryFolder = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Measure a published model through the code that serves it, or a recipe by cross-validation.

    Metrics with intervals, slices, swapped terms, changed texts and calibration; with --against the paired
    bootstrap and McNemar's test. docs/evaluate.md explains each figure.
    """
    _check_evaluate(folds, {"--baseline": baseline, "--run-dir": run_dir}, {"--data": data, "--against": against})
    with _extra("evaluate", "train"):
        from training.evaluation import Asked, write_page

        asked = Asked(
            data=data,
            text_column=text_column,
            label_column=label_column,
            recipe=recipe,
            variant=variant,
            against_variant=against_variant,
            groups=tuple(group or ()),
            conditions=tuple(slices or ()),
            probes=probes,
            perturbed_rows=perturbed_rows,
            seed=seed,
        )
        if folds is None:
            found = _measured(repository, target, against, asked)
        else:
            found = _cross_validated(target, folds, baseline=baseline, run_dir=run_dir)
        if report is not None:
            write_page(report, found.page)
    _show(found, as_json=as_json)


class Shown(NamedTuple):
    """One finding in its three forms."""

    document: Result
    parts: "Iterable[RenderableType]"
    page: str


def _measured(repository: Path, target: str, against: str | None, asked: "Asked") -> Shown:
    from training.evaluation import evaluate_model
    from training.evaluation_page import render_model
    from training.evaluation_tables import model_tables

    other = _open(repository, *_parse(against)) if against else None
    found = evaluate_model(_open(repository, *_parse(target)), other, asked, _console(talk=True))
    return Shown(found.document(), model_tables(found), render_model(found))


def _cross_validated(target: str, folds: int, *, baseline: bool, run_dir: Path | None) -> Shown:
    from training.evaluation import evaluate_recipe
    from training.evaluation_page import render_folds
    from training.evaluation_tables import fold_tables

    found = evaluate_recipe(target, folds, _console(talk=True), baseline=baseline, run_dir=run_dir)
    return Shown(found.model_dump(mode="json"), fold_tables(found), render_folds(found))


def _show(found: Shown, *, as_json: bool) -> None:
    if as_json:
        _write_json(found.document, indent=2)
        return
    console = _console()
    for part in found.parts:
        console.print(part, markup=False)


def _check_evaluate(folds: int | None, with_folds: Result, without: Result) -> None:
    """Options that mean nothing together. Raises WrongUsage."""
    for option, value in (with_folds if folds is None else without).items():
        if value:
            goes = "goes with --folds" if folds is None else "is for a published model, --folds for a recipe"
            raise WrongUsage(f"{option} {goes}")


# --- models ----------------------------------------------------------------------------------------------------


@app.command()
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
    name, version = _parse(model) if model else (None, None)
    artifact = _open(repository, name, version)
    with _console(talk=True).status("opening") as status:
        report = measure(
            artifact,
            open_cache(cache_dir(os.environ)),
            seconds=seconds,
            on_turn=lambda plan: status.update(str(plan)),
        )
    _console().print(_engines_table(report))
    choice = report.choice
    _talk(f"{choice.plan}: {choice.why}" if choice else "no plan keeps the floors; the rule decides")
    if as_json:
        _write_json(
            {
                "model": f"{artifact.manifest.name}:{artifact.manifest.version}",
                "digest": artifact.digest,
                "choice": asdict(choice) if choice else None,
                "kept": str(report.kept) if report.kept else None,
                "measured": [asdict(each) | {"refused": report.refused.get(each.plan)} for each in report.found],
            }
        )
    return 0 if choice else FAILED


@models.command("list")
def list_models(repository: RepositoryFolder = Path("models"), as_json: AsJson = False) -> int:
    """Every published version, its aliases and its accuracy."""
    from artifact.repository import Repository

    opened = Repository(repository)
    rows = [_summary(opened, name, version) for name in opened.models() for version in opened.versions(name)]
    if as_json:
        _write_json(rows, indent=2)
    elif rows:
        _console().print(_models_table(rows))
    else:
        _talk(f"no models in {repository}; slipway train sentiment publishes one, --repository looks elsewhere")
    broken = [row for row in rows if "error" in row]
    for row in broken:
        _talk(f"{row['model']}:{row['version']} cannot be read: {row['error']}", style="red")
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
                _interval(Estimate.model_validate(accuracy)) if accuracy else "",
                row.get("published", "")[:16].replace("T", " "),
            ]
        )
    return _table(["model", "version", "aliases", "task", "labels", "variants", "accuracy [95%]", "published"], cells)


@models.command("show")
def show_model(reference: Reference, repository: RepositoryFolder = Path("models"), as_json: AsJson = False) -> None:
    """What one version is, how it was measured, and what the gate said."""
    from artifact.repository import Repository

    opened = Repository(repository)
    name, version = _parse(reference)
    artifact = opened.open(name, version, verify=False)
    aliases = sorted(alias for alias, number in opened.aliases(name).items() if number == artifact.manifest.version)
    if as_json:
        _write_json(
            {"digest": artifact.digest, "aliases": aliases, "manifest": artifact.manifest.model_dump(mode="json")}, 2
        )
        return
    console = _console()
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
        "limit": f"{manifest.limits.max_input_tokens} tokens per input",
        "published": manifest.provenance.created.isoformat(timespec="minutes"),
        "data": f"{manifest.provenance.data_name} ({rows})" if rows else manifest.provenance.data_name,
        "gate": f"{'passed' if manifest.gate.passed else 'refused'}, {manifest.gate.test_rows} test rows",
    }
    yield _table(["", ""], [[key, value] for key, value in facts.items() if value])
    yield _metrics_table(manifest)
    if manifest.gate.variants:
        yield _table(
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
    yield _table(["file", "bytes", "sha256 starts with"], files)


def _metrics_table(manifest: "Manifest") -> object:
    """Metrics of the trained model beside those of the baseline, each with its interval."""
    gate = manifest.gate
    rows = [
        [name, *(_interval(metrics[name]) if name in metrics else "" for metrics in _both(manifest))]
        for name in gate.reference_metrics | gate.baseline_metrics
    ]
    return _table(["metric [95%]", "this model", "baseline"], rows)


def _both(manifest: "Manifest") -> tuple[dict[str, "Estimate"], dict[str, "Estimate"]]:
    return manifest.gate.reference_metrics, manifest.gate.baseline_metrics


def _speed(result: "VariantResult") -> str:
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
        _interval(accuracy) if accuracy else "",
        f"{result.max_score_difference:.2g}",
        f"{result.label_agreement:.2%}",
        f"{result.neighbour_max_score_difference:.2g}, {result.neighbour_label_flips} labels",
        _speed(result),
    ]


@models.command("verify")
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
        name, wanted = _parse(reference)
        chosen = [(name, opened.resolve(name, wanted))]
    results = [_verified(opened, *version, quiet=as_json) for version in chosen]
    if as_json:
        _write_json(results, indent=2)
    elif not results:
        _talk(f"no models in {repository}")
    return FAILED if any("error" in result for result in results) else 0


def _verified(repository: "Repository", name: str, version: int, *, quiet: bool) -> Result:
    """Verify one version, and say so unless `quiet`."""
    with _console(talk=True).status(f"{name}:{version}"):
        result = {"model": name, "version": version} | _verify(repository, name, version)
    if not quiet:
        _console().print(_sentence(result), markup=False, soft_wrap=True)
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


@models.command("alias")
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
        _talk(f"{name}@{alias} is gone; it meant version {before}")
    else:
        opened.set_alias(name, alias, version)
        _talk(f"{name}@{alias} means version {version}" + (f"; before, {before}" if before else ""))


def _parse(reference: str) -> tuple[str, str | None]:
    """NAME, NAME:VERSION or NAME@ALIAS as name and version. Raises WrongUsage."""
    name, mark, version = reference.partition("@" if "@" in reference else ":")
    if not name or (mark and not version) or (mark == ":" and not version.isdecimal()):
        raise WrongUsage("a model is named NAME, NAME:VERSION with a number, or NAME@ALIAS")
    return name, version or None


def _interval(estimate: "Estimate") -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


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
    return _table(headings, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> object:
    """A plain table. Without headings it is a list of facts."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


if __name__ == "__main__":
    sys.exit(main())
