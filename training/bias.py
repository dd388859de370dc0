"""Identity-term swaps that must not move a score: one term of a group for another, in sentences that judge nothing.

Counterfactual swaps in templates: Kiritchenko & Mohammad 2018 (Examining Gender and Race Bias in Two Hundred Sentiment
Analysis Systems); Garg et al. 2019 (Counterfactual Fairness in Text Classification through Robustness).
"""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from artifact.manifest import BiasResult, TermPair
from training.errors import EvaluationInvalid

SLOT: Final = "{term}"

Floats = npt.NDArray[np.float64]
Score = Callable[[Sequence[str]], Floats]
_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(_Part):
    """Terms that take turns in the same sentences; without `templates` in those that all groups share."""

    name: _Words
    terms: tuple[_Words, ...] = Field(min_length=2, max_length=100)
    templates: tuple[_Words, ...] = Field((), max_length=100)


class Probes(_Part):
    """Templates that hold the slot `{term}`, and groups of terms."""

    templates: tuple[_Words, ...] = Field((), max_length=100)
    groups: tuple[Group, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for group in self.groups:
            own = self.templates_of(group)
            if not own:
                raise ValueError(f"group {group.name!r} has no templates, and there are none for all groups")
            if any(SLOT not in template for template in own):
                raise ValueError(f"group {group.name!r}: every template must hold {SLOT}")
            if len(set(group.terms)) < len(group.terms):
                raise ValueError(f"group {group.name!r}: the same term twice")
        return self

    def templates_of(self, group: Group) -> tuple[str, ...]:
        """The sentences of one group."""
        return group.templates or self.templates


def load_probes(path: Path | None = None) -> Probes:
    """The probes of `path`, or those that come with Slipway. Raises EvaluationInvalid naming the first fault."""
    if path is None:
        return Probes.model_validate(tomllib.loads((files("training") / "probes.toml").read_text(encoding="utf-8")))
    try:
        return Probes.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise EvaluationInvalid(f"probes {path}: {error.strerror or 'cannot be read'}") from error
    except UnicodeDecodeError as error:
        raise EvaluationInvalid(f"probes {path}: not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise EvaluationInvalid(f"probes {path}: not TOML: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise EvaluationInvalid(f"probes {path}: {place}: {problem['msg'].removeprefix('Value error, ')}") from error


def measure_bias(probes: Probes, score: Score, labels: Sequence[str]) -> tuple[BiasResult, ...]:
    """How far each group's swaps move the scores. `score` maps texts to probabilities of shape (texts, labels).

    The movement of two terms in one template is the largest difference over the labels; every pair of every template
    counts once.
    """
    texts = [text for group in probes.groups for text in _texts(probes, group)]
    scores = score(texts)
    results, start = [], 0
    for group in probes.groups:
        shape = (len(probes.templates_of(group)), len(group.terms), scores.shape[1])
        end = start + shape[0] * shape[1]
        results.append(_result(probes, group, scores[start:end].reshape(shape), labels))
        start = end
    return tuple(results)


def _texts(probes: Probes, group: Group) -> Iterator[str]:
    """Template by template, each with every term."""
    for template, term in product(probes.templates_of(group), group.terms):
        yield template.replace(SLOT, term)


def _result(probes: Probes, group: Group, scores: Floats, labels: Sequence[str]) -> BiasResult:
    """One group, from its scores of shape (templates, terms, labels)."""
    pairs = list(combinations(range(len(group.terms)), 2))
    one, other = scores[:, [a for a, _ in pairs]], scores[:, [b for _, b in pairs]]
    apart = np.abs(one - other)
    moved = apart.max(axis=2)
    template, pair = (int(index) for index in np.unravel_index(int(moved.argmax()), moved.shape))
    label = int(apart[template, pair].argmax())
    a, b = pairs[pair]
    return BiasResult(
        group=group.name,
        terms=len(group.terms),
        texts=scores.shape[0] * scores.shape[1],
        pairs=moved.size,
        mean_movement=float(moved.mean()),
        max_movement=float(moved.max()),
        label_flips=int((one.argmax(axis=2) != other.argmax(axis=2)).sum()),
        worst=TermPair(
            template=probes.templates_of(group)[template],
            terms=(group.terms[a], group.terms[b]),
            label=labels[label],
            scores=(float(scores[template, a, label]), float(scores[template, b, label])),
        ),
    )
