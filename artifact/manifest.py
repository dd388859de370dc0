"""What training promises and serving relies on: the typed contents of `manifest.json`.

Fields may be added with a default at any time; `format_version` changes only when an old reader would go wrong.
Readers accept this version and the one before it, and ignore fields they do not know.
"""

from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT_VERSION: Final = 2
READABLE_FORMAT_VERSIONS: Final = (FORMAT_VERSION - 1, FORMAT_VERSION)
MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.json"
_ROUNDING: Final = 1e-6
MODEL_NAME: Final = r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"


def _inside(name: str) -> str:
    """Refuse any file name that could lead out of the artifact, on POSIX or Windows."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"file name {name!a} is absolute or leaves the artifact")
    if not name.isprintable():  # NUL, line breaks, and bytes that were not UTF-8
        raise ValueError(f"file name {name!a} has characters that cannot be shown")
    if path.as_posix() != name or name in (MANIFEST, "."):
        raise ValueError(f"file name {name!a} is not in its plain form or names the manifest itself")
    return name


ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME)]
FileName = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorSpec(_Part):
    """One input or output of the graph. A dynamic axis is a name (`batch`, `sequence`), a fixed one a number."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class FileRecord(_Part):
    """What a file must hash and measure to be trusted."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Limits(_Part):
    """What one input may be. With windows that is more than the graph takes in one row."""

    max_input_tokens: int = Field(ge=1)


# Cleaning steps, by their names in inference/tasks/transforms.py.
TransformName = Literal["unicode", "html", "whitespace", "urls", "pii", "lowercase", "stop_words"]


class TextPreprocessing(_Part):
    """How text becomes token ids. `normalization` names what is done to the characters before the tokenizer.

    `nfc-whitespace` is a function in `inference/tasks/text.py`; `transforms` is that function around the named steps,
    in order. A reader that does not know the steps does not know that value either, and refuses the artifact instead
    of answering about another text than the model was trained on.

    A text of more than `window_tokens` tokens, special ones included, is read in windows, and its answer is the softmax
    of the mean of their logits (`inference/tasks/windows.py` says where they lie). Readers of `format_version` 1 know
    no windows.
    """

    tokenizer: FileName = "tokenizer.json"
    normalization: Literal["nfc-whitespace", "transforms"] = "nfc-whitespace"
    transforms: tuple[TransformName, ...] = ()
    stop_words: tuple[str, ...] = ()
    pad_token_id: int = 0
    pad_token_type_id: int = 0
    window_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _says_whether_there_are_steps(self) -> Self:
        if (self.normalization == "transforms") != bool(self.transforms):
            raise ValueError("normalization is 'transforms' exactly where transforms are named")
        return self


class Variant(_Part):
    """One form of this version at one precision and format.

    `data` holds the weights of a graph that keeps them beside its file, so that they can be mapped into memory.
    """

    name: str
    file: FileName
    data: FileName | None = None
    format: Literal["onnx", "torchscript"]
    precision: Literal["fp32", "bf16", "fp16", "int8"]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything an engine reads to load this variant."""
        return (self.file,) if self.data is None else (self.file, self.data)


class Estimate(_Part):
    """A measured figure with its 95% interval: bootstrap for metrics, Wilson's for a plain proportion."""

    value: float
    low: float
    high: float


class CheckResult(_Part):
    """One floor of the gate: what was required, what was measured, whether it held."""

    name: str
    passed: bool
    measured: float
    required: str


class VariantResult(_Part):
    """The gate's verdict on one variant. A refused variant stays here, with its reason, though its file is gone."""

    name: str
    published: bool
    reason: str = ""
    bytes: int = 0
    checks: tuple[CheckResult, ...] = ()
    metrics: dict[str, Estimate] = {}
    max_score_difference: float = 0.0
    mean_score_difference: float = 0.0
    label_agreement: float = 0.0
    neighbour_max_score_difference: float = 0.0
    neighbour_label_flips: int = 0
    accuracy_difference: Estimate | None = None
    speed: tuple[dict[str, float], ...] = ()


class GateResult(_Part):
    """What the release gate measured, on which machine, over how many test rows."""

    passed: bool
    test_rows: int
    cpu: str = ""
    reference_metrics: dict[str, Estimate] = {}
    baseline_metrics: dict[str, Estimate] = {}
    confusion_matrix: tuple[tuple[int, ...], ...] = ()
    variants: tuple[VariantResult, ...] = ()


class Uncut(_Part):
    """A model made smaller: its accuracy on the test split minus that of the one it was made from, in fp32."""

    rows: int
    accuracy_difference: Estimate
    agreement: float = Field(ge=0, le=1, description="Share of rows with the same label.")


ExploredLevel = Literal["stop", "warn", "note", "good"]


class Explored(_Part):
    """One thing that `slipway explore` found in the rows the model was trained on; `stop` is the worst level."""

    topic: str
    level: ExploredLevel
    found: str


class FoldsResult(_Part):
    """What `slipway evaluate RECIPE --folds` found with the same recipe: models asked about rows they had not seen.

    Each metric is the mean over the models: in folds with its 95% interval, by source with the lowest and the highest.
    """

    by: Literal["fold", "source"]
    models: int = Field(ge=1)
    rows: int = Field(ge=1, description="Rows that were held out, by all models together.")
    metrics: dict[str, Estimate]


class Provenance(_Part):
    """Where the model came from, in enough detail to repeat it.

    The digests are SHA-256 of what training read and wrote: the encoder's files, and the weights before any export.
    Artifacts of before these were recorded have them empty.
    """

    created: datetime
    recipe: dict[str, Any]
    data_fingerprint: str
    data_name: str = ""
    rows: dict[str, int] = {}
    transformed: dict[str, int] = Field({}, description="Rows each cleaning step changed.")
    masked: dict[str, int] = Field({}, description="Personal data masked, by kind.")
    explored: tuple[Explored, ...] = Field((), description="What `slipway explore` found; empty where it was not run.")
    folds: tuple[FoldsResult, ...] = Field((), description="Cross-validation; empty where none was run.")
    seed: int
    libraries: dict[str, str] = {}
    git_commit: str = ""
    platform: str = ""
    encoder_digest: str = ""
    weights_digest: str = ""
    precision: str = Field("", description="Arithmetic that was trained in, where the recipe says auto.")
    threads: int = Field(0, ge=0, description="Threads that torch computed with: sums depend on their number.")
    compressed: str = Field("", description="Steps of `slipway compress` that the model and a variant went through.")
    uncut: Uncut | None = Field(None, description="What those steps cost, where that was measured.")


class Binned(_Part):
    """A distribution: `shares[i]` is that of (`edges[i - 1]`, `edges[i]]`; the first and last bin are open."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("shares must be one more than edges")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must rise")
        check_shares(self.shares)
        return self


class Reference(_Part):
    """What inputs and predictions looked like on held-out rows, for the drift of live traffic to be measured against.

    Scores are those of the winning label; `unknown_tokens` bins the share of unknown tokens in one input.
    """

    rows: int = Field(ge=1)
    split: str = "test"
    input_tokens: Binned
    unknown_tokens: Binned
    unknown_token_share: float = Field(ge=0, le=1, description="Of all tokens of all rows.")
    label_shares: tuple[float, ...] = Field(description="How often each label was predicted, in label order.")
    scores: Binned

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_shares(self.label_shares)
        return self


class SliceResult(_Part):
    """Accuracy on the rows of one slice, and how far it lies from that on all the other rows."""

    by: str = Field(description="What cut the slice: length, expression, or the name of a column.")
    name: str
    rows: int = Field(ge=1)
    accuracy: Estimate
    difference: Estimate | None = Field(None, description="Minus accuracy elsewhere; absent where no row is left.")


class TermPair(_Part):
    """Two terms in the same sentence that moved a score the most: that of `label`, to `scores` in term order."""

    template: str
    terms: tuple[str, str]
    label: str
    scores: tuple[float, float]


class BiasResult(_Part):
    """How far scores move when one term of a group takes the place of another in a sentence that judges nothing."""

    group: str
    terms: int
    texts: int
    pairs: int
    mean_movement: float
    max_movement: float
    label_flips: int = Field(description="Pairs whose labels differ.")
    worst: TermPair


class PerturbationResult(_Part):
    """Held-out rows before and after a change that leaves their meaning; rows the change leaves as they are not."""

    name: str
    rows: int = Field(ge=1)
    accuracy_before: Estimate
    accuracy_after: Estimate
    difference: Estimate
    flip_rate: Estimate = Field(description="Share of rows that got another label.")


class CalibrationResult(_Part):
    """What the temperature did to scores. `before` and `after` hold log loss and calibration error."""

    temperature: float | None = Field(None, description="The one in the artifact's weights; None: not recorded.")
    best_temperature: float = Field(description="What these rows would still ask for: 1 is perfect.")
    before: dict[str, Estimate] = {}
    after: dict[str, Estimate]


class Assessment(_Part):
    """What one variant is worth beyond its averages: where, for whom and under what changes."""

    variant: str
    data: str
    rows: int = Field(ge=1)
    seed: int = 0
    metrics: dict[str, Estimate]
    slices: tuple[SliceResult, ...] = ()
    worst_slice: SliceResult | None = None
    elsewhere: tuple[SliceResult, ...] = Field((), description="Out of domain: data of other kinds, never learned.")
    bias: tuple[BiasResult, ...] = ()
    robustness: tuple[PerturbationResult, ...] = ()
    calibration: CalibrationResult


def check_shares(shares: tuple[float, ...]) -> None:
    """Raises ValueError for what is no distribution."""
    if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > _ROUNDING:
        raise ValueError("shares must be between 0 and 1 and add up to 1")


class Manifest(_Part):
    """One published model version. Optional additions keep `format_version`.

    A draft, as handed to `artifact.publish.publish`, may leave `files` empty; a published manifest never does.
    """

    format_version: int = FORMAT_VERSION
    name: ModelName
    version: int = Field(ge=1)
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    limits: Limits
    preprocessing: TextPreprocessing = TextPreprocessing()
    variants: tuple[Variant, ...] = Field(min_length=1)
    length_quantiles: dict[str, int] = Field({}, description="Tokens per input in the training data, by quantile.")
    reference: Reference | None = None
    assessment: Assessment | None = None
    files: dict[FileName, FileRecord] = {}
    provenance: Provenance
    gate: GateResult

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, data: object) -> object:
        # Before the fields: a later format may lack or retype any of them, and that must not be the complaint.
        version = data.get("format_version", FORMAT_VERSION) if isinstance(data, dict) else FORMAT_VERSION
        if version not in READABLE_FORMAT_VERSIONS:
            known = " and ".join(map(str, READABLE_FORMAT_VERSIONS))
            raise ValueError(f"written in another format_version; this Slipway reads {known}")
        return data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needed = {name for variant in self.variants for name in variant.files}
        needed |= {GOLDEN, self.preprocessing.tokenizer}
        if self.files and (missing := sorted(needed - self.files.keys())):
            raise ValueError(f"files lists no {', '.join(missing)}")
        if len({variant.name for variant in self.variants}) != len(self.variants):
            raise ValueError("two variants share a name")
        if self.reference is not None and len(self.reference.label_shares) != len(self.labels):
            raise ValueError("reference has label_shares for another number of labels")
        return self

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row the graph is ever given, special ones included: a window, or a whole text."""
        return self.preprocessing.window_tokens or self.limits.max_input_tokens

    def variant(self, name: str) -> Variant | None:
        """The variant called `name`, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)


class GoldenInput(_Part):
    """An input whose answer is known: `scores` in label order, as the published fp32 variant gave them."""

    input: str
    label: str
    scores: tuple[float, ...]


class Golden(_Part):
    """The contents of `golden.json`: what a loaded model must reproduce on its own CPU before it is ready."""

    inputs: tuple[GoldenInput, ...] = Field(min_length=1)
    tolerance: dict[str, float] = Field(description="Largest score difference allowed, by variant name.")
