"""`slipway predict`: texts in, one JSON object a line out."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from artifact.errors import SlipwayError
from cli.errors import FAILED, WrongUsage
from cli.options import RepositoryFolder, open_model
from cli.output import Result, error_document, write_json

if TYPE_CHECKING:
    from concurrent.futures import Future

    from artifact.repository import Artifact
    from inference.model import Model
    from inference.ticket import Ticket

_GROUP: Final = 128  # inputs on their way at once: enough to fill batches, few enough to hold in memory
_READ_BYTES: Final = 1 << 16
_MAX_LINE_BYTES: Final = 4 << 20
Group = Sequence[str | SlipwayError]  # inputs that go together; one that cannot be read is its own error
Predictor = Callable[[Sequence[str]], list[Result]]


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to predict; without any, the lines of stdin.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    model: Annotated[str | None, typer.Option(help="Model to ask. Not needed where there is only one.")] = None,
    version: Annotated[str | None, typer.Option(help="Version number or alias. Default: production.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to run. Default: as `serve` chooses here.")] = None,
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
        from cli.remote import RemoteModel

        return _predict_all(groups, RemoteModel(url, model=model, version=version, truncate=truncate))
    loaded = _load(open_model(repository, model, version), variant)
    try:
        return _predict_all(groups, LocalModel(loaded, truncate=truncate))
    finally:
        loaded.close()


def _load(artifact: "Artifact", variant: str | None) -> "Model":
    """The plan that `serve` would choose here if nobody had set one, so that both give the same answer."""
    from artifact.files import cache_dir
    from inference.engines import load_model, open_cache
    from inference.plan import Wish

    return load_model(artifact, cache=open_cache(cache_dir(os.environ)), wish=Wish(variant))


def _predict_all(groups: Iterable[Group], predictor: Predictor) -> int:
    """Answer every input in order, one group at a time. Exit status 1 when any of them got an error."""
    number, status = 0, 0
    for group in groups:
        answers = iter(predictor([text for text in group if isinstance(text, str)]))
        for text in group:
            number += 1
            result = next(answers) if isinstance(text, str) else error_document(text.code, text.message)
            if "error" in result:
                result["error"]["input"], status = number, FAILED
            write_json(result)
    return status


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
        from concurrent.futures import Future

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
            return error_document(error.code, error.message)
        prediction = answer.predictions[0]
        scores = dict(zip(self._model.manifest.labels, prediction.scores, strict=True))
        return {
            "label": prediction.label,
            "score": prediction.score,
            "scores": scores,
            "input_tokens": answer.input_tokens[0],
            "truncated": answer.truncated[0],
        }
