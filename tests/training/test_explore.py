"""training/explore.py: a whole exploration of small tables, good and bad."""

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from rich.progress import Progress

from tests.training import tiny
from training.bare import recipe_for
from training.errors import DataInvalid, SourceUnavailable
from training.explore import Exploration, Explorer, excerpt, held_out_in
from training.recipe import PrepareSection
from training.sources import EncoderFolder
from training.steps import Steps

LONG = "the river was wide and the night was cold but nobody in the little house by the water wanted to leave it"
Cells = Sequence[tuple[str, str]]


def reviews(rows: int = 200, seed: int = 5) -> list[tuple[str, str]]:
    words = random.Random(seed)
    return [(tiny.review(row % 2, words), ("negative", "positive")[row % 2]) for row in range(rows)]


def write(path: Path, rows: Cells) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def explored(
    home: Path,
    encoder: EncoderFolder,
    rows: Cells,
    held_out: Sequence[Path] = (),
    against: Path | None = None,
    section: PrepareSection | None = None,
) -> Exploration:
    home.mkdir(exist_ok=True)
    recipe = recipe_for(str(write(home / "reviews.csv", rows)), "text", "label", str(encoder.path))
    recipe = recipe.model_copy(update={"prepare": section or PrepareSection()})
    with Progress(disable=True) as bars:
        return Explorer(recipe, home / "cache", bars, Steps(home / "steps")).explore(held_out, against)


def test_what_training_will_do_is_what_it_would_do(tmp_path: Path, encoder: EncoderFolder) -> None:
    rows = [*reviews(), (LONG, "positive"), (LONG + "!", "positive"), ("so so", "negative"), ("so so", "positive")]
    found = explored(tmp_path, encoder, rows)
    assert found.rows == 204
    assert found.outcome.refusal == ""
    assert found.outcome.counts["read"] == 204
    assert found.outcome.counts["conflicting"] == 2
    assert found.outcome.counts["near_duplicates"] == 1
    assert [{pair.dropped, pair.kept} for pair in found.outcome.pairs] == [{LONG, LONG + "!"}]
    assert found.outcome.across_splits == (found.outcome.pairs[0].dropped_split != found.outcome.pairs[0].kept_split)
    assert found.outcome.other_label == 0
    assert found.survey.labels == {"negative": 101, "positive": 103}
    assert found.sample.languages["en"] > 0.5


def test_a_doubtful_label_is_found_by_its_row(tmp_path: Path, encoder: EncoderFolder) -> None:
    rows = reviews(400)
    rows[122] = (f"{rows[122][0]} dull tedious", "positive")
    found = explored(tmp_path, encoder, rows)
    assert found.sample.doubts is not None
    doubts = {doubt.row: doubt for doubt in found.sample.doubts.shown}
    assert (doubts[123].given, doubts[123].suggested) == ("positive", "negative")
    assert doubts[123].text == rows[122][0]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (reviews(10), "only 10 of 10 rows are usable"),
        ([(text, label if text == reviews()[0][0] else "positive") for text, label in reviews()], "no row labelled"),
    ],
)
def test_data_that_training_refuses_is_explored_and_the_refusal_told(
    rows: Cells, sentence: str, tmp_path: Path, encoder: EncoderFolder
) -> None:
    found = explored(tmp_path, encoder, rows)
    assert sentence in found.outcome.refusal
    assert found.outcome.balance_p_value is None
    assert found.rows == len(rows)


def test_held_out_rows_in_the_data_are_found(tmp_path: Path, encoder: EncoderFolder) -> None:
    rows = [*reviews(), (LONG, "positive")]
    inside = write(tmp_path / "inside.csv", [rows[0], rows[1], (LONG.upper() + " !", "x"), ("quite new", "x")])
    outside = write(tmp_path / "outside.csv", [("quite new", "x")])
    found = explored(tmp_path, encoder, rows, held_out=[inside, outside]).held_out
    assert [(each.name, each.rows, each.exact, each.near) for each in found] == [
        ("inside.csv", 4, 2, 1),
        ("outside.csv", 1, 0, 0),
    ]
    assert [(leak.row, leak.exact) for leak in found[0].shown] == [(1, True), (2, True), (3, False)]
    assert found[0].shown[2].text == LONG.upper() + " !"
    assert found[1].shown == []


def test_texts_under_two_labels_are_shown(tmp_path: Path, encoder: EncoderFolder) -> None:
    found = explored(tmp_path, encoder, [*reviews(), (LONG, "positive"), (LONG, "negative")]).outcome
    assert (found.counts["conflicting"], found.conflicting) == (2, [LONG])


def test_held_out_rows_are_found_after_the_recipes_cleaning(tmp_path: Path, encoder: EncoderFolder) -> None:
    held_out = write(tmp_path / "held.csv", [("<b>THE</b> end", "positive")])
    section = PrepareSection(transforms=("html", "lowercase"))
    rows = [*reviews(), ("The End", "positive")]
    assert explored(tmp_path, encoder, rows, [held_out], section=section).held_out[0].exact == 1
    assert explored(tmp_path, encoder, rows, [held_out]).held_out[0].exact == 0


def test_drift_to_a_second_table(tmp_path: Path, encoder: EncoderFolder) -> None:
    same = write(tmp_path / "same.csv", reviews(200, seed=9))
    other = write(tmp_path / "other.csv", [(f"the parcel came late {n}", "late") for n in range(60)])
    near = explored(tmp_path, encoder, reviews(), against=same).drift
    far = explored(tmp_path, encoder, reviews(), against=other).drift
    assert near is not None
    assert far is not None
    assert near.apart.auc is not None
    assert near.apart.auc < 0.65
    assert near.labels == {"negative": 0.5, "positive": 0.5}
    assert far.apart.auc is not None
    assert far.apart.auc > 0.95
    assert far.labels is None, "labels of another kind are not compared"


def test_joined_sources_are_counted_and_their_rows_numbered_apart(tmp_path: Path, encoder: EncoderFolder) -> None:
    write(tmp_path / "a.csv", reviews(150))
    rows = reviews(150, seed=8)
    rows[22] = (f"{rows[22][0]} dull tedious", "positive")
    write(tmp_path / "b.csv", rows)
    sources = [{"source": "file", "path": str(tmp_path / name)} for name in ("a.csv", "b.csv")]
    recipe = tiny.recipe(
        data={"source": "joined", "sources": sources}, encoder={"source": "folder", "name": str(encoder.path)}
    )
    with Progress(disable=True) as bars:
        found = Explorer(recipe, tmp_path / "cache", bars, Steps(tmp_path / "steps")).explore()
    assert found.sources == {"a.csv": 150, "b.csv": 150}
    assert found.sample.doubts is not None
    assert ("b.csv", 23) in {(doubt.source, doubt.row) for doubt in found.sample.doubts.shown}


def test_rows_are_told_by_their_place_in_their_own_file(tmp_path: Path, encoder: EncoderFolder) -> None:
    rows = reviews(200)
    rows[100:] = [(f"{text} <b>dull</b>", label) for text, label in rows[100:]]
    write(tmp_path / "a.csv", reviews(60, seed=8))
    write(tmp_path / "b.csv", rows)
    sources = [
        {"source": "file", "path": str(tmp_path / "a.csv")},
        {"source": "file", "path": str(tmp_path / "b.csv"), "max_rows": 50},
    ]
    recipe = tiny.recipe(
        data={"source": "joined", "sources": sources}, encoder={"source": "folder", "name": str(encoder.path)}
    )
    with Progress(disable=True) as bars:
        found = Explorer(recipe, tmp_path / "cache", bars, Steps(tmp_path / "steps")).explore()
    number, source = found.survey.first_flaws["html"].removeprefix("row ").split(" of ")
    assert source == "b.csv"
    assert int(number) > 100
    assert "<b>" in rows[int(number) - 1][0]
    assert found.sample.doubts is not None
    for doubt in found.sample.doubts.shown:
        if doubt.source == "b.csv":
            assert doubt.given == rows[doubt.row - 1][1]


def test_scripts_without_spaces_are_explored_like_any_other(tmp_path: Path, encoder: EncoderFolder) -> None:
    words = random.Random(1)
    good, bad = ("很好看", "感人", "精彩"), ("无聊", "难看", "失望")
    stems = [chr(code) for code in range(0x4E00, 0x4E80)]
    rows = [
        ("".join(words.choices(stems, k=12)) + words.choice(good if row % 2 else bad), ("差", "好")[row % 2])
        for row in range(240)
    ]
    found = explored(tmp_path, encoder, rows)
    assert found.outcome.counts["kept"] == 240
    assert found.survey.scripts == {"Han": 240}
    told = {each.word for each in found.sample.telling["好"]}
    assert {"好看", "感人", "精彩"} <= told
    assert found.sample.doubts is not None
    assert found.sample.doubts.accuracy > 0.9


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("held.csv", "", "held.csv: no rows"),
        ("held.csv", "body\nx\n", "held.csv, row 1: no column 'text'"),
        ("held.xlsx", "", "held.xlsx: the name must end in one of"),
    ],
)
def test_a_second_file_that_cannot_be_read(
    name: str, content: str, sentence: str, tmp_path: Path, encoder: EncoderFolder
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataInvalid, match=sentence):
        explored(tmp_path, encoder, reviews(), held_out=[tmp_path / name])


def test_files_that_are_not_there(tmp_path: Path, encoder: EncoderFolder) -> None:
    with pytest.raises(SourceUnavailable, match=r"gone\.csv: No such file"):
        explored(tmp_path, encoder, reviews(), against=tmp_path / "gone.csv")


def test_excerpts_are_short_and_masked() -> None:
    assert excerpt("write to me@example.com") == "write to [email]"
    assert len(excerpt("x" * 1000)) == 161


def steps_of(home: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (home / "steps").iterdir()}


def test_an_exploration_that_was_stopped_goes_on_where_it_was(tmp_path: Path, encoder: EncoderFolder) -> None:
    class Stopped(Exception):
        """What a kill looks like from inside."""

    class Killed(Explorer):
        def _sample(self, *_: object) -> NoReturn:
            raise Stopped

    recipe = recipe_for(str(write(tmp_path / "reviews.csv", reviews())), "text", "label", str(encoder.path))
    with Progress(disable=True) as bars, pytest.raises(Stopped):
        Killed(recipe, tmp_path / "cache", bars, Steps(tmp_path / "steps")).explore()
    before = steps_of(tmp_path)
    assert before.keys() == {"survey", "outcome"}
    found = explored(tmp_path, encoder, reviews())
    after = steps_of(tmp_path)
    assert after.items() > before.items()
    assert found == explored(tmp_path / "anew", encoder, reviews())


def test_another_file_beside_the_same_data_is_all_that_is_looked_at(tmp_path: Path, encoder: EncoderFolder) -> None:
    first = explored(tmp_path, encoder, reviews(), held_out=[write(tmp_path / "held.csv", reviews()[:3])])
    before = steps_of(tmp_path)
    second = explored(tmp_path, encoder, reviews(), held_out=[write(tmp_path / "held.csv", reviews()[:5])])
    after = steps_of(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"held-out-1"}
    assert (first.held_out[0].exact, second.held_out[0].exact) == (3, 5)
    assert replace(second, held_out=first.held_out) == first


def test_half_a_character_is_explored_like_any_broken_text(tmp_path: Path, encoder: EncoderFolder) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in [*reviews(60), ("half \ud800", "negative")]]
    path = tmp_path / "reviews.jsonl"
    path.write_text("\n".join(lines))
    recipe = recipe_for(str(path), "text", "label", str(encoder.path))
    with Progress(disable=True) as bars:
        found = Explorer(recipe, tmp_path / "cache", bars, Steps(tmp_path / "steps")).explore(held_out=[path])
    assert found.rows == 61
    assert found.survey.first_flaws["replacement"] == "row 61"


def test_other_data_is_looked_at_anew(tmp_path: Path, encoder: EncoderFolder) -> None:
    explored(tmp_path, encoder, reviews())
    before = steps_of(tmp_path)
    found = explored(tmp_path, encoder, [*reviews()[1:], (reviews()[0][0], "positive")])
    assert found.survey.labels == {"negative": 99, "positive": 101}
    assert all(after != before[name] for name, after in steps_of(tmp_path).items())


def test_a_held_out_file_of_blanks_is_in_nothing(tmp_path: Path, encoder: EncoderFolder) -> None:
    recipe = recipe_for(str(write(tmp_path / "a.csv", reviews())), "text", "label", str(encoder.path))
    with Progress(disable=True) as bars:
        other = Explorer(recipe, tmp_path, bars, Steps(tmp_path / "steps")).read_other(
            write(tmp_path / "b.csv", [(" ", "x"), ("", "x")])
        )
    assert held_out_in(other, ["a"]).exact == 0


def test_rows_that_are_all_between_the_bands_are_explored(tmp_path: Path, encoder: EncoderFolder) -> None:
    bands = {"negative": {"at_most": -1}, "positive": {"at_least": 1}}
    path = write(tmp_path / "a.csv", [(text, "0.5") for text, _ in reviews(60)])
    recipe = tiny.recipe(
        data={"source": "file", "path": str(path), "thresholds": bands},
        encoder={"source": "folder", "name": str(encoder.path)},
    )
    with Progress(disable=True) as bars:
        found = Explorer(recipe, tmp_path / "cache", bars, Steps(tmp_path / "steps")).explore()
    assert found.survey.unlabelled == found.rows == 60
    assert (found.sample.rows, found.sample.doubts) == (0, None)
    assert "only 0 of 60 rows" in found.outcome.refusal
