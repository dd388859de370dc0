"""training/reproduce.py: a published tiny model trained again, and held against itself."""

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from artifact.repository import Artifact, Repository
from cli.app import main
from tests.training import tiny
from training.candidates import plan
from training.compress import Options, compress
from training.errors import RecipeInvalid, SourceUnavailable
from training.pareto import Target
from training.pipeline import train
from training.recipe import load_recipe
from training.reproduce import Repeat, metric_checks, recipe_of, repeat


@dataclass(frozen=True)
class Place:
    """A published model, and where its data and encoder lie."""

    home: Path
    artifact: Artifact

    def repeat(self, artifact: Artifact | None = None, *, run: str = "again", data: str = "reviews.csv") -> Repeat:
        return repeat(
            artifact or self.artifact,
            self.home / run,
            data=self.home / data,
            encoder=self.home / "encoder",
            cache=self.home / "cache",
            console=Console(file=io.StringIO()),
        )

    def with_provenance(self, **changes: object) -> Artifact:
        """The artifact as if its manifest said something else."""
        manifest = self.artifact.manifest
        provenance = manifest.provenance.model_copy(update=changes)
        return replace(self.artifact, manifest=manifest.model_copy(update={"provenance": provenance}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("reproduce")
    tiny.project(home)
    recipe = home / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 8", "epochs = 4").replace('"fp32"', '"auto"'))
    artifact = train(
        load_recipe(recipe), home / "models", home / "run", cache=home / "cache", console=Console(file=io.StringIO())
    )
    return Place(home, artifact)


@pytest.fixture(scope="module")
def repeated(place: Place) -> Repeat:
    return place.repeat()


def test_the_manifest_records_what_a_repeat_needs(place: Place) -> None:
    provenance = place.artifact.manifest.provenance
    assert len(provenance.weights_digest) == len(provenance.encoder_digest) == 64
    assert provenance.precision in {"fp32", "bf16"}
    assert provenance.threads == 1


def test_a_model_comes_out_the_same_bit_for_bit(place: Place, repeated: Repeat) -> None:
    assert repeated.verdict == "identical"
    names = [check.name for check in repeated.outcome]
    assert names[:3] == ["weights", "golden answers", "accuracy"]
    assert all(check.same for check in repeated.outcome)
    assert repeated.differences == ()
    weights = [place.home / run / "fine-tune" / "model" / "model.safetensors" for run in ("run", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_repeat_publishes_nothing(place: Place, repeated: Repeat) -> None:
    assert Repository(place.home / "models").versions("tiny") == [1]


def test_another_seed_gives_another_model_and_says_so(place: Place) -> None:
    recipe = json.loads(json.dumps(place.artifact.manifest.provenance.recipe))
    recipe["training"] |= {"seed": 14, "epochs": 0.3}
    found = place.repeat(place.with_provenance(recipe=recipe), run="other-seed")
    assert found.verdict == "different"
    wrong = {check.name for check in found.outcome if check.same is False}
    assert {"weights", "golden answers", "log_loss"} <= wrong


def test_other_data_is_named_and_nothing_is_trained(place: Place) -> None:
    rows = (place.home / "reviews.csv").read_text().splitlines(keepends=True)
    (place.home / "fewer.csv").write_text("".join(rows[:-1]))
    found = place.repeat(run="fewer", data="fewer.csv")
    assert (found.verdict, found.outcome) == ("different", ())
    assert [check.name for check in found.differences] == ["data fingerprint"]
    assert not (place.home / "fewer").exists()


def test_another_encoder_is_named_and_nothing_is_trained(place: Place) -> None:
    found = place.repeat(place.with_provenance(encoder_digest="0" * 64), run="encoder-differs")
    assert (found.verdict, found.outcome) == ("different", ())
    assert [check.name for check in found.differences] == ["encoder"]


@pytest.mark.usefixtures("repeated")
def test_an_artifact_without_digests_is_held_against_its_answers(place: Place) -> None:
    old = place.with_provenance(weights_digest="", encoder_digest="", threads=0)
    found = place.repeat(old)
    assert found.verdict == "same answers"
    assert found.outcome[0].same is None
    assert found.outcome[0].published == "not recorded"


@pytest.mark.usefixtures("repeated")
def test_what_else_differs_is_listed_even_if_the_model_does_not(place: Place) -> None:
    libraries = place.artifact.manifest.provenance.libraries | {"torch": "1.0"}
    found = place.repeat(place.with_provenance(libraries=libraries))
    assert found.verdict == "identical"
    assert [(check.name, check.published) for check in found.differences] == [("torch", "1.0")]


@pytest.mark.usefixtures("repeated")
def test_the_exit_status_tells(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(place.home / "cache"))
    where = ["--repository", f"{place.home}/models", "--encoder", f"{place.home}/encoder"]
    again = ["train", "--from", "tiny:1", *where, "--run-dir", f"{place.home}/again"]
    assert main([*again, "--data", f"{place.home}/reviews.csv"]) == 0
    assert "came out the same, bit for bit" in capsys.readouterr().out
    assert main([*again, "--data", f"{place.home}/reviews.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "identical"
    changed = place.home / "changed.csv"
    changed.write_text((place.home / "reviews.csv").read_text().replace("superb", "superior"))
    assert main([*again, "--data", str(changed)]) == 1
    assert "was not trained again; what differs: data fingerprint" in capsys.readouterr().out


def test_the_precision_that_auto_came_to_is_kept(place: Place) -> None:
    assert recipe_of(place.artifact).training.precision == place.artifact.manifest.provenance.precision
    assert recipe_of(place.with_provenance(precision="")).training.precision == "auto"


def test_a_local_table_cannot_replace_packaged_data(place: Place, tmp_path: Path) -> None:
    recipe = load_recipe("sentiment").model_dump(mode="json")
    with pytest.raises(RecipeInvalid, match="--data: tiny:1 was not trained on a local table"):
        recipe_of(place.with_provenance(recipe=recipe), data=tmp_path)
    with pytest.raises(RecipeInvalid, match="--encoder: tiny:1 was not trained from a local folder"):
        recipe_of(place.with_provenance(recipe=recipe), encoder=tmp_path)


@pytest.mark.parametrize("made", ["heads=0.5+svd=0.5+tune=1+weights=int8", "weights=int8"])
def test_a_compressed_version_goes_through_its_steps_again(place: Place, made: str) -> None:
    repository = place.home / f"small-{made}"
    options = Options(plan([made], only=True), Target(smaller=1.01, lose=100), publish=True, repository=repository)
    console = Console(file=io.StringIO())
    compress(
        load_recipe(place.home / "recipe.toml"),
        options,
        place.home / "run",
        cache=place.home / "cache",
        console=console,
    )
    small = Repository(repository).open("tiny", 1)
    found = place.repeat(small, run=f"again-{made}")
    assert small.manifest.provenance.compressed == made
    assert [check.name for check in found.outcome[:2]] == ["weights", "golden answers"]
    assert found.verdict == "identical"
    same = small.manifest.provenance.weights_digest == place.artifact.manifest.provenance.weights_digest
    assert same == (made == "weights=int8")


def test_texts_that_no_manifest_holds_cannot_be_learned_again(place: Place) -> None:
    small = place.with_provenance(compressed="layers=1+distil-unlabelled=2+int8")
    with pytest.raises(RecipeInvalid, match="tiny:1 learned from texts without labels too"):
        place.repeat(small, run="unlabelled")
    assert not (place.home / "unlabelled").exists()


def test_several_tables_are_looked_for_in_one_folder(place: Place, tmp_path: Path) -> None:
    recipe = json.loads(json.dumps(place.artifact.manifest.provenance.recipe))
    other = recipe["data"] | {"path": "more.csv"}
    joined = place.with_provenance(recipe=recipe | {"data": {"source": "joined", "sources": [recipe["data"], other]}})
    found = [source.path for source in recipe_of(joined, data=tmp_path).sources if source.source == "file"]
    assert found == [tmp_path / "reviews.csv", tmp_path / "more.csv"]
    with pytest.raises(RecipeInvalid, match="--data: tiny:1 was trained on 2 local tables; give the folder"):
        recipe_of(joined, data=tmp_path / "reviews.csv")


def test_a_recipe_of_another_slipway_is_refused_by_field(place: Place) -> None:
    recipe = place.artifact.manifest.provenance.recipe | {"novelty": 1}
    with pytest.raises(RecipeInvalid, match="recipe of tiny:1: novelty: unknown key"):
        recipe_of(place.with_provenance(recipe=recipe))


def test_a_table_that_is_gone_is_named(place: Place) -> None:
    with pytest.raises(SourceUnavailable, match=r"gone\.csv: No such file"):
        place.repeat(data="gone.csv")


def test_a_metric_that_is_not_measured_any_more_proves_nothing() -> None:
    checks = list(metric_checks({"accuracy": 0.5, "roc_auc": 0.5}, {"accuracy": 0.5 + 2e-6}))
    assert [check.same for check in checks] == [False, None]


def test_a_folder_of_an_encoder_with_another_tokenizer_is_another_encoder(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.home / "encoder", tmp_path / "encoder")
    tokenizer = tmp_path / "encoder" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("##z", "##ž"))
    other = replace(place, home=tmp_path)
    shutil.copy(place.home / "reviews.csv", tmp_path)
    assert [check.name for check in other.repeat().differences] == ["encoder"]
