"""What earlier commands leave for `slipway train`: facts about these rows and this recipe, and none about others."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from artifact.manifest import Explored
from artifact.repository import Artifact
from tests.training import tiny
from tests.training.findings import findings
from training.advice import Advice
from training.earlier import explore_folder, explored, keep_explored
from training.evaluation import evaluate_recipe
from training.explore_page import explore_to_page
from training.keys import encoder_digest, explored_key
from training.pipeline import train
from training.recipe import load_recipe
from training.sources import EncoderFolder
from training.steps import Steps

DIGEST = "a digest"
ADVICE = Advice("Words", "warn", "3 words stand under one label all but always.", "Nothing.")


def test_facts_are_kept_for_what_they_were_found_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, prepared = tiny.recipe(), findings().prepared
    assert explored(recipe, prepared, DIGEST) == ()
    keep_explored(Steps(explore_folder(recipe)), explored_key(recipe, prepared, DIGEST), [ADVICE])
    assert explored(recipe, prepared, DIGEST) == (Explored(topic="Words", level="warn", found=ADVICE.found),)
    assert explored(recipe, replace(prepared, fingerprint="sha256:b"), DIGEST) == ()


def test_other_counts_tokens_or_encoders_are_other_findings(tmp_path: Path, encoder: EncoderFolder) -> None:
    recipe, prepared = tiny.recipe(), findings().prepared
    key = explored_key(recipe, prepared, digest := encoder_digest(encoder.path))
    assert explored_key(tiny.recipe(training__epochs=1), prepared, digest) == key
    assert explored_key(recipe, replace(prepared, counts={"read": 1}), digest) != key
    assert explored_key(recipe, replace(prepared, fingerprint="sha256:b"), digest) != key
    assert explored_key(tiny.recipe(training__max_tokens=16), prepared, digest) != key
    assert explored_key(recipe, prepared, encoder_digest(tiny.encoder_folder(tmp_path, layers=1).path)) != key


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
    shutil.rmtree(tmp_path / explore_folder(load_recipe(tmp_path / "recipe.toml")))
    assert published(tmp_path).manifest.version == 2


def test_folds_land_in_the_manifest_the_card_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    tiny.project(tmp_path)
    text = (tmp_path / "recipe.toml").read_text().replace("epochs = 8", "epochs = 4")
    (tmp_path / "recipe.toml").write_text(text)
    (tmp_path / "longer.toml").write_text(text.replace("epochs = 4", "epochs = 5"))
    console = Console(file=io.StringIO())
    evaluate_recipe("recipe.toml", 2, console, baseline=True)
    before = published(Path())
    assert before.manifest.provenance.folds == ()
    assert "Cross-validation: not measured." in (before.path / "MODEL_CARD.md").read_text()
    found = evaluate_recipe("recipe.toml", 2, console).found
    [told] = (after := published(Path())).manifest.provenance.folds
    assert (after.manifest.version, told.by, told.models, told.rows) == (2, "fold", 2, sum(f.rows for f in found.folds))
    assert told.metrics == found.mean
    assert f"the mean over 2 folds of {told.rows:,} rows" in (after.path / "MODEL_CARD.md").read_text()
    assert "<h2>Cross-validation</h2>" in (after.path / "report.html").read_text()
    longer = published(Path(), "longer.toml")
    assert longer.manifest.provenance.folds == ()
    evaluate_recipe("longer.toml", 2, console, run_dir=tmp_path / "elsewhere")
    assert published(Path(), "longer.toml").manifest.version == longer.manifest.version


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


def published(home: Path, recipe: str = "recipe.toml") -> Artifact:
    return train(
        load_recipe(home / recipe),
        home / "models",
        home / "run",
        cache=home / "cache",
        console=Console(file=io.StringIO()),
    )
