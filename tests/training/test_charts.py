"""The charts are well-formed SVG, scaled to their data, and carry no colour of their own."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.charts import Axes, Series, bar_chart, interval, line_chart, ticks


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{markup}</div>")


@given(
    low=st.floats(-1e6, 1e6, allow_nan=False),
    width=st.floats(1e-3, 1e6, allow_nan=False),
)
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-6 * width <= at <= low + width + 1e-6 * width for at in found)
    assert found == sorted(set(found))


def test_ticks_of_a_point_are_the_point() -> None:
    assert ticks(3.0, 3.0) == [3.0]


def test_a_line_chart_draws_every_series_inside_its_frame() -> None:
    chart = parsed(
        line_chart(
            "Loss & more",
            Axes("step", "loss"),
            [Series("train <b>", [(0, 0.7), (10, 0.2)], "c0"), Series("validation", [(5, 0.4)], "c1", marks=True)],
            diagonal=True,
        )
    )
    lines = [line for line in chart.iter("polyline") if line.get("class") in {"c0", "c1"}]
    assert len(lines) == 2
    places = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points", "").split()]
    assert all(0 <= x <= 340 and 0 <= y <= 230 for x, y in places)
    assert places[0][1] < places[1][1], "a smaller loss is drawn lower"
    assert [key.text for key in chart.iter("title")] == ["validation: 0.4 at 5"]
    assert "train <b>" in "".join(chart.itertext()), "a name is text, never markup"


def test_a_logarithmic_axis_spaces_powers_of_two_evenly() -> None:
    points = [(1.0, 1.0), (8.0, 2.0), (64.0, 3.0)]
    chart = parsed(line_chart("Speed", Axes("batch", "speed", x_log=True), [Series("fp32", points, marks=True)]))
    xs = [float(circle.get("cx", "")) for circle in chart.iter("circle")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_charts_without_data_say_so() -> None:
    assert "not measured" in line_chart("Loss", Axes("step", "loss"), [Series("train", [])])
    assert "not measured" in bar_chart("Lengths", Axes("tokens", "texts"), [])


def test_bars_are_as_high_as_their_counts() -> None:
    chart = parsed(bar_chart("Lengths", Axes("tokens", "texts"), [(0, 10, 4), (10, 20, 8)]))
    low, high = (float(bar.get("height", "")) for bar in chart.iter("rect"))
    assert high == pytest.approx(2 * low, rel=0.01)


def test_an_interval_stays_inside_its_cell_whatever_it_is_given() -> None:
    cell = parsed(interval(0.9, 0.8, 1.2, (0.5, 1.0)))
    xs = [float(line.get(side, "")) for line in cell.iter("line") for side in ("x1", "x2")]
    assert all(0 <= x <= 180 for x in xs)
    assert not any(math.isnan(x) for x in xs)
    assert "nan" not in interval(0.5, 0.5, 0.5, (0.5, 0.5))


def test_no_chart_carries_a_colour() -> None:
    chart = line_chart("Loss", Axes("step", "loss"), [Series("train", [(0, 1), (1, 0)])])
    assert "#" not in chart
    assert "rgb" not in chart
