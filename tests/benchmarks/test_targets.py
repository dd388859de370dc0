import pytest

from benchmarks.targets import TARGETS, Target, as_markdown, as_text, judge, lookup

RESULT = {
    "ratio": {"8": 0.81, "32": 0.87},
    "memory_mb": 180.0,
    "engine": "onnxruntime",
    "spread": {"ratio.8": [0.79, 0.83]},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("ratio", "8"), 0.81),
        (("ratio", "128"), None),
        (("memory_mb",), 180.0),
        (("engine",), None),
        (("p", "q"), None),
    ],
)
def test_a_figure_is_found_by_its_path(path: tuple[str, ...], expected: float | None) -> None:
    assert lookup(RESULT, path) == expected


def test_each_target_is_met_not_met_or_not_measured() -> None:
    verdicts = {target.path: verdict for target, _, verdict in judge(RESULT)}
    assert verdicts["ratio", "8"] == "met"
    assert verdicts["ratio", "32"] == "not met"
    assert verdicts["ratio", "128"] == "not measured"
    assert verdicts["memory_mb",] == "met"


def test_bounds_hold_at_their_edge() -> None:
    assert Target("t", ("x",), 0.6, at_least=False).met(0.6)
    assert Target("t", ("x",), 0.6).met(0.6)
    assert not Target("t", ("x",), 0.6).met(0.59)


def test_a_figure_without_a_bound_is_stated_and_not_judged() -> None:
    rows = {target.path: verdict for target, _, verdict in judge({"first_request_ratio": {"median": 9.0}})}
    assert rows["first_request_ratio", "median"] == ""
    assert rows["first_request_ratio", "longest"] == "not measured"
    table = as_markdown({"first_request_ratio": {"median": 1.08}})
    assert "| first request over a later one, median length | as measured | 1.08 x |  |  |  |" in table


def test_tables_have_a_row_for_every_target() -> None:
    text, markdown = as_text(RESULT), as_markdown(RESULT)
    assert len(text.splitlines()) == len(markdown.splitlines()) == len(TARGETS) + 2
    assert "0.79 - 0.83" in text
    assert "| >= 0.88 |" in markdown
