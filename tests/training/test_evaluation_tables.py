"""training/evaluation_tables.py: every figure is printed, the worst is named, and warnings are there."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType

from tests.training.made_evaluations import evaluated, left_out, validated
from training.evaluation_tables import fold_tables, model_tables


def printed(parts: Iterable[RenderableType]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=250)
    for part in parts:
        console.print(part, markup=False)
    return out.getvalue()


def test_one_model() -> None:
    shown = printed(model_tables(evaluated()))
    for figure in (
        "a:1 fp32 on 200 rows",
        "0.900 (0.850 to 0.940)",
        "temperature 1.500; these rows ask for another 1.020",
        "genre: horror | <b>",
        "The worst slice is genre: horror",
        "“About {term}.” cats 0.70, dogs 0.29 (positive)",
        "typos",
        "0.300 (0.200 to 0.400)",
    ):
        assert figure in shown
    assert "McNemar" not in shown


def test_two_models() -> None:
    shown = printed(model_tables(evaluated(beside=True)))
    assert "Accuracy of a:1 fp32 minus a:2 fp32: +0.200" in shown
    assert "only a:1 fp32 is right on 20 rows, only a:2 fp32 on 0; p = 1.91e-06" in shown
    assert "80.0% of the rows" in shown
    assert "So a:1 fp32 is more accurate on these rows." in shown
    assert "Note: mind <this>." in shown


def test_folds() -> None:
    shown = printed(fold_tables(validated()))
    assert "tiny, fine-tuned: 3 folds over 300 rows of <reviews> (no test row)" in shown
    assert "0.800 (0.580 to 1.020)" in shown
    assert "Worst fold: 2, accuracy 0.700 (0.650 to 0.750)." in shown
    assert "<films>" in shown
    assert "0.610 (0.590 to 0.640)" in shown
    assert "McNemar" not in shown


def test_sources_left_out_are_named_and_their_mean_has_no_interval() -> None:
    shown = printed(fold_tables(left_out()))
    assert "3 sources, each left out once, over 300 rows" in shown
    assert "value (lowest to highest)" in shown
    assert "<source 3>" in shown
    assert "Worst source: <source 2>, accuracy 0.700 (0.650 to 0.750)." in shown
    assert "mean over folds" not in shown


def test_a_recipe_that_had_none_of_the_sources_is_compared_on_each() -> None:
    shown = printed(fold_tables(left_out(beside=True)))
    assert "other.toml, fine-tuned: asked about 100 rows of sources that it had not learned" in shown
    assert "The 100 rows that both answer without their source:" in shown
    rows = {line.split("  ")[0].strip(): " ".join(line.split()) for line in shown.splitlines() if "<source" in line}
    assert rows["<source 1>"].startswith("<source 1> 50 1.000 (0.929 to 1.000) 1.000 (0.929 to 1.000) +0.000")
    assert rows["<source 2>"].startswith("<source 2> 50 0.400 (0.276 to 0.538) 0.000 (0.000 to 0.071) +0.400")
    # The one model of everything has no mean and no worst.
    assert shown.count("mean over sources") == 1
    assert shown.count("Worst source") == 1


def test_two_recipes_in_the_same_folds() -> None:
    shown = printed(fold_tables(validated(beside=True)))
    assert "other, fine-tuned: 3 folds" in shown
    assert "The 100 rows that both hold out, in the same folds:" in shown
    assert "Accuracy of tiny minus other.toml: +0.200" in shown
