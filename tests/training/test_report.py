"""The report shows everything that was measured, loads nothing, and says so where nothing was measured."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from artifact.manifest import Estimate
from tests.training.findings import NASTY, REASON, findings
from training.page import METRICS, megabytes, shown
from training.report import beats_baseline, render_report

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects text and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(findings())


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    parsed = Page(page)
    for title in ("What it is worth", "On the test split", "How it learned", "The gate", "Speed", "The data"):
        assert title in parsed.text
    for caption in ("ROC curve", "Calibration", "Confusion matrix", "Loss", "Tokens per training text"):
        assert caption in parsed.text
    assert parsed.tags.count("svg") >= 7


def test_the_page_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name in {"src", "href", "xlink:href", "srcset"}]
    assert not re.search(r"url\(|@import|https?://", page)


def test_names_from_outside_are_text(page: str) -> None:
    assert NASTY in Page(page).text
    assert "<script>" not in page


def test_every_metric_is_shown_with_its_interval_beside_the_baseline(page: str) -> None:
    found = findings()
    for key, title in METRICS.items():
        assert title in page
        assert shown(found.evaluation.metrics[key]) in page
        assert shown(found.baseline.metrics[key]) in page


def test_the_verdict_on_the_baseline_follows_the_intervals(page: str) -> None:
    assert beats_baseline(findings())
    assert "beats the baseline" in page
    worse = findings(skill=0.3)
    assert not beats_baseline(worse)
    assert "not shown to be better" in render_report(worse)


def test_a_refused_variant_keeps_its_reason_and_an_unmeasured_figure_says_so(page: str) -> None:
    text = Page(page).text
    assert f"int8 was refused: {REASON}" in text
    assert "refused by the gate: int8" in text
    assert "not measured" in text
    assert "91.0 MB" in text


def test_where_it_comes_from_names_weights_threads_and_what_made_it_smaller(page: str) -> None:
    found = findings()
    facts = {"weights_digest": "abc123", "threads": 2, "compressed": "layers=3+tune=2"}
    provenance = found.manifest.provenance.model_copy(update=facts)
    text = Page(render_report(findings(manifest=found.manifest.model_copy(update={"provenance": provenance})))).text
    assert "sha256:abc123" in text
    assert "13, 2" in text
    assert "layers=3+tune=2" in text
    assert "Made smaller by" not in Page(page).text


def test_a_refused_model_says_so_at_the_top() -> None:
    found = findings()
    gate = found.manifest.gate.model_copy(update={"passed": False})
    refused = findings(manifest=found.manifest.model_copy(update={"gate": gate}))
    assert "gate refused: nothing published" in render_report(refused)


def test_preparation_counts_are_there_known_or_not(page: str) -> None:
    text = Page(page).text
    assert "12,345" in text
    assert "something new" in text


def test_a_page_can_be_made_of_next_to_nothing() -> None:
    found = findings()
    bare = findings(
        lengths=[],
        fine_tuned=found.fine_tuned.model_copy(update={"curve": (), "resumed": False}),
        manifest=found.manifest.model_copy(update={"gate": found.manifest.gate.model_copy(update={"variants": ()})}),
    )
    assert "not measured" in Page(render_report(bare)).text


def test_figures_are_written_for_people() -> None:
    assert shown(Estimate(value=0.8714, low=0.85, high=0.8905)) == "0.871 (0.850 to 0.890)"
    assert shown(None) == "not measured"
    assert shown(Estimate(value=float("nan"), low=0, high=0)) == "not measured"
    assert megabytes(92_869) == "93 kB"


def test_cleaning_and_sources_are_counted_where_there_are_any(page: str) -> None:
    plain = findings()
    train = replace(plain.prepared.train, sources=("a <b>", "c"))
    prepared = replace(plain.prepared, train=train, transformed={"pii": 7_001}, masked={"email": 9_002})
    shown_there = Page(render_report(findings(prepared=prepared))).text
    for text in ("Cleaning steps", "7,001", "Personal data masked", "9,002", "Sources", "a <b>"):
        assert text in shown_there
        assert text not in Page(page).text
