"""The branch of the error tree that `slipway train` can meet.

SlipwayError                 (artifact/errors.py)
└── TrainingError
    ├── RecipeInvalid        exit 2  the recipe cannot be read, or asks for something impossible
    ├── SourceUnavailable    exit 1  data or an encoder is neither cached nor to be fetched; says what to put where
    ├── DataInvalid          exit 1  the data cannot be trained on; names the column or the row, never the text
    ├── EvaluationInvalid    exit 2  what was asked to be measured cannot be: an unknown column, a bad condition
    ├── FineTuneFailed       exit 1  training went wrong: the loss is not a number, the disk is full
    ├── TargetMissed         exit 1  no smaller model reaches what was asked of `slipway compress`
    └── GateRefused          exit 3  the release gate refused the model; nothing was published
"""

from artifact.errors import SlipwayError


class TrainingError(SlipwayError):
    """A model cannot be made from what was asked."""

    code = "training_error"


class RecipeInvalid(TrainingError):
    """The recipe cannot be read, or asks for something impossible. The message names the field."""

    code = "recipe_invalid"
    exit_status = 2


class SourceUnavailable(TrainingError):
    """Data or an encoder is not in the cache and cannot be fetched. The message says what to put where."""

    code = "source_unavailable"


class DataInvalid(TrainingError):
    """The data cannot be trained on. The message names the column or the row, never the text itself."""

    code = "data_invalid"


class EvaluationInvalid(TrainingError):
    """What was asked to be measured cannot be. The message names the option or the field."""

    code = "evaluation_invalid"
    exit_status = 2


class FineTuneFailed(TrainingError):
    """Training itself went wrong."""

    code = "fine_tune_failed"


class TargetMissed(TrainingError):
    """No candidate reaches the size, speed and accuracy that `slipway compress` was asked for."""

    code = "target_missed"


class GateRefused(TrainingError):
    """The release gate refused the model, and nothing was published."""

    code = "gate_refused"
    exit_status = 3
