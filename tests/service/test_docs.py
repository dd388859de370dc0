from pathlib import Path

from service.config import Settings
from service.docs import metrics_page, settings_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_settings_page_is_current() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: python -m service.docs"
    for name in Settings.model_fields:
        assert f"`SLIPWAY_{name.upper()}`" in page


def test_the_metrics_page_is_current() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == metrics_page(), "run: python -m service.docs"
