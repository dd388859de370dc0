"""From a finished run to a table, a find and a publication: once, again, refused, and with nothing to find."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from artifact.manifest import Estimate
from artifact.repository import Repository, open_artifact
from cli.app import main
from inference.model import Model
from tests.training import tiny
from tests.training.full_disk import full_disk
from tests.training.test_pareto import FP32, QUICK
from training.candidates import plan
from training.compress import Options, check, compress, read_unlabelled
from training.data import read_table
from training.errors import DataInvalid, GateRefused, TargetMissed, TrainingError
from training.finetune import fine_tune
from training.pareto import Confirmed, Outcome, Target
from training.prepare import prepare
from training.recipe import Recipe, load_recipe
from training.sources import fetch_encoder

TRIED = ("int8+weights=int8", "heads=0.5+weights=fp16", "layers=7")
SMALLER = Target(smaller=1.5, lose=5)


@dataclass(frozen=True)
class Place:
    """A finished run, and what the first `compress` over it found and said."""

    home: Path
    outcome: Outcome
    said: str

    def again(self, options: Options, recipe: Recipe | None = None) -> tuple[Outcome, str]:
        return run(self.home, options, recipe)


def run(home: Path, options: Options, recipe: Recipe | None = None) -> tuple[Outcome, str]:
    out = io.StringIO()
    found = compress(
        recipe or load_recipe(home / "recipe.toml"),
        options,
        home / "run",
        cache=home / "cache",
        console=Console(file=out, width=400),
    )
    return found, out.getvalue()


def options(*tried: str, target: Target | None = None, publish: Path | None = None) -> Options:
    chosen = plan(tried, only=True)
    return Options(chosen, target, publish=publish is not None, repository=publish or Path("models"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("compress")
    tiny.project(home)
    text = (home / "recipe.toml").read_text().replace("epochs = 8", "epochs = 4")
    (home / "recipe.toml").write_text(text)
    recipe = load_recipe(home / "recipe.toml")
    with Progress(disable=True) as progress:
        prepared = prepare(read_table(recipe, home / "cache", progress), recipe, progress)
        encoder = fetch_encoder(recipe.encoder, home / "cache", progress)
        fine_tune(recipe, prepared, encoder, home / "run" / "fine-tune", progress)
    return Place(home, *run(home, options(*TRIED)))


def test_every_candidate_is_measured_or_says_why_not(place: Place) -> None:
    assert [each.name for each in place.outcome.measured] == ["fp32", *TRIED]
    fp32, small, cut, impossible = place.outcome.measured
    assert fp32.points_lost == 0
    assert fp32.agreement == 1
    assert small.bytes < fp32.bytes
    assert cut.bytes < fp32.bytes
    for each in (fp32, small, cut):
        assert each.refused == ""
        assert each.accuracy is not None
        assert each.accuracy.low <= each.accuracy.value <= each.accuracy.high
        assert 0 < each.seconds_alone < each.seconds_batch
        assert each.moved <= 1e-3
    assert impossible.refused == "could not be built: cannot keep 7 of 2 layers"
    assert "layers=7" not in place.outcome.front


def test_the_report_is_there_for_people_and_programs(place: Place) -> None:
    folder = place.home / "run" / "compress"
    page = (folder / "report.html").read_text()
    assert all(name in page for name in TRIED)
    assert [each["name"] for each in json.loads((folder / "report.json").read_text())["measured"]] == ["fp32", *TRIED]
    assert not (folder / "work").exists()
    assert not list(folder.rglob("*.safetensors"))


def test_what_was_measured_is_not_measured_again(place: Place) -> None:
    outcome, said = place.again(options(*TRIED))
    assert outcome.measured == place.outcome.measured
    found = [line.split()[2] for line in said.splitlines() if "found finished" in line]
    assert found == ["fp32", *TRIED[:2]]


def test_a_damaged_result_is_measured_anew(place: Place) -> None:
    (place.home / "run" / "compress" / "steps" / f"scores-{TRIED[0]}.npy").write_bytes(b"torn")
    _, said = place.again(options(*TRIED[:2]))
    assert [line.split()[2] for line in said.splitlines() if "measure " in line] == [TRIED[0]]


def test_without_a_target_nothing_is_looked_for(place: Place) -> None:
    assert place.outcome.found is None
    assert place.outcome.test is None
    check(place.outcome, None)


def test_a_target_is_found_confirmed_and_published_through_the_gate(place: Place, tmp_path: Path) -> None:
    outcome, said = place.again(options(TRIED[0], target=SMALLER, publish=tmp_path))
    check(outcome, SMALLER)
    assert outcome.found == TRIED[0]
    assert outcome.test is not None
    artifact = open_artifact(tmp_path / "tiny" / "1")
    assert outcome.published == str(artifact.path)
    assert [variant.name for variant in artifact.manifest.variants] == ["fp32", "int8-int8-weights"]
    assert artifact.manifest.provenance.compressed == TRIED[0]
    assert outcome.test is not None
    uncut = artifact.manifest.provenance.uncut
    assert uncut is not None
    assert uncut.model_dump() == outcome.test.model_dump()
    assert f"on {uncut.rows:,} test rows" in (artifact.path / "MODEL_CARD.md").read_text()
    assert f"`slipway compress`: `{TRIED[0]}`" in (artifact.path / "MODEL_CARD.md").read_text()
    report = (artifact.path / "report.html").read_text()
    assert "<h2>Smaller versions</h2>" in report
    assert f"{TRIED[0]} is {SMALLER}" in report
    assert artifact.manifest.gate.passed
    model = Model.load(artifact, variant="int8-int8-weights")
    try:
        answer = model.predict(["a superb witty film", "a dull tedious film"])
    finally:
        model.close()
    assert [prediction.label for prediction in answer.predictions] == ["positive", "negative"]
    assert "gate" in [line.split()[1] for line in said.splitlines() if line.startswith("✓")]


def test_the_gate_has_the_last_word(place: Place, tmp_path: Path) -> None:
    recipe = load_recipe(place.home / "recipe.toml")
    tight = recipe.gate.model_copy(update={"max_score_difference": 0.0})
    with pytest.raises(GateRefused, match="nothing was published"):
        place.again(options(TRIED[0], target=SMALLER, publish=tmp_path), recipe.model_copy(update={"gate": tight}))
    assert Repository(tmp_path).models() == []


def test_training_is_left_out_where_it_is_not_needed(place: Place) -> None:
    outcome, _ = place.again(options("layers=1+tune=1", TRIED[0], target=SMALLER))
    assert outcome.skipped == 1
    assert [each.name for each in outcome.measured] == ["fp32", TRIED[0]]


def test_training_is_tried_where_nothing_else_reaches_it(place: Place, tmp_path: Path) -> None:
    name = "layers=1+distil=2"
    outcome, said = place.again(options(name, target=Target(smaller=1.3, lose=60), publish=tmp_path))
    assert outcome.found == name
    assert (place.home / "run" / "compress" / "models" / name / "cut.json").exists()
    assert "train" in [line.split()[1] for line in said.splitlines() if line.startswith("✓")]
    # Published with its own fp32 as the reference.
    manifest = open_artifact(tmp_path / "tiny" / "1").manifest
    assert [variant.name for variant in manifest.variants] == ["fp32"]
    assert manifest.provenance.compressed == name
    # Its head was trained again, and has a temperature of its own.
    assert manifest.assessment is not None
    temperature = manifest.assessment.calibration.temperature
    assert temperature is not None
    assert f"temperature of {temperature:.3f}" in (tmp_path / "tiny" / "1" / "MODEL_CARD.md").read_text()


def test_when_nothing_reaches_the_target_it_says_so(place: Place, tmp_path: Path) -> None:
    target = Target(smaller=50, lose=1)
    outcome, _ = place.again(options(TRIED[0], target=target, publish=tmp_path))
    with pytest.raises(TargetMissed, match="no candidate is 50 x smaller, at most 1 points lost") as caught:
        check(outcome, target)
    assert caught.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_is_named_and_test_can_refuse() -> None:
    missed = Outcome(measured=(FP32, QUICK), front=())
    with pytest.raises(TargetMissed, match=r"quick, small and fast enough, loses 0\.5"):
        check(missed, Target(smaller=2, lose=0.1))
    worse = Confirmed(rows=90, accuracy_difference=Estimate(value=-0.02, low=-0.03, high=0.0), agreement=0.9)
    found = missed.model_copy(update={"found": "quick", "test": worse})
    with pytest.raises(TargetMissed, match=r"loses 2\.0 points on the test split"):
        check(found, Target(smaller=2, lose=1))


def test_the_command_prints_a_table_or_json_and_says_what_it_found(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(place.home / "cache"))
    command = ["compress", str(place.home / "recipe.toml"), "--run-dir", str(place.home / "run"), "--only"]
    asked = [*command, *(f"--try={name}" for name in TRIED), "--smaller=1.5", "--lose=5"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert all(word in said.out for word in ("moved by neighbours", *TRIED, "refused: layers=7: could not be built"))
    assert " is 1.5 x smaller, at most 5 points lost; on " in said.err
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] in TRIED
    assert main([*command, f"--try={TRIED[0]}", "--smaller=90"]) == 1
    assert "error: no candidate is 90 x smaller" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_refused(place: Place, tmp_path: Path) -> None:
    recipe = load_recipe(place.home / "recipe.toml")
    with pytest.raises(TrainingError, match="run slipway train first"):
        compress(recipe, options(*TRIED), tmp_path, cache=place.home / "cache", console=Console(file=io.StringIO()))


def test_unlabelled_texts_are_lines_each_once(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one  text\n\nanother\none text\n", encoding="utf-8-sig")
    assert read_unlabelled(path) == ("one text", "another")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\n \n", "no text in it"), (b"caf\xe9\n", "not UTF-8"), (None, "No such file")],
)
def test_texts_that_cannot_be_used_are_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataInvalid, match=reason) as caught:
        read_unlabelled(path)
    assert caught.value.message.startswith("--unlabelled")


@pytest.mark.parametrize("tried", ["zeros=0.5", "weights=int8"])
def test_a_full_disk_is_not_remembered_as_a_candidate_that_cannot_be_built(place: Place, tried: str) -> None:
    with pytest.raises(TrainingError, match=r"the disk is full|is the disk full|File too large"), full_disk():
        place.again(options(tried))
    outcome, _ = place.again(options(tried))
    assert [each.refused for each in outcome.measured if each.name == tried] == [""]
