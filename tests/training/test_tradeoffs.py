"""The table and the page: every candidate is there, and nothing reads as measured that was not."""

from artifact.manifest import Estimate
from tests.training.test_pareto import ALL, UNBUILT
from training.pareto import Confirmed, Outcome, front
from training.tradeoffs import HEADINGS, refusals, render_page, rows, sentence

OUTCOME = Outcome(measured=(*ALL, UNBUILT), front=front(ALL))
CONFIRMED = Confirmed(rows=990, accuracy_difference=Estimate(value=-0.001, low=-0.004, high=0.002), agreement=0.99)
FOUND = OUTCOME.model_copy(update={"target": "3 x smaller", "found": "quick", "test": CONFIRMED})


def test_a_row_has_a_cell_for_every_heading() -> None:
    found = rows(OUTCOME)
    assert [len(row) for row in found] == [len(HEADINGS)] * len(OUTCOME.measured)
    assert found[1][:3] == ["small", "0 kB", "3.00 x"]
    assert found[-1][1] == "not measured"
    assert [row[-1] for row in found] == ["passes *"] * 4 + ["refused", "passes", "refused"]


def test_no_loss_is_not_a_negative_one() -> None:
    assert rows(OUTCOME)[0][6].startswith("0.0 (")


def test_refusals_say_why() -> None:
    assert refusals(OUTCOME) == ["drifts: labels flipped", "unbuilt: could not be built"]


def test_the_sentence_names_what_was_found_and_what_test_says() -> None:
    assert sentence(OUTCOME) == ""
    assert sentence(FOUND) == (
        "quick is 3 x smaller; on 990 test rows it loses 0.1 points (-0.2 to 0.4), 99.0% of the labels equal"
    )


def test_the_page_loads_nothing_and_escapes_names() -> None:
    nasty = OUTCOME.model_copy(update={"measured": (ALL[0].model_copy(update={"name": "<script>"}),)})
    page = render_page("<b>model", nasty, "a CPU")
    assert "<script>" not in page
    assert "<b>model" not in page
    assert "default-src 'none'" in page


def test_the_page_draws_every_measured_candidate_three_times() -> None:
    page = render_page("model", FOUND, "")
    assert page.count("<circle") == 3 * len(ALL)
    assert "quick is 3 x smaller" in page
    assert "an unknown CPU" in page
