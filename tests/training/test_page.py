"""training/page.py: what pages are made of, and that text from outside stays text."""

from artifact.manifest import Estimate
from training.page import (
    NOT_MEASURED,
    badge,
    cards,
    confusion,
    figure,
    histogram,
    length_chart,
    megabytes,
    page,
    section,
    shown,
    span,
    stacked,
    table,
)


def test_a_page_allows_no_request() -> None:
    found = page("a <title>", "<p>body</p>")
    assert found.startswith("<!doctype html>")
    assert "default-src 'none'" in found
    assert "<title>a &lt;title&gt;</title>" in found
    assert "<main><p>body</p></main>" in found


def test_names_are_text() -> None:
    assert "<h2>&lt;b&gt;</h2>" in section("<b>", "")
    assert "<figcaption>&lt;b&gt;" in figure("<b>", "")
    assert "&lt;b&gt;" in badge(good=True, yes="<b>", no="")
    assert cards([("<b>", "<i>", "<u>")]).count("&lt;") == 3
    assert "&lt;b&gt;" in confusion([[1]], ["<b>"])


def test_shares_of_a_row_without_counts_are_nothing() -> None:
    assert "0.0%" in confusion([[0, 0], [1, 3]], ["a", "b"])
    assert "75.0%" in confusion([[0, 0], [1, 3]], ["a", "b"])


def test_figures_for_people() -> None:
    estimate = Estimate(value=0.8714, low=0.85, high=0.8905)
    assert shown(estimate) == "0.871 (0.850 to 0.890)"
    assert stacked(estimate) == "0.871<small>0.850 to 0.890</small>"
    assert stacked(None) == "not measured"
    assert span(estimate) == "95% interval 0.850 to 0.890"
    assert megabytes(1_500_000) == "1.5 MB"
    assert '<th scope="row">a</th><td>b</td>' in table(("x", "y"), [("a", "b")])


def test_bars_have_whole_width_and_hold_everything() -> None:
    bars = histogram([3, 3, 4, 90, 200])
    assert sum(count for *_, count in bars) == 5
    assert len({high - low for low, high, _ in bars}) == 1
    assert histogram([7]) == [(7.0, 8.0, 1.0)]
    assert NOT_MEASURED in length_chart([])
