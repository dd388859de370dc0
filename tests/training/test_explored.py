"""What `slipway explore` leaves for `slipway train`: the facts about these very rows, and none about others."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from artifact.manifest import Explored
from artifact.repository import Artifact
from tests.training import tiny
from training.advice import Advice
from training.explore_page import explore_to_page
from training.explored import explored, keep_explored
from training.pipeline import train
from training.recipe import load_recipe
from training.steps import Steps

ADVICE = Advice("Words", "warn", "3 words stand under one label all but always.", "Nothing.")


def test_facts_are_kept_for_the_rows_and_the_encoder_they_were_found_with(tmp_path: Path) -> None:
    steps, recipe = Steps(tmp_path), tiny.recipe()
    assert explored(steps, recipe, "sha256:a") == ()
    keep_explored(steps, recipe, "sha256:a", [ADVICE])
    assert explored(steps, recipe, "sha256:a") == (Explored(topic="Words", level="warn", found=ADVICE.found),)
    assert explored(steps, tiny.recipe(training__epochs=1), "sha256:a") != ()
    assert explored(steps, recipe, "sha256:b") == ()
    assert explored(steps, tiny.recipe(encoder__name="another"), "sha256:a") == ()


def test_the_facts_land_in_the_manifest_and_in_the_data_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.project(tmp_path)
    (tmp_path / "recipe.toml").write_text((tmp_path / "recipe.toml").read_text().replace("epochs = 8", "epochs = 4"))
    unexplored = published(tmp_path)
    assert unexplored.manifest.provenance.explored == ()
    advice = look(tmp_path)
    told = published(tmp_path)
    assert [each.found for each in told.manifest.provenance.explored] == [each.found for each in advice]
    assert any(each.level != "good" for each in advice)
    card, report = ((told.path / name).read_text() for name in ("DATA_CARD.md", "report.html"))
    assert all(each.found in card for each in advice if each.level != "good")
    assert "What exploring the rows found" in report
    assert "exploring the rows" not in (unexplored.path / "report.html").read_text()
    assert (told.manifest.version, published(tmp_path).manifest.version) == (2, 2)


def look(home: Path) -> list[Advice]:
    _, advice = explore_to_page(
        str(home / "recipe.toml"),
        home / "page.html",
        held_out=(),
        against=None,
        columns=("text", "label"),
        encoder=None,
        cache=home / "cache",
        console=Console(quiet=True),
    )
    return advice


def published(home: Path) -> Artifact:
    return train(
        load_recipe(home / "recipe.toml"),
        home / "models",
        home / "run",
        cache=home / "cache",
        console=Console(file=io.StringIO()),
    )
