"""training/recipe.py: what a recipe may say, and how a wrong one is refused."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.test_rules import ROOT
from tests.training import tiny
from training import recipe as module
from training.errors import RecipeInvalid
from training.packages import DATA
from training.recipe import FileData, HubData, PackagedData, Recipe, TrainingSection, bundled_recipes, load_recipe

_NESTED = {"source", "data", "encoder", "prepare", "split", "training", "gate", "card", "tune", "track"}
MINIMAL = """
name = "mine"
task = "text-classification"
labels = ["no", "yes"]
[data]
source = "file"
path = "reviews.csv"
[encoder]
source = "folder"
name = "encoder"
"""


def test_every_bundled_recipe_loads() -> None:
    assert "sentiment" in bundled_recipes()
    for name in bundled_recipes():
        assert load_recipe(name).name == name


def test_the_sentiment_recipe_is_what_the_readme_says() -> None:
    recipe = load_recipe("sentiment")
    assert recipe.labels == ("negative", "positive")
    assert all(isinstance(source, PackagedData) for source in (*recipe.sources, *recipe.elsewhere))
    assert recipe.data.thresholds["negative"].holds(-0.5)
    assert not recipe.data.thresholds["positive"].holds(0.49)
    learned, never = (
        {source.name for source in sources if isinstance(source, PackagedData)}
        for sources in (recipe.sources, recipe.elsewhere)
    )
    assert learned | never <= DATA.keys()
    assert not learned & never


def test_the_plain_recipe_is_the_defaults_on_the_snippets_alone() -> None:
    """What the sentiment recipe is compared with, on the same test rows."""
    plain, ours = load_recipe(ROOT / "benchmarks" / "plain.toml"), load_recipe("sentiment")
    assert plain.training == TrainingSection(epochs=3, learning_rate=5e-5, best_by="accuracy")
    assert plain.data == ours.sources[0]
    assert (plain.split, plain.encoder, plain.labels) == (ours.split, ours.encoder, ours.labels)


def test_paths_start_at_the_recipes_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    recipe = load_recipe(path)
    assert isinstance(recipe.data, FileData)
    assert recipe.data.path == tmp_path / "reviews.csv"
    assert recipe.encoder.name == str(tmp_path / "encoder")


def test_a_hub_recipe_for_imdb_as_in_the_readme(tmp_path: Path) -> None:
    path = tmp_path / "imdb.toml"
    path.write_text("""
        name = "imdb"
        task = "text-classification"
        labels = ["neg", "pos"]
        [data]
        source = "hub"
        id = "stanfordnlp/imdb"
        splits = ["train"]
        test_splits = ["test"]
        [encoder]
        source = "hub"
        name = "distilbert-base-uncased"
    """)
    recipe = load_recipe(path)
    assert isinstance(recipe.data, HubData)
    assert recipe.data.test_splits == ("test",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training__learning_rat": 1}, r"training\.learning_rat: unknown key"),
        ({"training__epochs": 0}, r"training\.epochs: .*greater than 0"),
        ({"training__precision": "int8"}, r"training\.precision: "),
        ({"training__adversarial": 0}, r"training\.adversarial: .*greater than 0"),
        ({"labels": ["only"]}, "labels: "),
        ({"labels": ["a", "a"]}, "the same label twice"),
        ({"name": "../evil"}, "name: "),
        ({"split__train": 0.9}, "split: train, validation and test must sum to 1"),
        ({"data__path": None}, r"data\.path: "),
        ({"data__source": "ftp"}, "data: "),
        ({"data__thresholds": {"positive": {"at_least": 1}}}, "exactly one band for each"),
        (
            {"data__thresholds": {"positive": {"at_least": 1}, "negative": {"at_most": 2}}},
            "two bands overlap",
        ),
        ({"data__thresholds": {"positive": {}, "negative": {"at_most": 2}}}, "at_least, at_most or both"),
        ({"data__label_names": {"0": "bad"}}, "bad is not in labels"),
        ({"prepare__transforms": ["stemming"]}, r"prepare\.transforms\.0: "),
        ({"prepare__transforms": ["html", "html"]}, "prepare: transforms: the same step twice"),
        ({"training__class_weights": {"negative": 1}}, "exactly one weight for each of labels"),
        ({"training__class_weights": {"negative": 1, "positive": 0}}, r"training\.class_weights"),
        ({"data": {"source": "joined", "sources": []}}, r"data\.sources: "),
        ({"data": {"source": "joined", "sources": [{"source": "file"}]}}, r"data\.sources\.0\.path: is missing"),
        ({"training__rating_sharpness": 1}, "needs two labels and data.thresholds"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_fields_name(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeInvalid, match=sentence):
        tiny.recipe(**changes)


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RecipeInvalid, match=r"recipe nowhere: No such file.*one of: .*sentiment"):
        load_recipe("nowhere")


def test_broken_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = \n")
    with pytest.raises(RecipeInvalid, match=r"not TOML.*line 1"):
        load_recipe(path)


def test_a_wrong_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "café"'.encode("latin-1"))
    with pytest.raises(RecipeInvalid, match="not UTF-8"):
        load_recipe(path)


def test_a_recipe_survives_the_manifest() -> None:
    recipe = load_recipe("sentiment")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_the_gate_section_is_parsed_and_bounded() -> None:
    assert tiny.recipe(gate__min_label_agreement=0.99).gate.min_label_agreement == 0.99
    with pytest.raises(RecipeInvalid, match=r"gate\.min_label_agreement"):
        tiny.recipe(gate__min_label_agreement=1.5)


def test_what_a_person_says_for_the_cards_is_optional() -> None:
    assert tiny.recipe().card.intended_use == ""
    assert tiny.recipe(card={"intended_use": "Sorting letters."}).card.intended_use == "Sorting letters."
    with pytest.raises(RecipeInvalid, match=r"card\.intended: unknown key"):
        tiny.recipe(card={"intended": "Sorting letters."})


def test_every_field_is_described() -> None:
    sections = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    for section in sections:
        for name, field in section.model_fields.items():
            nested = name in _NESTED
            assert field.description or nested, f"{section.__name__}.{name} has no description"


def test_the_bundled_recipe_has_no_key_at_its_default_for_no_reason() -> None:
    """The file is what people copy: it must parse as plain TOML with nothing but known keys."""
    values = tomllib.loads((Path(module.__file__).parent / "recipes" / "sentiment.toml").read_text())
    assert set(values) <= set(Recipe.model_fields)


def test_every_joined_file_starts_at_the_recipes_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    head, _, tail = MINIMAL.partition('source = "file"\npath = "reviews.csv"')
    sources = '[[data.sources]]\nsource = "file"\npath = "a.csv"\n[[data.sources]]\nsource = "file"\npath = "b.csv"\n'
    path.write_text(f'{head}source = "joined"\n{sources}held_out = true\n{tail}')
    (tmp_path / "single.toml").write_text(MINIMAL)
    recipe = load_recipe(path)
    assert [source.path for source in recipe.sources if isinstance(source, FileData)] == [
        tmp_path / "a.csv",
        tmp_path / "b.csv",
    ]
    assert [source.held_out for source in recipe.sources] == [False, True]
    single = load_recipe(tmp_path / "single.toml")
    assert single.sources == (single.data,)
