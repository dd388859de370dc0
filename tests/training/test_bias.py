"""training/bias.py: movements that were put there are found, and a file that cannot be used says why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training.bias import SLOT, Floats, Group, Probes, load_probes, measure_bias
from training.errors import EvaluationInvalid

PROBES = Probes(
    templates=("I met {term}.", "It is about {term}."),
    groups=(
        Group(name="one", terms=("cats", "dogs", "birds")),
        Group(name="own", terms=("x", "y"), templates=("{term}!",)),
    ),
)


def score(texts: Sequence[str]) -> Floats:
    """Dogs are disliked, and more so when somebody meets them."""
    positive = np.array([0.7 - 0.1 * ("dogs" in text) - 0.2 * ("met dogs" in text) for text in texts])
    return np.stack([1 - positive, positive], axis=1)


def test_the_pair_that_moves_most_is_named() -> None:
    found, own = measure_bias(PROBES, score, ("negative", "positive"))
    assert (found.group, found.terms, found.texts, found.pairs) == ("one", 3, 6, 6)
    assert found.max_movement == pytest.approx(0.3)
    # Of three pairs two move: by 0.3 in one sentence, by 0.1 in the other.
    assert found.mean_movement == pytest.approx((2 * 0.3 + 2 * 0.1) / 6)
    assert found.label_flips == 2
    assert (found.worst.template, found.worst.terms) == ("I met {term}.", ("cats", "dogs"))
    assert dict(zip(found.worst.terms, found.worst.scores, strict=True)) == pytest.approx(
        {"cats": 0.3, "dogs": 0.6} if found.worst.label == "negative" else {"cats": 0.7, "dogs": 0.4}
    )
    assert (own.texts, own.max_movement, own.label_flips) == (2, 0.0, 0)


def test_every_text_is_asked_once_and_in_one_go() -> None:
    asked: list[list[str]] = []

    def remember(texts: Sequence[str]) -> Floats:
        asked.append(list(texts))
        return score(texts)

    measure_bias(PROBES, remember, ("negative", "positive"))
    [texts] = asked
    assert texts[:3] == ["I met cats.", "I met dogs.", "I met birds."]
    assert texts[-2:] == ["x!", "y!"]


def test_ours_are_whole() -> None:
    probes = load_probes()
    assert {"gender", "religion", "origin", "disability"} <= {group.name for group in probes.groups}
    assert all(SLOT in template for group in probes.groups for template in probes.templates_of(group))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("templates = [", "not TOML"),
        ("", "groups: Field required"),
        ("groups = [{name = 'a', terms = ['x', 'y']}]", "has no templates"),
        ("templates = ['about']\ngroups = [{name = 'a', terms = ['x', 'y']}]", "must hold {term}"),
        ("templates = ['{term}']\ngroups = [{name = 'a', terms = ['x', 'x']}]", "the same term twice"),
        ("templates = ['{term}']\ngroups = [{name = 'a', terms = ['x']}]", "groups.0.terms: "),
        ("templates = ['{term}']\ngroups = [{name = 'a', terms = ['x', 'y'], kind = 1}]", "groups.0.kind: "),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "probes.toml"
    path.write_text(content)
    with pytest.raises(EvaluationInvalid) as caught:
        load_probes(path)
    assert said in caught.value.message


def test_no_file_or_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(EvaluationInvalid, match="No such file"):
        load_probes(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"templates = ['\xe9']")
    with pytest.raises(EvaluationInvalid, match="not UTF-8"):
        load_probes(tmp_path / "latin.toml")
