"""Predictions from a server: what `slipway predict --url` asks."""

import json
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from cli.errors import ServerFailed, WrongUsage
from cli.output import Result, error_document

_ATTEMPTS: Final = 6


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
        return [error_document(code, message)]

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
