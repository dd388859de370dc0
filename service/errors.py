"""The branch of the error tree that only exists because there is HTTP and a process around the model.

SlipwayError                        (artifact/errors.py)
└── ServiceError
    ├── WrongSettings          500  a setting cannot be used; the process does not start (exit status 2)
    ├── NotJson                400  the body is not JSON (RFC 8259: NaN and Infinity are not)
    ├── RouteNotFound          404  no such path
    ├── MethodNotAllowed       405  the path exists, the method does not
    ├── RequestTimeout         408  the body did not arrive in time
    ├── BodyTooLarge           413  more bytes than the service reads
    ├── UnsupportedMediaType   415  the body is not declared as JSON
    ├── HeadersTooLarge        431  a request line and headers beyond what the service reads
    ├── HttpError              400  anything else HTTP refuses before a request has a meaning
    └── Internal               500  a bug of ours; the cause is in the log under the request id

InferenceError                      (inference/errors.py)
└── ClientLeft                 499  the caller closed the connection; ends their ticket, nobody reads it
"""

from artifact.errors import SlipwayError
from inference.errors import InferenceError


class ServiceError(SlipwayError):
    """A request, or a start, that the service refuses before any model is involved."""


class WrongSettings(ServiceError):
    """A setting cannot be used. The message names the variable or flag and says what to change."""

    code, exit_status = "wrong_settings", 2


class NotJson(ServiceError):
    """The body is not JSON."""

    status, code = 400, "not_json"


class RouteNotFound(ServiceError):
    """No such path."""

    status, code = 404, "route_not_found"


class MethodNotAllowed(ServiceError):
    """The path exists, but not with this method."""

    status, code = 405, "method_not_allowed"


class RequestTimeout(ServiceError):
    """The body did not arrive in time."""

    status, code = 408, "request_timeout"


class BodyTooLarge(ServiceError):
    """More bytes than the service reads."""

    status, code = 413, "body_too_large"


class UnsupportedMediaType(ServiceError):
    """The body is not declared as JSON."""

    status, code = 415, "unsupported_media_type"


class HttpError(ServiceError):
    """A message HTTP itself does not allow."""

    status, code = 400, "bad_http"


class Internal(ServiceError):
    """A bug of ours."""

    status, code = 500, "internal_error"


class ClientLeft(InferenceError):
    """The caller closed the connection. The status is nginx's, seen in logs and metrics only."""

    status, code = 499, "client_closed_request"


class HeadersTooLarge(ServiceError):
    """A request line and headers beyond what the service reads."""

    status, code = 431, "headers_too_large"
