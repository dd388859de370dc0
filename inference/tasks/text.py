"""Text normalisation shared by training and serving, so that both feed the tokenizer the same characters."""

import unicodedata


def normalize_text(text: str) -> str:
    """Compose Unicode (NFC, UAX #15) and fold every run of white space into one space; ends are stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())
