import pytest

from service.context import RequestInfo

TRACE = b"0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", ["a", "A-1_.:~+/=@", "x" * 128])
def test_a_sound_request_id_is_kept(given: str) -> None:
    assert RequestInfo([(b"x-request-id", given.encode())]).request_id == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\nb", "é".encode(), b'"', b"<script>", b"a;b"])
def test_an_unsound_one_is_replaced(given: bytes) -> None:
    found = RequestInfo([(b"x-request-id", given)]).request_id
    assert len(found) == 32
    assert found.encode() != given


def test_two_requests_differ() -> None:
    assert RequestInfo([]).request_id != RequestInfo([]).request_id


def test_traceparent_keeps_the_trace_and_names_a_new_parent() -> None:
    info = RequestInfo([(b"traceparent", b"00-" + TRACE + b"-b7ad6b7169203331-01")])
    assert info.trace_id == TRACE.decode()
    version, trace, parent, flags = dict(info.headers())[b"traceparent"].split(b"-")
    assert (version, trace, flags) == (b"00", TRACE, b"01")
    assert len(parent) == 16
    assert parent != b"b7ad6b7169203331"


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"00-" + TRACE.upper() + b"-b7ad6b7169203331-01",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"ff-" + TRACE + b"-b7ad6b7169203331-01",
        b"00-" + TRACE + b"-b7ad6b7169203331",
    ],
)
def test_a_broken_traceparent_is_ignored(given: bytes) -> None:
    info = RequestInfo([(b"traceparent", given)])
    assert info.trace_id is None
    assert [name for name, _ in info.headers()] == [b"x-request-id"]
