"""training/page.py: what pages are made of, and that text from outside stays text."""

from artifact.manifest import Estimate
from training.page import badge, cards, confusion, figure, megabytes, page, section, shown, span, table


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
    assert span(estimate) == "95% interval 0.850 to 0.890"
    assert megabytes(1_500_000) == "1.5 MB"
    assert '<th scope="row">a</th><td>b</td>' in table(("x", "y"), [("a", "b")])
