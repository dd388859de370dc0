"""training/quiet.py: what transformers prints, before, in between and after."""

import contextlib
import os

import pytest
import transformers

from training.quiet import quiet


def test_bars_and_reports_are_off_inside_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    with contextlib.suppress(RuntimeError), quiet():
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert not transformers.logging.is_progress_bar_enabled()
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        raise RuntimeError
    assert transformers.logging.get_verbosity() == verbosity
    assert transformers.logging.is_progress_bar_enabled() == bars


def test_bars_that_were_off_stay_off() -> None:
    with quiet():
        with quiet():
            pass
        assert not transformers.logging.is_progress_bar_enabled()
