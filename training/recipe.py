"""A recipe: everything that decides what a model will be, in one small TOML file.

`load_recipe("sentiment")` reads a recipe that ships with Slipway, `load_recipe("my/recipe.toml")` one of the user's.
Unknown keys are refused, so that a typing error never trains the wrong model in silence.
"""

import itertools
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifact.manifest import ModelName, TransformName
from training.errors import RecipeInvalid

LabelName = Annotated[str, Field(min_length=1, max_length=100)]
LEAST_FOLDS: Final = 2
MOST_FOLDS: Final = 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Band(_Part):
    """The ratings that mean one label. At least one end is given; both ends belong to the band."""

    at_least: float | None = Field(None, description="Lowest rating of this label.")
    at_most: float | None = Field(None, description="Highest rating of this label.")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        if self.low > self.high:
            raise ValueError("at_least is greater than at_most")
        return self

    @property
    def low(self) -> float:
        """The lower end, minus infinity when open."""
        return float("-inf") if self.at_least is None else self.at_least

    @property
    def high(self) -> float:
        """The upper end, infinity when open."""
        return float("inf") if self.at_most is None else self.at_most

    def holds(self, rating: float) -> bool:
        """Whether `rating` means this label."""
        return self.low <= rating <= self.high


class _Labelled(_Part):
    text_column: str = Field("text", min_length=1, description="Column with the text.")
    label_column: str = Field("label", min_length=1, description="Column with the label or the rating.")
    label_names: dict[str, LabelName] = Field({}, description="Value in the data -> label, e.g. 0 = 'negative'.")
    thresholds: dict[LabelName, Band] = Field({}, description="Label -> band of ratings; between bands is dropped.")
    id_column: str | None = Field(None, description="Column that names each row; the same name twice is refused.")
    held_out: bool = Field(False, description="Every row is a test row, whatever its hash says.")
    max_rows: int | None = Field(None, ge=1, description="Use only so many of its rows, the same ones every time.")


class PackagedData(_Labelled):
    """A data set that ships inside a package; training/sources.py knows them by name."""

    source: Literal["packaged"]
    name: str = Field(description="Name of the packaged data set.")


class FileData(_Labelled):
    """The user's own table: .csv, .tsv, .jsonl or .parquet, in UTF-8."""

    source: Literal["file"]
    path: Path = Field(description="The table; relative to the recipe's own folder.")


class HubData(_Labelled):
    """A Hugging Face data set id, or a local folder in the hub's layout."""

    source: Literal["hub"]
    id: str = Field(min_length=1, description="Hub id or local folder.")
    config: str | None = Field(None, description="Configuration of the data set, where it has several.")
    revision: str | None = Field(None, description="Commit or tag to read; pin it to repeat a run.")
    splits: tuple[str, ...] = Field(("train",), min_length=1, description="Splits to read and divide by hash.")
    test_splits: tuple[str, ...] = Field((), description="Splits whose rows are always test rows.")


SingleSource = PackagedData | FileData | HubData


class JoinedData(_Part):
    """Several sources read one after another. Each says for itself which of its columns and values mean what."""

    source: Literal["joined"]
    sources: tuple[Annotated[SingleSource, Field(discriminator="source")], ...] = Field(
        min_length=1, description="The sources, each written as [data] would be."
    )

    @property
    def thresholds(self) -> dict[LabelName, Band]:
        """The bands, where all sources with ratings rate alike; else none, for their ratings cannot be compared."""
        rated = [source.thresholds for source in self.sources if source.thresholds]
        return rated[0] if rated and all(other == rated[0] for other in rated) else {}


AnyData = SingleSource | JoinedData
DataSection = Annotated[AnyData, Field(discriminator="source")]


class PrepareSection(_Part):
    """What is done to the rows before they are divided, and which of the training rows are used."""

    transforms: tuple[TransformName, ...] = Field(
        (), description="Cleaning steps, in order; the artifact records them and serving applies them too."
    )
    stop_words: Literal["english"] | tuple[str, ...] = Field(
        "english", description="Words that the step stop_words drops; `english` leaves negations in."
    )
    max_rows_per_label: int | None = Field(None, ge=1, description="Most training rows of one label.")
    balanced: bool = Field(False, description="Use as many training rows of each label as the rarest has.")

    @model_validator(mode="after")
    def _steps_once(self) -> Self:
        if len(set(self.transforms)) != len(self.transforms):
            raise ValueError("transforms: the same step twice")
        return self


class Encoder(_Part):
    """The pretrained encoder to fine-tune."""

    source: Literal["packaged", "hub", "folder"] = Field(description="Where it comes from.")
    name: str = Field(min_length=1, description="Packaged name, hub id or folder (relative to the recipe's own).")
    revision: str | None = Field(None, description="Commit or tag on the hub.")


class SplitFractions(_Part):
    """Shares of the rows. The hash of its own text decides where a row goes: there is no seed."""

    train: float = Field(0.8, gt=0, lt=1, description="Share to learn from.")
    validation: float = Field(0.1, gt=0, lt=1, description="Share that chooses the checkpoint.")
    test: float = Field(0.1, gt=0, lt=1, description="Share nobody looks at before the end.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if abs(self.train + self.validation + self.test - 1.0) > 1e-9:
            raise ValueError("train, validation and test must sum to 1")
        return self


class TrainingSection(_Part):
    """How the encoder is fine-tuned."""

    seed: int = Field(13, ge=0, lt=2**32, description="Seeds weights of the new head, dropout and row order.")
    epochs: float = Field(3.0, gt=0, le=1000, description="Passes over the training split.")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate, of the head.")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Learning-rate factor from each layer to the one below.")
    batch_size: int = Field(32, ge=1, le=4096, description="Rows in one forward pass.")
    accumulation: int = Field(1, ge=1, le=1024, description="Forward passes per optimizer step.")
    optimizer: Literal["adamw", "nadam", "adafactor", "sgd"] = Field(
        "adamw", description="sgd has Nesterov momentum of 0.9; weight decay is decoupled in the others."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay; none on biases and norms.")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout of encoder and head; its own where left out.")
    frozen_layers: int = Field(0, ge=0, le=1000, description="Lowest layers not trained.")
    encoder_layers: int | None = Field(None, ge=1, description="Keep so many of the encoder's lowest layers; or all.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Decay after the warm-up.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_tokens: int = Field(128, ge=8, le=8192, description="Training inputs are cut here; serving accepts more.")
    window_tokens: int | None = Field(
        None, ge=16, description="Read longer texts in windows of so many tokens, in place of max_tokens."
    )
    max_text_tokens: int = Field(4096, ge=16, le=65_536, description="Longest text accepted, with window_tokens.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Arithmetic of the forward pass.")
    class_weights: Literal["balanced", "balanced_by_source"] | dict[LabelName, Annotated[float, Field(gt=0)]] | None = (
        Field(
            None,
            description="Weight of each label in the loss; `balanced` weighs a rare label up to a common one, "
            "`balanced_by_source` within each joined source.",
        )
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each target spread over all labels.")
    adversarial: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Learn each batch again from embeddings moved so far against it; doubles a step.",
    )
    rating_sharpness: float | None = Field(
        None, gt=0, description="Two labels with ratings: target = sigmoid(sharpness * rating) instead of 0 or 1."
    )
    calibrate: bool = Field(True, description="Scale the finished head so that scores mean what they say.")
    evaluations_per_epoch: int = Field(1, ge=1, le=100, description="Validation passes and checkpoints per epoch.")
    patience: int = Field(3, ge=1, description="Validation passes without a better one before training stops.")
    best_by: Literal["accuracy", "log_loss"] = Field("log_loss", description="What makes a checkpoint the best.")

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row that is learned from: a window, or what is left of a text that was cut."""
        return self.window_tokens or self.max_tokens

    @model_validator(mode="after")
    def _a_text_holds_a_window(self) -> Self:
        if self.window_tokens is not None and self.max_text_tokens < self.window_tokens:
            raise ValueError("max_text_tokens: must be at least window_tokens")
        return self


class Search(_Part):
    """What one field may be in a study: some choices, or the numbers from low to high."""

    choices: tuple[bool | int | float | str, ...] | None = Field(None, min_length=1, description="Values to choose of.")
    low: int | float | None = Field(None, description="Smallest value; whole numbers give whole numbers.")
    high: int | float | None = Field(None, description="Greatest value.")
    log: bool = Field(False, description="Search by ratio rather than by difference.")
    step: int | float | None = Field(None, gt=0, description="Only low, low + step, and so on.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is None and (self.low is None or self.high is None or self.low > self.high):
            raise ValueError("give low and a high that is not smaller")
        if self.log and (self.choices is not None or self.step is not None or (self.low or 0) <= 0):
            raise ValueError("log needs a low above 0, and neither choices nor step")
        return self


class TuneSection(_Part):
    """How `slipway tune` looks for better values; `slipway train` ignores it."""

    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="Who proposes the next values.")
    trials: int = Field(20, ge=1, le=100_000, description="Trials in all; a grid has no more than its cells.")
    seed: int = Field(13, ge=0, lt=2**32, description="Seeds the proposals; each trial trains with training.seed.")
    objective: Literal["accuracy", "log_loss"] = Field("accuracy", description="What is best on rows not learned from.")
    folds: int | None = Field(
        None, ge=LEAST_FOLDS, le=MOST_FOLDS, description="Cross-validate each trial, in place of the validation split."
    )
    latency: bool = Field(False, description="A second objective: measured seconds for one text of median length.")
    prune: bool = Field(True, description="Stop a trial that is below the median of the others; not with latency.")
    warmup_trials: int = Field(5, ge=1, description="Finished trials before any is pruned and before TPE guides.")
    space: dict[Literal["training", "encoder"], dict[str, Search]] = Field({}, description="Field -> what it may be.")


class ChosenSection(_Part):
    """Which trial of a study of `slipway tune` the values of a recipe are. Written there; it decides nothing."""

    trial: int = Field(ge=0, description="Its number in the study.")
    trials: int = Field(ge=1, description="How many trials came to an end.")
    values: dict[str, bool | int | float | str] = Field(description="What was chosen: dotted field -> value.")
    sampler: str = Field(max_length=50, description="Who proposed the values.")
    objective: str = Field(max_length=50, description="What was best.")
    quality: float = Field(description="The objective of this trial.")
    folds: int | None = Field(
        None, ge=LEAST_FOLDS, le=MOST_FOLDS, description="Cross-validated so; else in validation."
    )

    @property
    def judged(self) -> str:
        """On what, in words."""
        return "in validation" if self.folds is None else f"in the mean of {self.folds} folds"


class TrackSection(_Part):
    """Who else is told how a run goes. Everything is off unless it is named here."""

    mlflow: bool = Field(False, description="A local MLflow store, runs/mlflow.db, or MLFLOW_TRACKING_URI.")
    tensorboard: bool = Field(False, description="TensorBoard events in the run's own folder.")
    comet: bool = Field(False, description="Comet, as comet_ml is set up: this one leaves the machine.")


class GateSection(_Part):
    """Floors tighter than the ones in code; a looser one is refused by the gate."""

    max_score_difference: float | None = Field(None, ge=0, description="fp32 against torch, largest difference.")
    max_neighbour_score_difference: float | None = Field(None, ge=0, description="Alone against among neighbours.")
    min_label_agreement: float | None = Field(None, ge=0, le=1, description="Reduced precision against fp32.")
    min_accuracy_difference: float | None = Field(None, ge=-1, le=0, description="Lower bound, as a fraction.")
    max_term_movement: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Most that swapping one term for another may move a score; told, not asked, if none.",
    )


class CardSection(_Part):
    """What only a person can say, for MODEL_CARD.md and DATA_CARD.md. What is left out reads "not stated"."""

    intended_use: str = Field("", max_length=5000, description="What the model is for, and who should use it.")
    out_of_scope: str = Field("", max_length=5000, description="What it must not be used for.")
    limits: str = Field("", max_length=5000, description="Weaknesses that no measurement of ours shows.")
    collection: str = Field("", max_length=5000, description="How the data was collected and labelled, by whom.")
    data_licence: str = Field("", max_length=200, description="Licence of the data, where its source states none.")
    language: str = Field("", max_length=100, description="Language of the texts, as a BCP 47 tag such as en or de-AT.")
    contact: str = Field("", max_length=500, description="Who answers questions.")


class Recipe(_Part):
    """The whole recipe."""

    name: ModelName = Field(description="Name of the model in the repository.")
    task: Literal["text-classification"] = Field(description="What the model does.")
    labels: tuple[LabelName, ...] = Field(min_length=2, description="In order; with two, the last one is positive.")
    description: str = Field("", description="One line for the model card.")
    max_rows: int | None = Field(None, ge=1, description="Use only so many rows: for trying things out.")
    data: DataSection
    encoder: Encoder
    prepare: PrepareSection = PrepareSection()
    split: SplitFractions = SplitFractions()
    training: TrainingSection = TrainingSection()
    elsewhere: tuple[Annotated[SingleSource, Field(discriminator="source")], ...] = Field(
        (), description="Data of other kinds, never learned from: the finished model is measured on each, apart."
    )
    gate: GateSection = GateSection()
    card: CardSection = CardSection()
    tune: TuneSection = TuneSection()
    chosen: ChosenSection | None = Field(None, description="Which trial of a study the values are, if of any.")
    track: TrackSection = TrackSection()

    @model_validator(mode="after")
    def _labels_make_sense(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: the same label twice")
        for source in (*self.sources, *self.elsewhere):
            _check_thresholds(self.labels, source)
        weights = self.training.class_weights
        if isinstance(weights, dict) and set(weights) != set(self.labels):
            raise ValueError("training.class_weights: needs exactly one weight for each of labels")
        if self.training.rating_sharpness is not None and (len(self.labels) != 2 or not self.data.thresholds):
            raise ValueError("training.rating_sharpness: needs two labels and data.thresholds")
        return self

    def with_files(self, change: Callable[[Path], Path]) -> "Recipe":
        """The recipe with the path of every file it reads changed: those to learn from, and those elsewhere."""
        elsewhere = tuple(with_paths(source, change) for source in self.elsewhere)
        return self.model_copy(update={"data": with_paths(self.data, change), "elsewhere": elsewhere})

    @property
    def sources(self) -> tuple[SingleSource, ...]:
        """The sources of the rows to learn from: one, unless several are joined."""
        return self.data.sources if isinstance(self.data, JoinedData) else (self.data,)


def _check_thresholds(labels: Sequence[str], data: SingleSource) -> None:
    if unknown := sorted(set(data.label_names.values()) - set(labels)):
        raise ValueError(f"data.label_names: {', '.join(unknown)} is not in labels")
    if not data.thresholds:
        return
    if set(data.thresholds) != set(labels):
        raise ValueError("data.thresholds: needs exactly one band for each of labels")
    bands = sorted(data.thresholds.values(), key=lambda band: band.low)
    if any(low.high >= high.low for low, high in itertools.pairwise(bands)):
        raise ValueError("data.thresholds: two bands overlap")


def bundled_recipes() -> tuple[str, ...]:
    """Names of the recipes that ship with Slipway."""
    folder = files("training") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a bundled recipe by name or any recipe by path; relative paths inside it start at its own folder.

    Raises RecipeInvalid, with the field's name, when it cannot be used.
    """
    path, text = _read(name_or_path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeInvalid(f"recipe {path}: not TOML: {error}") from error
    recipe = parse_recipe(values, origin=str(path))
    return _anchored(recipe, path.parent)


def parse_recipe(values: dict[str, Any], *, origin: str = "recipe") -> Recipe:
    """Check values that were read elsewhere. Raises RecipeInvalid naming the first wrong field."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeInvalid(f"recipe {origin}: {_sentence(error)}") from error


def _read(name_or_path: str | Path) -> tuple[Path, str]:
    name = str(name_or_path)
    path = Path(name)
    if name in bundled_recipes():
        path = Path(str(files("training") / "recipes" / f"{name}.toml"))
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(bundled_recipes())
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise RecipeInvalid(f"recipe {name}: {reason}; give a path to a TOML file or one of: {known}") from error


def _anchored(recipe: Recipe, folder: Path) -> Recipe:
    recipe = recipe.with_files(lambda path: folder / path.expanduser())
    updates: dict[str, Any] = {}
    if recipe.encoder.source == "folder":
        anchored = str(folder / Path(recipe.encoder.name).expanduser())
        updates["encoder"] = recipe.encoder.model_copy(update={"name": anchored})
        if "name" in recipe.tune.space.get("encoder", {}):
            updates["tune"] = _anchored_space(recipe.tune, folder)
    return recipe.model_copy(update=updates)


def with_paths(data: AnyData, change: Callable[[Path], Path]) -> AnyData:
    """`data` with the path of each file in it changed."""
    if isinstance(data, FileData):
        return data.model_copy(update={"path": change(data.path)})
    if isinstance(data, JoinedData):
        return data.model_copy(update={"sources": tuple(with_paths(source, change) for source in data.sources)})
    return data


def _anchored_space(tune: TuneSection, folder: Path) -> TuneSection:
    """Encoders that a study chooses between, where they are folders."""
    search = tune.space["encoder"]["name"]
    choices = tuple(str(folder / Path(str(choice)).expanduser()) for choice in search.choices or ())
    named = {"encoder": {**tune.space["encoder"], "name": search.model_copy(update={"choices": choices})}}
    return tune.model_copy(update={"space": {**tune.space, **named}})


def _sentence(error: ValidationError) -> str:
    """The first problem, as `field: what is wrong`, without the value: that may not be ours to print."""
    problem = error.errors(include_url=False, include_input=False)[0]
    # pydantic puts the discriminator's value into the location; the user wrote no such level.
    steps = [str(step) for step in problem["loc"] if step not in {"packaged", "file", "hub", "joined"}]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key; check its spelling"
    if problem["type"] == "missing":
        message = "is missing"
    return f"{'.'.join(steps)}: {message}" if steps else message
