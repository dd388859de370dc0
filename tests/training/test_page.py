"""What all pages have in common."""

from training.page import NOT_MEASURED, badge, cards, figure, histogram, length_chart, render_page, section, table


def test_a_page_loads_nothing_and_escapes_its_title() -> None:
    page = render_page("<script>", "<p>body</p>")
    assert "default-src 'none'" in page
    assert "<title>&lt;script&gt;</title>" in page
    assert page.endswith("<body><main><p>body</p></main></body></html>\n")


def test_parts_escape_what_is_text() -> None:
    assert "&lt;b&gt;" in section("<b>", "")
    assert "&lt;b&gt;" in figure("<b>", "")
    assert "&lt;b&gt;" in badge(good=True, yes="<b>", no="")
    assert cards([("<b>", "<i>", "<u>")]).count("&lt;") == 3


def test_the_first_cell_names_its_row() -> None:
    assert table(("a", "b"), [("x", "1")]).count('scope="row"') == 1


def test_bars_have_whole_width_and_hold_everything() -> None:
    bars = histogram([3, 3, 4, 90, 200])
    assert sum(count for *_, count in bars) == 5
    assert len({high - low for low, high, _ in bars}) == 1
    assert histogram([7]) == [(7.0, 8.0, 1.0)]
    assert NOT_MEASURED in length_chart([])
