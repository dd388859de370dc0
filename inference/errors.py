"""The branch of the error tree that a request for a prediction can meet.

SlipwayError                 (artifact/errors.py)
└── InferenceError
    ├── BadInput         422  the request can never succeed; `field` names what is wrong
    ├── InputTooLong     413  more tokens than the model accepts
    ├── TooManyInputs    413  more inputs in one request than the service accepts
    ├── UnknownModel     404  no such model, or that version is not loaded
    ├── Overloaded       429  the queue is full; come back later
    ├── NotReady         503  nothing is loaded, or the process is closing
    ├── DeadlineExceeded 504  the answer was not there in time
    └── BackendFailed    500  the model raised; the cause goes to the log, not to the caller
"""

from typing import ClassVar

from artifact.errors import SlipwayError


class InferenceError(SlipwayError):
    """A request that gets no prediction. `field` and `retry_after_seconds` are set where they mean something."""

    field: str | None = None
    retry_after_seconds: float | None = None


class BadInput(InferenceError):
    """The request can never succeed as it is."""

    status, code = 422, "bad_input"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class InputTooLong(InferenceError):
    """An input has more tokens than the model accepts, and truncation was not asked for."""

    status, code = 413, "input_too_long"

    def __init__(self, field: str, tokens: int, limit: int) -> None:
        super().__init__(
            f"{field}: {tokens} tokens, the model accepts {limit}; shorten it, or have it cut with "
            "parameters.truncate = true (slipway predict --truncate)"
        )
        self.field = field
        self._tokens, self._limit = tokens, limit

    def at(self, field: str) -> "InputTooLong":
        """The same about another field, for another request that holds the same input."""
        return InputTooLong(field, self._tokens, self._limit)


class TooManyInputs(InferenceError):
    """More inputs in one request than the service accepts."""

    status, code = 413, "too_many_inputs"
    field = "inputs"


class UnknownModel(InferenceError):
    """No such model, or no such version of it, is loaded."""

    status, code = 404, "unknown_model"


class _ComeBack(InferenceError):
    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(_ComeBack):
    """The queue is full. The caller should back off for `retry_after_seconds`."""

    status, code = 429, "overloaded"


class NotReady(_ComeBack):
    """Nothing is loaded yet, or the process is closing."""

    status, code = 503, "not_ready"


class DeadlineExceeded(_ComeBack):
    """The answer was not there before the request's deadline."""

    status, code = 504, "deadline_exceeded"


class BackendFailed(InferenceError):
    """The model raised, hung, or returned the wrong number of rows."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "backend_failed"
