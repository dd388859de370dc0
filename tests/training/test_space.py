"""training/space.py: what may be searched, and what is refused by the name of its field."""

from pathlib import Path
from typing import Any

import pytest

from tests.training import tiny
from tests.training.tiny import searching
from training.errors import RecipeInvalid
from training.recipe import Search, load_recipe
from training.space import check_space, grid_values, space_of

RATES = {"learning_rate": {"choices": [5e-3, 2e-3, 1e-3]}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with its table and encoder."""
    folder = tmp_path_factory.mktemp("space")
    tiny.project(folder)
    return folder


@pytest.mark.parametrize(
    ("space", "section", "sentence"),
    [
        ({"lerning_rate": {"choices": [1]}}, {}, r"training\.lerning_rate: unknown key"),
        ({"learning_rate": {"low": 0.1, "high": 2.0}}, {}, r"training\.learning_rate: .*less than or equal to 1"),
        ({"optimizer": {"choices": ["adamw", "adam"]}}, {}, r"training\.optimizer: .*'adamw'"),
        ({"seed": {"choices": [1, 2]}}, {}, r"tune\.space\.training\.seed: is not for tuning"),
        (
            {"dropout": {"low": 0.0, "high": 0.3}},
            {"sampler": "grid"},
            r"tune\.space\.training\.dropout: a grid needs choices, or a step",
        ),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_by_field(
    home: Path, space: dict[str, Any], section: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeInvalid, match=sentence):
        check_space(searching(home, space, **section))


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({}, "either choices, or low and high"),
        ({"choices": [1], "low": 1}, "either choices, or low and high"),
        ({"low": 1}, "a high that is not smaller"),
        ({"low": 2, "high": 1}, "a high that is not smaller"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
        ({"low": 1, "high": 2, "steps": 1}, "unknown key"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_when_it_is_read(search: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeInvalid, match=rf"tune\.space\.training\.batch_size.*{sentence}"):
        tiny.recipe(tune={"space": {"training": {"batch_size": search}}})


def test_latency_is_that_of_one_model(home: Path) -> None:
    with pytest.raises(RecipeInvalid, match=r"tune\.latency: is that of a trial's one model; leave out tune\.folds"):
        check_space(searching(home, RATES, latency=True, folds=3))


def test_latency_is_not_measured_beside_other_trials(home: Path) -> None:
    with pytest.raises(RecipeInvalid, match=r"tune\.latency: needs one job"):
        check_space(searching(home, RATES, latency=True), jobs=2)


def test_steps_end_where_the_grid_ends() -> None:
    assert grid_values(Search(low=0.0, high=0.3, step=0.1)) == [0.0, 0.1, 0.2, 0.3]
    assert grid_values(Search(low=1, high=6, step=2)) == [1, 3, 5]
    assert grid_values(Search(choices=("a", "b"))) == ["a", "b"]


def test_the_default_space_fits_the_bundled_recipe() -> None:
    recipe = load_recipe("sentiment")
    check_space(recipe)
    assert "training.learning_rate" in space_of(recipe)


def test_encoders_that_are_folders_start_at_the_recipe(home: Path) -> None:
    path = home / "encoders.toml"
    text = (home / "recipe.toml").read_text()
    path.write_text(text + '[tune.space.encoder]\nname = { choices = ["encoder", "other"] }\n')
    choices = space_of(load_recipe(path))["encoder.name"].choices
    assert choices == (str(home / "encoder"), str(home / "other"))
