"""Does the first request after readiness pay for what later ones find done?

A fresh server is asked nothing but whether it is ready; then come twenty requests with one text, one after another on
one connection. What the first took over the median of the later ones is 1 where the warm-up left nothing to do. Each
start gives one such figure for one text, of median length or the longest, as the artifact's quantiles have it.
"""

import http.client
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from artifact.repository import Artifact
from benchmarks.figures import spread
from benchmarks.process import Server, probe_body
from benchmarks.wrk import BenchmarkError
from inference.samples import quantile_function, text_of
from inference.tasks.registry import open_task

REQUESTS: Final = 20
# Of the artifact's lengths; what they are called in the results.
_SHARES: Final = {"median": 0.5, "longest": 1.0}

OpenServer = Callable[[], AbstractContextManager[Server]]


def texts_of(artifact: Artifact) -> dict[str, str]:
    """A text of the golden inputs' words for each length, `median` and `longest`."""
    task, manifest = open_task(artifact), artifact.manifest
    tokens = quantile_function(manifest.length_quantiles)
    words = [example.input for example in artifact.golden().inputs]
    return {
        name: text_of(
            words,
            min(tokens(share), manifest.limits.max_input_tokens),
            lambda text: task.prepare(text, truncate=False).tokens,
        )
        for name, share in _SHARES.items()
    }


def time_requests(server: Server, text: str, count: int = REQUESTS) -> list[float]:
    """Milliseconds of each of `count` requests on one connection. Raises BenchmarkError when one is not answered.

    The client's own code and the connection have been used before the clock starts.
    """
    body = probe_body(text)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        _ask(connection, "GET", "/health/ready", None)
        return [_ask(connection, "POST", "/predict", body) for _ in range(count)]
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"a first request was not answered: {error!r}") from error
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> float:
    started = time.perf_counter()
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    taken = 1000 * (time.perf_counter() - started)
    if response.status != 200:
        raise BenchmarkError(f"{method} {path} of a fresh server was answered with {response.status}")
    return taken


def measure(open_server: OpenServer, texts: Mapping[str, str], starts: int) -> dict[str, list[list[float]]]:
    """Milliseconds of every request, by text and start. `open_server` starts one that nobody has asked for anything."""
    found: dict[str, list[list[float]]] = {name: [] for name in texts}
    for _ in range(starts):
        for name, text in texts.items():
            with open_server() as server:
                found[name].append(time_requests(server, text))
    return found


def ratio(milliseconds: Sequence[float]) -> float:
    """The first over the median of the later ones."""
    return milliseconds[0] / statistics.median(milliseconds[1:])


def summarize(found: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """`first_request_ratio`: the median over the starts, by text; `first_requests`: ranges, and milliseconds."""
    ratios = {name: spread([ratio(each) for each in starts]) for name, starts in found.items()}
    return {
        "first_request_ratio": {name: each["median"] for name, each in ratios.items()},
        "first_requests": {
            name: {
                "ratio": ratios[name],
                "first_ms": spread([each[0] for each in starts]),
                "later_ms": spread([statistics.median(each[1:]) for each in starts]),
            }
            for name, starts in found.items()
        },
    }
