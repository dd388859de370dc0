"""Small real things: an encoder of a few thousand weights in the hub's layout, and reviews it can learn from."""

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from training.data import Row, Table
from training.prepare import Prepared, Split
from training.recipe import Recipe, load_recipe, parse_recipe
from training.sources import EncoderFolder

GOOD = ("superb", "moving", "witty", "graceful", "radiant", "tender", "gripping", "delightful")
BAD = ("dull", "clumsy", "tedious", "shallow", "stale", "grating", "lifeless", "muddled")
_PLAIN = (
    "the film a story its actors this director scene music plot and with of ending is in an hour camera dialogue "
    "script cast city war family summer night river house train garden letter winter road island dream"
)
PLAIN = tuple(_PLAIN.split())
MAX_TOKENS = 64
_RECIPE = """
name = "tiny"
task = "text-classification"
labels = ["negative", "positive"]
[data]
source = "file"
path = "reviews.csv"
[encoder]
source = "folder"
name = "encoder"
[split]
train = 0.7
validation = 0.15
test = 0.15
[training]
epochs = 8
learning_rate = 5e-3
batch_size = 16
precision = "fp32"
"""


def encoder_folder(folder: Path, *, layers: int = 2) -> EncoderFolder:
    """A random BERT with a WordPiece tokenizer that knows the words above, and letters for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN, ".", *letters]
    words += [f"##{letter}" for letter in letters]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    _save_tokenizer(folder, vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=MAX_TOKENS,
        )
        transformers.BertModel(config).save_pretrained(folder)
    return EncoderFolder(folder, "tiny", "MIT", "made for a test")


def _save_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    # As the sentence encoders on the hub are saved: with a cut and a padding that must not survive.
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    transformers.BertTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def review(label: int, words: random.Random) -> str:
    """A made-up review of some ten words, one or two of which give its label away."""
    telling = words.sample(GOOD if label else BAD, k=words.randint(1, 2))
    rest = [words.choice(PLAIN) for _ in range(words.randint(5, 12))]
    mixed = telling + rest
    words.shuffle(mixed)
    return " ".join(mixed)


def table(rows: int = 300, *, seed: int = 5) -> Table:
    """Balanced labelled reviews with ratings."""
    words = random.Random(seed)
    made = [
        Row(review(index % 2, words), index % 2, rating=words.uniform(0.5, 4) * (1 if index % 2 else -1))
        for index in range(rows)
    ]
    return Table("tiny reviews", "MIT", "made for a test", tuple(made))


def recipe(**changes: object) -> Recipe:
    """A recipe for the above; `training__epochs=2` changes `[training] epochs`."""
    values: dict[str, object] = {
        "name": "tiny",
        "task": "text-classification",
        "labels": ["negative", "positive"],
        "data": {"source": "file", "path": "reviews.csv"},
        "encoder": {"source": "folder", "name": "encoder"},
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "training": {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16, "precision": "fp32"},
    }
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        target = values.setdefault(section, {}) if section else values
        assert isinstance(target, dict)
        target[field] = value
    return parse_recipe(values)


def from_sources(prepared: Prepared, name: Callable[[int, str, int], str]) -> Prepared:
    """The rows to learn from as if they came from where `name` says of each row's number, text and label."""

    def named(split: Split) -> Split:
        rows = zip(split.texts, split.labels.tolist(), strict=True)
        return replace(split, sources=tuple(name(row, text, label) for row, (text, label) in enumerate(rows)))

    return replace(prepared, train=named(prepared.train), validation=named(prepared.validation))


def lines(*cells: Sequence[str], separator: str = ",") -> str:
    """Rows of a small table as text."""
    return "".join(separator.join(row) + "\n" for row in cells)


def project(home: Path) -> None:
    """A recipe, its table of 300 reviews and its encoder, as a person would lay them out in `home`."""
    encoder_folder(home / "encoder")
    (home / "recipe.toml").write_text(_RECIPE)
    words = random.Random(5)
    with (home / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([review(row % 2, words), ("negative", "positive")[row % 2]] for row in range(300))


def searching(home: Path, space: dict[str, Any], **section: Any) -> Recipe:
    """The recipe in `home` with a `[tune]` section: `space` is that of `[training]`."""
    recipe = load_recipe(home / "recipe.toml")
    values = recipe.model_dump(exclude_unset=True) | {"tune": {"space": {"training": space}, **section}}
    return Recipe.model_validate(values)
