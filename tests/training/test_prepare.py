"""training/prepare.py: what is dropped, where the rest goes, and what may never change."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from artifact.manifest import TextPreprocessing
from inference.tasks.text import normalize_text
from inference.tasks.transforms import Cleaner
from tests.training import tiny
from training.data import Row, Table
from training.errors import DataInvalid
from training.prepare import MIN_ROWS, Prepared, Split, Trace, cleaned_as, prepare, split_of, stop_words
from training.recipe import PrepareSection, SplitFractions

LONG = "the river was wide and the night was cold but nobody in the little house by the water wanted to leave it"


def prepared(rows: Sequence[Row], **changes: object) -> Prepared:
    with Progress(disable=True) as bars:
        return prepare(Table("t", "MIT", "test", tuple(rows)), tiny.recipe(**changes), bars)


def places(result: Prepared) -> dict[str, str]:
    """The split of each text."""
    splits = {"train": result.train, "validation": result.validation, "test": result.test}
    return {text: name for name, split in splits.items() for text in split.texts}


BASE = tiny.table(300).rows


def with_base(*rows: Row) -> Prepared:
    return prepared([*BASE, *rows])


def test_every_row_is_accounted_for() -> None:
    result = with_base(Row("  ", 1), Row("meh", None, 0.1), Row("so so", 0), Row("so so", 1), BASE[0])
    counts = result.counts
    dropped = ("empty", "neutral", "conflicting", "exact_duplicates", "over_max_rows", "near_duplicates")
    assert counts["read"] == sum(counts[name] for name in dropped) + counts["kept"]
    assert counts["kept"] == counts["train"] + counts["validation"] + counts["test"]
    assert [counts[name] for name in dropped[:5]] == [1, 1, 2, 1, 0]


def test_texts_are_normalised_as_the_service_will() -> None:
    result = with_base(Row(" cafe\u0301\u00a0\n noir ", 1), Row("half \ud800 surrogate", 0))
    assert "café noir" in places(result)
    assert "half \ufffd surrogate" in places(result)
    assert all(text == normalize_text(text) for text in places(result))


def test_the_order_of_rows_does_not_matter() -> None:
    shuffled = list(BASE)
    random.Random(1).shuffle(shuffled)
    one, other = prepared(BASE), prepared(shuffled)
    assert one.fingerprint == other.fingerprint
    assert one.train.texts == other.train.texts
    assert one.train.labels.tolist() == other.train.labels.tolist()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(50, 299), st.lists(st.tuples(st.text(min_size=1), st.integers(0, 1)), max_size=20))
def test_adding_rows_never_moves_a_row(known: int, added: list[tuple[str, int]]) -> None:
    before = places(prepared(BASE[:known], split__train=0.4, split__validation=0.3, split__test=0.3))
    more = [*BASE[:known], *(Row(text, label) for text, label in added), *BASE[known:]]
    after = places(prepared(more, split__train=0.4, split__validation=0.3, split__test=0.3))
    assert all(after[text] == split for text, split in before.items() if text in after)


def test_new_training_rows_leave_the_test_split_alone() -> None:
    before = prepared(BASE)
    copies = [Row(text + " !", int(label)) for text, label in zip(before.test.texts, before.test.labels, strict=True)]
    after = prepared([*BASE, *copies])
    moved_in = set(after.test.texts) - set(before.test.texts)
    assert set(before.test.texts) - set(after.test.texts) <= {text.removesuffix(" !") for text in moved_in}
    new_train = [Row(text + " !", 1) for text in before.test.texts if _split_of(text + " !") == "train"]
    assert new_train
    assert prepared([*BASE, *new_train]).test.texts == before.test.texts


def _split_of(text: str) -> str:
    import hashlib

    return split_of(hashlib.sha256(text.encode()).digest(), tiny.recipe().split)


def test_near_duplicates_never_lie_on_both_sides() -> None:
    variants = [LONG, LONG.upper(), LONG + ".", LONG.replace(" ", ", "), LONG.replace("cold", "dark"), f"So {LONG}"]
    result = with_base(*(Row(text, 1) for text in variants))
    assert len([text for text in places(result) if "river" in text.lower() and "nobody" in text.lower()]) == 1
    assert result.counts["near_duplicates"] == len(variants) - 1


def test_texts_that_merely_share_words_are_kept() -> None:
    other = "the house by the water was little and nobody wanted to leave the river in the cold wide night"
    assert {LONG, other} <= places(with_base(Row(LONG, 1), Row(other, 0))).keys()


def test_of_two_near_duplicates_the_one_nearer_the_test_survives() -> None:
    variants = [f"{LONG}{'!' * count}" for count in range(12)]
    order = ["test", "validation", "train"]
    best = min((_split_of(text) for text in variants), key=order.index)
    kept = places(with_base(*(Row(text, 1) for text in variants)))
    assert [kept[text] for text in variants if text in kept] == [best]


def test_texts_without_letters_are_not_all_alike() -> None:
    assert {"🙂🙂", "?!", "…"} <= places(with_base(Row("🙂🙂", 1), Row("?!", 0), Row("…", 0))).keys()


def test_duplicates_share_the_mean_of_their_ratings() -> None:
    result = with_base(Row(LONG, 1, 1.0), Row(LONG, 1, 3.0))
    split = next(split for split in (result.train, result.validation, result.test) if LONG in split.texts)
    assert split.ratings is not None
    assert split.ratings[split.texts.index(LONG)] == 2.0


def test_a_row_without_a_rating_leaves_the_others_theirs() -> None:
    result = with_base(Row(LONG, 1))
    split = next(split for split in (result.train, result.validation, result.test) if LONG in split.texts)
    assert split.ratings is not None
    assert [split.texts[index] for index in np.flatnonzero(np.isnan(split.ratings))] == [LONG]


def test_rows_that_nobody_rated_have_no_ratings() -> None:
    result = prepared([Row(row.text, row.label) for row in BASE])
    assert {result.train.ratings, result.validation.ratings, result.test.ratings} == {None}


def test_rows_pinned_to_the_test_stay_there() -> None:
    pinned = [Row(f"{row.text} {index}", row.label, pinned_to_test=True) for index, row in enumerate(BASE[:20])]
    result = prepared([*BASE, *pinned])
    found = places(result)
    assert {found[row.text] for row in pinned if row.text in found} == {"test"}


def test_labels_are_balanced_in_expectation_and_the_check_says_so() -> None:
    result = prepared(tiny.table(2000).rows)
    for split in (result.train, result.validation, result.test):
        assert 0.4 < split.labels.mean() < 0.6
    assert result.balance_p_value > 0.001
    share = len(result.train) / result.counts["kept"]
    assert share == pytest.approx(0.7, abs=0.04)


def test_max_rows_is_stable_when_the_data_grows() -> None:
    few = places(prepared(BASE[:250], max_rows=100))
    more = places(prepared(BASE, max_rows=100))
    assert len(few) <= 100
    assert all(more[text] == few[text] for text in few.keys() & more.keys())
    assert len(few.keys() & more.keys()) > 60


@pytest.mark.parametrize("changed", [Row("one more", 1), Row(BASE[0].text, 1 - (BASE[0].label or 0))])
def test_the_fingerprint_changes_with_the_data(changed: Row) -> None:
    assert prepared([*BASE[1:], changed]).fingerprint != prepared(BASE).fingerprint


def test_the_fingerprint_changes_with_the_recipe_but_not_with_the_folder() -> None:
    plain = prepared(BASE).fingerprint
    assert prepared(BASE, data__path="/elsewhere/reviews.csv").fingerprint == plain
    assert prepared(BASE, data__text_column="body").fingerprint != plain
    assert plain.startswith("sha256:")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (BASE[:10], f"only 10 of 10 rows are usable; at least {MIN_ROWS} are needed"),
        ([Row(row.text, 1) for row in BASE], "every usable row has the label 'positive'"),
        ([*[Row(row.text, 1) for row in BASE], Row("dull", 0)], "split .* has no row labelled negative"),
        ([Row(" ", 1)] * 50, "only 0 of 50 rows"),
    ],
)
def test_too_little_data_is_refused(rows: Sequence[Row], sentence: str) -> None:
    with pytest.raises(DataInvalid, match=sentence):
        prepared(rows)


def test_a_digest_falls_into_one_share() -> None:
    fractions = SplitFractions(train=0.8, validation=0.1, test=0.1)
    assert split_of(bytes(32), fractions) == "test"
    assert split_of(bytes([255] * 32), fractions) == "train"
    assert split_of(bytes([30] + [0] * 31), fractions) == "validation"


def test_a_split_has_a_length() -> None:
    assert isinstance(prepared(BASE).test, Split)
    assert len(prepared(BASE).test) == prepared(BASE).counts["test"]


# --- cleaning, sampling, sources -----------------------------------------------------------------------------------


def test_cleaning_steps_are_applied_and_counted() -> None:
    rows = [Row("A <b>superb</b> film", 1), Row("mail me@example.com or you@example.com", 0), Row("<br/>", 1)]
    result = prepared([*BASE, *rows], prepare__transforms=["html", "pii", "lowercase"])
    assert {"a superb film", "mail [email] or [email]"} <= places(result).keys()
    assert result.transformed == {"html": 2, "pii": 1, "lowercase": 1}
    assert result.masked == {"email": 2}
    assert result.counts["empty"] == 1


def test_texts_that_cleaning_makes_the_same_are_duplicates() -> None:
    rows = [Row("so <i>very</i> good", 1), Row("So very good", 1)]
    result = prepared([*BASE, *rows], prepare__transforms=["html", "lowercase"])
    assert result.counts["exact_duplicates"] == prepared(BASE).counts["exact_duplicates"] + 1


def test_what_was_prepared_is_what_the_service_makes_of_it() -> None:
    section = PrepareSection(transforms=("unicode", "html", "urls", "pii", "lowercase", "stop_words"))
    rows = [Row(f"{row.text} &amp;lt;b&gt; The www.example.org/{index}", row.label) for index, row in enumerate(BASE)]
    result = prepared(rows, prepare=section.model_dump())
    serve = Cleaner.of(cleaned_as(section, TextPreprocessing()))
    raw = {serve(row.text) for row in rows}
    assert set(places(result)) <= raw
    assert all(serve(text) == text for text in raw)


def test_a_recipe_without_steps_leaves_the_manifest_as_it_was() -> None:
    assert cleaned_as(PrepareSection(), TextPreprocessing()) == TextPreprocessing()
    assert prepared(BASE).transformed == {}


def test_english_stop_words_leave_negations() -> None:
    words = stop_words(PrepareSection(transforms=("stop_words",)))
    assert {"the", "and"} <= set(words)
    assert not {"not", "no", "never", "without"} & set(words)
    assert stop_words(PrepareSection(transforms=("stop_words",), stop_words=("uh",))) == ("uh",)
    assert stop_words(PrepareSection()) == ()


def test_cleaning_changes_the_fingerprint() -> None:
    assert prepared(BASE, prepare__transforms=["whitespace"]).fingerprint != prepared(BASE).fingerprint


def test_texts_in_scripts_without_spaces_survive_every_step() -> None:
    signs = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
    kana = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわ"
    thai = "กขคงจฉชซญฎฏฐณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮ"
    random_ = random.Random(1)
    texts = ["".join(random_.choices(letters, k=14)) for letters in (signs, kana, thai) for _ in range(60)]
    steps = ["unicode", "html", "whitespace", "urls", "pii", "lowercase", "stop_words"]
    result = prepared([Row(text, index % 2) for index, text in enumerate(texts)], prepare__transforms=steps)
    assert places(result).keys() == set(texts)


def skewed() -> list[Row]:
    return [row for index, row in enumerate(tiny.table(600).rows) if row.label == 0 or index % 6 == 1]


def test_labels_are_balanced_in_training_alone() -> None:
    plain, even = prepared(skewed()), prepared(skewed(), prepare__balanced=True)
    assert np.bincount(even.train.labels).tolist() == [min(np.bincount(plain.train.labels))] * 2
    assert (even.test.texts, even.validation.texts) == (plain.test.texts, plain.validation.texts)
    assert even.counts["sampled_out"] == plain.counts["kept"] - even.counts["kept"]
    assert set(even.train.texts) <= set(plain.train.texts)


def test_at_most_so_many_training_rows_of_a_label() -> None:
    result = prepared(skewed(), prepare__max_rows_per_label=50)
    assert np.bincount(result.train.labels).tolist() == [50, min(50, np.bincount(prepared(skewed()).train.labels)[1])]


def test_each_text_keeps_its_source() -> None:
    rows = [Row(row.text, row.label, None, source=("a", "b")[index % 3 == 0]) for index, row in enumerate(BASE)]
    split = prepared(rows).train
    assert set(split.sources) == {"a", "b"}
    assert split.sources[0] == next(row.source for row in rows if row.text == split.texts[0])
    assert prepared(BASE).train.sources == ()


def test_a_trace_tells_what_was_dropped_even_when_training_refuses() -> None:
    trace = Trace()
    rows = [Row(LONG, 1), Row(LONG + "!", 1), Row("so so", 0), Row("so so", 1)]
    with Progress(disable=True) as bars, pytest.raises(DataInvalid):
        prepare(Table("t", "MIT", "test", tuple(rows)), tiny.recipe(), bars, trace)
    assert trace.conflicting == ["so so"]
    assert [{one.text, other.text} for one, other in trace.near] == [{LONG, LONG + "!"}]
    assert trace.counts["near_duplicates"] == 1


def test_the_fingerprint_of_joined_sources_knows_no_folder_either() -> None:
    def joined(folder: str, **second: object) -> str:
        sources = [{"source": "file", "path": f"{folder}/a.csv"}, {"source": "file", "path": "b.csv", **second}]
        return prepared(BASE, data={"source": "joined", "sources": sources}).fingerprint

    assert joined("/here") == joined("/there")
    assert joined("/here", held_out=True) != joined("/here")
    assert joined("/here") != prepared(BASE).fingerprint
