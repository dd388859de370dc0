"""What `slipway compress` may try: a candidate is a row of named steps, written `layers=3+distil=2+int8+weights=int8`.

Steps on the torch model come first, in the order given; then at most one way to compute products, then at most one way
to store weights (training/lowering.py). The fine-tuned model as exported is the candidate `fp32`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from training.errors import RecipeInvalid
from training.lowering import PRODUCTS, STORAGE

REFERENCE: Final = "fp32"
SMALL: Final = "int8+weights=int8"
Stage = Literal["cut", "training", "products", "weights"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A step there is. `read` turns what follows `=` into a value and raises ValueError; None takes no value."""

    stage: Stage
    read: Callable[[str], float] | None
    about: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step with its value, 0 where it takes none."""

    name: str
    stage: Stage
    value: float = 0.0

    def __str__(self) -> str:
        # Fifteen digits: what is written down is read back as it was.
        return f"{self.name}={self.value:.15g}" if self.stage in ("cut", "training") else self.name


@dataclass(frozen=True, slots=True)
class Candidate:
    """`model` changes the torch model, `products` and `storage` the graph; empty ones leave it as exported."""

    model: tuple[Step, ...] = ()
    products: str = ""
    storage: str = ""

    @property
    def name(self) -> str:
        """As it is written; parsing it gives the candidate again."""
        parts = [*map(str, self.model), self.products, f"weights={self.storage}" if self.storage else ""]
        return "+".join(part for part in parts if part) or REFERENCE

    @property
    def trains(self) -> bool:
        """Whether it takes minutes of training."""
        return any(step.stage == "training" for step in self.model)

    @property
    def unlabelled(self) -> bool:
        """Whether it needs texts without labels."""
        return any(step.name == "distil-unlabelled" for step in self.model)


def _share(text: str) -> float:
    return _between(text, 0, 1, "a share between 0 and 1")


def _epochs(text: str) -> float:
    return _between(text, 0, 1000, "a number of epochs above 0")


def _count(text: str) -> float:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number from 1")
    return float(text)


def _between(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low < value < high:
        raise ValueError(wanted)
    return value


KINDS: Final[Mapping[str, Kind]] = {
    "layers": Kind("cut", _count, "keep so many layers, evenly spaced"),
    "heads": Kind("cut", _share, "remove that share of the attention heads of each layer"),
    "neurons": Kind("cut", _share, "remove that share of the feed-forward neurons of each layer"),
    "svd": Kind("cut", _share, "factorise the feed-forward matrices; both factors hold that share of the numbers"),
    "zeros": Kind("cut", _share, "set that share of the weights of each matrix to zero, the smallest ones"),
    "clip": Kind("cut", _share, "clip the weights towards each output at that quantile of their magnitude"),
    "tune": Kind("training", _epochs, "fine-tune what is left for so many epochs"),
    "distil": Kind("training", _epochs, "the same, towards the answers of the uncut model as well"),
    "distil-unlabelled": Kind("training", _epochs, "the same, with the texts of --unlabelled besides"),
    **{name: Kind("products", None, "compute products that way") for name in PRODUCTS},
}

# Measured in this order; those that train come last, and only where nothing before them reaches a target.
PLAN: Final = (
    REFERENCE,
    *PRODUCTS,
    *(f"weights={storage}" for storage in STORAGE),
    *(f"int8+weights={storage}" for storage in STORAGE),
    "int8-static+weights=int8",
    "int8-blocks+weights=int8",
    *("clip=0.999+" + SMALL, "clip=0.99+" + SMALL),
    *("zeros=0.3", "zeros=0.5"),
    *("heads=0.25", "heads=0.25+" + SMALL),
    *("neurons=0.25", "neurons=0.25+" + SMALL),
    *("svd=0.75", "svd=0.75+" + SMALL),
    *("svd=0.5", "svd=0.5+" + SMALL),
    *("zeros=0.5+tune=1",),
    *("heads=0.25+neurons=0.5+tune=1", "heads=0.25+neurons=0.5+tune=1+" + SMALL),
    *("svd=0.5+tune=1", "svd=0.5+tune=1+" + SMALL),
    *("layers=3+tune=2", "layers=3+tune=2+" + SMALL),
    *("layers=3+distil=2", "layers=3+distil=2+" + SMALL),
    *("layers=3+distil-unlabelled=2", "layers=3+distil-unlabelled=2+" + SMALL),
    *("layers=4+neurons=0.25+distil=2", "layers=4+neurons=0.25+distil=2+" + SMALL),
)


def plan(extra: Sequence[str], *, only: bool = False, unlabelled: bool = False) -> tuple[Candidate, ...]:
    """The fp32 reference, then `extra` alone or after PLAN, each once; without texts nothing that needs them of PLAN.

    Raises RecipeInvalid naming the candidate and the step that cannot be read.
    """
    asked = [parse(text) for text in extra]
    if not unlabelled and any(candidate.unlabelled for candidate in asked):
        raise RecipeInvalid("--try: distil-unlabelled needs --unlabelled FILE")
    known = [] if only else [parse(text) for text in PLAN]
    found = [Candidate(), *(each for each in known if unlabelled or not each.unlabelled), *asked]
    return tuple(dict.fromkeys(found))


def parse(text: str) -> Candidate:
    """Read a candidate as it is written. Raises RecipeInvalid."""
    if text == REFERENCE:
        return Candidate()
    model: list[Step] = []
    products = storage = ""
    for part in text.split("+"):
        name, _, value = part.partition("=")
        if storage or (products and name != "weights"):
            raise RecipeInvalid(f"candidate {text!a}: {part!a} comes too late: cuts, training, products, weights")
        if name == "weights":
            storage = _storage(text, value)
        elif (step := _step(text, name, value)).stage == "products":
            products = name
        else:
            model.append(step)
    return Candidate(tuple(model), products, storage)


def _storage(text: str, value: str) -> str:
    if value not in STORAGE:
        raise RecipeInvalid(f"candidate {text!a}: weights must be one of {', '.join(STORAGE)}")
    return value


def _step(text: str, name: str, value: str) -> Step:
    kind = KINDS.get(name)
    if kind is None:
        raise RecipeInvalid(f"candidate {text!a}: unknown step {name!a}; known are {', '.join(KINDS)}, weights")
    if kind.read is None:
        if value:
            raise RecipeInvalid(f"candidate {text!a}: {name} takes no value")
        return Step(name, kind.stage)
    try:
        return Step(name, kind.stage, kind.read(value))
    except ValueError as error:
        raise RecipeInvalid(f"candidate {text!a}: {name} must be {error}, as in {name}=...") from error
