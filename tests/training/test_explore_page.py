"""The page and its advice: everything found is on it, nothing on it is markup of the data, nothing is loaded."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.training import tiny
from tests.training.full_disk import full_disk
from tests.training.test_explore import LONG, reviews, write
from tests.training.test_report import Page
from training.advice import Advice
from training.errors import DataInvalid, TrainingError
from training.explore import Exploration
from training.explore_page import explore_to_page
from training.sources import EncoderFolder
from training.texts import languages_of

NASTY = "<script>alert(1)</script> &amp; <img src=x>"


def made(home: Path, encoder: EncoderFolder, page: Path | None = None) -> tuple[Exploration, list[Advice]]:
    """Explore a table with something of everything in it."""
    rows = [
        *reviews(),
        (f"{NASTY} {LONG}", "positive"),
        (f"{NASTY} {LONG}!", "negative"),
        ("call +44 20 7946 0958", "negative"),
        ("这部电影很好看", "positive"),
        ("", "negative"),
        ("a plot as thin as paper", "positive"),
        ("a plot as thin as paper", "negative"),
    ]
    rows += [(f"{NASTY} dull stale {number}", "positive") for number in range(3)]
    return explore_to_page(
        str(write(home / "<b>reviews.csv", rows)),
        page or home / "page.html",
        held_out=[write(home / "held.csv", rows[:3])],
        against=write(home / "other.csv", [(f"the parcel came late {n}", "negative") for n in range(60)]),
        columns=("text", "label"),
        encoder=str(encoder.path),
        cache=home / "cache",
        console=Console(quiet=True),
        run_dir=home / "run",
    )


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory, encoder: EncoderFolder
) -> tuple[str, Exploration, list[Advice]]:
    home = tmp_path_factory.mktemp("page")
    found, advice = made(home, encoder)
    return (home / "page.html").read_text(), found, advice


def test_the_page_is_well_formed_and_has_every_section(everything: tuple[str, Exploration, list[Advice]]) -> None:
    parsed = Page(everything[0])
    for title in (
        "What training will do",
        "Rows and labels",
        "Length",
        "Duplicates and leakage",
        "Languages and scripts",
        "Broken texts and personal data",
        "Words that tell the label",
        "Doubtful labels",
        "Held out: held.csv",
        "The first of them",
        "Under two labels, dropped everywhere",
        "Drift to other.csv",
    ):
        assert title in parsed.text


def test_the_page_loads_nothing_and_shows_texts_as_text(everything: tuple[str, Exploration, list[Advice]]) -> None:
    page = everything[0]
    assert "default-src 'none'" in page
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert "<script>alert(1)</script>" in parsed.text
    assert "7946" not in page, "personal data stays off the page"


def test_every_finding_comes_with_what_training_does(everything: tuple[str, Exploration, list[Advice]]) -> None:
    _, _, advice = everything
    parsed = Page(everything[0])
    assert all(each.found in parsed.text and each.training in parsed.text for each in advice)
    assert {"Labels", "Duplicates", "Personal data", "Held-out file", "Drift"} <= {each.topic for each in advice}


def test_the_figures_are_json(everything: tuple[str, Exploration, list[Advice]]) -> None:
    figures = json.loads(json.dumps(dataclasses.asdict(everything[1])))
    assert figures["outcome"]["counts"]["read"] == figures["rows"] == 210
    [held_out] = figures["held_out"]
    assert {name: held_out[name] for name in ("name", "rows", "exact", "near")} == {
        "name": "held.csv",
        "rows": 3,
        "exact": 3,
        "near": 0,
    }
    assert [leak["row"] for leak in held_out["shown"]] == [1, 2, 3]


def test_a_folder_that_is_not_there_is_told_before_any_work(tmp_path: Path, encoder: EncoderFolder) -> None:
    with pytest.raises(TrainingError, match=r"nowhere/page.html: its folder does not exist"):
        made(tmp_path, encoder, tmp_path / "nowhere" / "page.html")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, encoder: EncoderFolder) -> None:
    page = tmp_path / "page.html"
    page.write_text("the page before")
    languages_of(["unpacks its model into a file, once"])
    with pytest.raises(TrainingError, match=r"page\.html.*: File too large"), full_disk():
        explore_to_page(
            str(write(tmp_path / "a.csv", reviews(60))),
            page,
            held_out=(),
            against=None,
            columns=("text", "label"),
            encoder=str(encoder.path),
            cache=tmp_path / "cache",
            console=Console(quiet=True),
            run_dir=tmp_path / "run",
        )
    assert page.read_text() == "the page before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "page.html", "run"]


def test_a_recipe_is_explored_like_a_table(tmp_path: Path) -> None:
    tiny.project(tmp_path)
    found, _ = explore_to_page(
        str(tmp_path / "recipe.toml"),
        tmp_path / "page.html",
        held_out=(),
        against=None,
        columns=("text", "label"),
        encoder=None,
        cache=tmp_path / "cache",
        console=Console(quiet=True),
        run_dir=tmp_path / "run",
    )
    assert found.rows == 300
    with pytest.raises(DataInvalid, match="row 1: column 'other' is not there"):
        explore_to_page(
            str(write(tmp_path / "b.csv", reviews(4))),
            tmp_path / "page.html",
            held_out=(),
            against=None,
            columns=("text", "other"),
            encoder=None,
            cache=tmp_path / "cache",
            console=Console(quiet=True),
            run_dir=tmp_path / "run",
        )
