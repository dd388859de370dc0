"""training/tune_report.py: the page of a study, whatever happened to its trials."""

import re
from dataclasses import replace
from pathlib import Path

from tests.training import tiny
from training.tune_report import TrialResult, Tuned, Value, best_so_far, render_study


def trial(number: int, state: str = "complete", quality: float | None = 0.8, **values: Value) -> TrialResult:
    curve = ((1.0, 0.7), (2.0, quality)) if quality else ()
    return TrialResult(number, state, dict(values), quality, None, 3.0, curve, "too <wild>" if state == "fail" else "")


def study(*trials: TrialResult) -> Tuned:
    done = [each for each in trials if each.quality is not None]
    best = max(done, key=lambda each: each.quality or 0)
    return Tuned(Path("runs"), "accuracy", "tpe", trials, (best.number,), best, Path("best.toml"))


def test_the_page_loads_nothing_and_shows_every_trial() -> None:
    page = render_study(
        tiny.recipe(),
        study(
            trial(0, rate=1e-5, schedule="linear"),
            trial(1, quality=0.9, rate=1e-3, schedule="cosine"),
            trial(2, "pruned", None, rate=1e-4, schedule="linear"),
            trial(3, "fail", None, rate=1e-4, schedule="linear"),
        ),
    )
    assert not re.search(r"(src|href)=|https?://|<script", page)
    assert "default-src 'none'" in page
    assert page.count('<th scope="row">') == 4
    assert "1 <b>best</b>" in page
    assert "too &lt;wild&gt;" in page
    assert "schedule: 0 = cosine, 1 = linear" in page
    assert "Quality against latency" not in page


def test_a_pruned_trial_is_never_the_best_so_far_and_means_have_intervals() -> None:
    ended = replace(trial(0, rate=1e-5), interval=(0.7, 0.9))
    done = trial(2, quality=0.7, rate=1e-3)
    tuned = replace(study(ended, trial(1, "pruned", 0.95, rate=1e-4), done), best=ended, front=(0,), folds=3)
    assert best_so_far(tuned) == [(0, 0.8), (2, 0.8)]
    page = render_study(tiny.recipe(), tuned)
    assert "0.8 (0.700 to 0.900)" in page
    assert "mean of 3 folds" in page


def test_a_single_trial_has_a_page_too() -> None:
    page = render_study(tiny.recipe(), study(trial(0, rate=1e-5)))
    assert "not measured" in page.split("What each value did")[1].split("</section>")[0]
