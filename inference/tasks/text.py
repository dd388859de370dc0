"""Text normalisation shared by training and serving, so that both feed the tokenizer the same characters."""

import json
import unicodedata
from typing import Final

from tokenizers import Tokenizer

NO_TOKEN: Final = -1


def normalize_text(text: str) -> str:
    """Compose Unicode (NFC, UAX #15) and fold every run of white space into one space; ends are stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def unknown_token_id(tokenizer: Tokenizer) -> int:
    """The id for text outside the vocabulary; NO_TOKEN for byte-level vocabularies, which cover all text."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:  # Unigram
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return NO_TOKEN if found is None else found
