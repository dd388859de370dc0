"""The README's example is one that works."""

import re
import tomllib
from pathlib import Path

from training.recipe import HubData, parse_recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_recipe_in_the_readme_is_a_recipe() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    recipe = parse_recipe(tomllib.loads(block), origin="imdb.toml")
    assert isinstance(recipe.data, HubData)
    assert (recipe.data.id, recipe.encoder.name) == ("stanfordnlp/imdb", "distilbert-base-uncased")


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
