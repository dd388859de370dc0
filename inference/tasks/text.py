"""Text normalisation shared by training and serving, so that both feed the tokenizer the same characters."""

import json
import unicodedata
from typing import Final

from tokenizers import Tokenizer
from tokenizers.models import Unigram

NO_TOKEN: Final = -1


def normalize_text(text: str) -> str:
    """Compose Unicode (NFC, UAX #15) and fold every run of white space into one space; ends are stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def unknown_token_id(tokenizer: Tokenizer) -> int:
    """The id for text outside the vocabulary; NO_TOKEN for byte-level vocabularies, which cover all text."""
    if isinstance(tokenizer.model, Unigram):
        unknown = json.loads(tokenizer.to_str())["model"].get("unk_id")
        return NO_TOKEN if unknown is None else int(unknown)
    # Asked of the object: the JSON of a vocabulary, parsed, takes more memory than the tokenizer.
    name = getattr(tokenizer.model, "unk_token", None)
    found = tokenizer.token_to_id(name) if name else None
    return NO_TOKEN if found is None else found
