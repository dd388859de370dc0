"""Candidates are read as they are written, and what cannot be read is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.candidates import KINDS, PLAN, Candidate, parse, plan
from training.errors import RecipeInvalid
from training.lowering import STORAGE

CUTS = ("layers=2", "heads=0.25", "neurons=0.5", "svd=0.75", "zeros=0.5", "clip=0.999", "tune=1", "distil=0.5")
PRODUCTS = tuple(name for name, kind in KINDS.items() if kind.stage == "products")


@pytest.mark.parametrize("name", PLAN)
def test_what_is_planned_can_be_read_and_written(name: str) -> None:
    assert parse(name).name == name


@given(
    st.lists(st.sampled_from(CUTS), max_size=3),
    st.sampled_from(["", *PRODUCTS]),
    st.sampled_from(["", *(f"weights={storage}" for storage in STORAGE)]),
)
def test_every_candidate_reads_back(model: list[str], products: str, storage: str) -> None:
    text = "+".join(part for part in (*model, products, storage) if part) or "fp32"
    candidate = parse(text)
    assert candidate.name == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("int4", "unknown step 'int4'; known are layers, heads"),
        ("", "unknown step ''"),
        ("heads", "heads must be a share between 0 and 1, as in heads=..."),
        ("heads=1", "a share between 0 and 1"),
        ("heads=nan", "a share between 0 and 1"),
        ("layers=2.5", "layers must be a whole number from 1"),
        ("layers=0", "a whole number from 1"),
        ("tune=-1", "a number of epochs above 0"),
        ("int8=8", "int8 takes no value"),
        ("weights=int4", "weights must be one of int8, fp16, bf16"),
        ("int8+heads=0.5", "'heads=0.5' comes too late"),
        ("int8+int8-static", "'int8-static' comes too late"),
        ("weights=int8+int8", "'int8' comes too late"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, reason: str) -> None:
    with pytest.raises(RecipeInvalid, match="candidate") as caught:
        parse(text)
    assert reason in caught.value.message
    assert caught.value.exit_status == 2


def test_a_candidate_knows_what_it_needs() -> None:
    assert not parse("heads=0.5+int8").trains
    assert parse("layers=2+tune=1+int8").trains
    assert parse("layers=2+distil-unlabelled=1").unlabelled


def test_the_reference_comes_first_and_nothing_twice() -> None:
    found = plan(["int8", "heads=0.125", "int8"], unlabelled=True)
    assert found[0] == Candidate()
    assert [candidate.name for candidate in found] == [*PLAN, "heads=0.125"]


def test_only_what_was_asked_for() -> None:
    assert [candidate.name for candidate in plan(["int8"], only=True)] == ["fp32", "int8"]


def test_without_texts_nothing_that_needs_them() -> None:
    assert not any(candidate.unlabelled for candidate in plan([]))
    with pytest.raises(RecipeInvalid, match="needs --unlabelled"):
        plan(["layers=2+distil-unlabelled=1"])
