import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from artifact.repository import Artifact, Repository
from benchmarks.limit import (
    Layout,
    Reference,
    Sample,
    best,
    choose_variant,
    computes_in,
    grid,
    main,
    measure_grid,
    print_grid,
    whole_task,
)
from benchmarks.share import Share
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.tasks.registry import open_task
from tests.tiny_artifact import publish_tiny

TEXTS = ["a good film", "bad", "the film is very good and warm and funny", "a mess"] * 3


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    publish_tiny(tmp_path / "models")
    return Repository(tmp_path / "models").open("sentiment")


@pytest.fixture
def reference(artifact: Artifact) -> Reference:
    return Reference.of(artifact, artifact.manifest.variants[0])


def test_the_grid_uses_all_cores_in_every_way() -> None:
    points = grid(4, batches=(1, 8))
    assert {(point.workers, point.threads) for point in points} == {(1, 4), (2, 2), (4, 1)}
    assert {point.batch for point in points} == {1, 8}
    assert Layout(4, 1, False, 8) in points
    assert Layout(1, 4, False, 8) not in points
    assert len(grid(2, quick=True)) < len(grid(2))


def test_the_best_layout_has_the_greatest_median() -> None:
    def at(*rates: float) -> list[Sample]:
        return [Sample(int(rate), 0, 1.0, 0.0) for rate in rates]

    steady, lucky = Layout(1, 1, True, 1), Layout(2, 1, True, 1)
    assert best({steady: at(10, 11, 12), lucky: at(5, 6, 90)}) == steady


def test_every_line_of_the_grid_says_its_share_of_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    samples = {Layout(2, 1, True, size): [Sample(rate, 0, 1.0, 0.0)] for size, rate in ((1, 100), (8, 400))}
    print_grid("The limit", samples, Share(0.05, 100.0))
    *_, slow, fast = capsys.readouterr().out.splitlines()
    assert "5 % of peak" in slow
    assert fast.endswith("20 % of peak  <- the limit")


def test_batches_are_neighbours_in_length(reference: Reference) -> None:
    batches = reference.batches(TEXTS, 5)
    lengths = [[reference.count_tokens(text) for text in batch] for batch in batches]
    assert [len(batch) for batch in batches] == [5, 5, 2]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize("layout", grid(2, batches=(1, 4)))
def test_a_run_is_whole_passes_over_the_texts(reference: Reference, layout: Layout) -> None:
    sample = reference.run(TEXTS, layout, seconds=0.01)
    assert sample.texts % len(TEXTS) == 0
    assert sample.texts > 0
    passes = sample.texts // len(TEXTS)
    assert sample.tokens == passes * sum(reference.count_tokens(text) for text in TEXTS)
    assert sample.rate > 0


def test_every_layout_is_measured_in_turns(reference: Reference) -> None:
    layouts = grid(2, batches=(2,))
    samples = measure_grid(reference, TEXTS, layouts, seconds=0, rounds=2)
    assert list(samples) == layouts
    assert all(len(found) == 2 for found in samples.values())


def test_a_lone_text_and_a_padded_body_are_timed(reference: Reference) -> None:
    assert reference.engine == "onnxruntime"
    assert reference.batch1_ms(TEXTS, 1, seconds=0.01) > 0
    sample = reference.padded_batch([TEXTS[:4], TEXTS[4:8]], Layout(2, 1, True, 4), seconds=0.01)
    assert sample.texts % 4 == 0
    assert sample.rate > 0


def test_every_layout_runs_on_the_engine_that_was_asked_for(artifact: Artifact) -> None:
    pytest.importorskip("openvino")
    reference = Reference.of(artifact, artifact.manifest.variants[0], "openvino")
    assert reference.engine == "openvino"
    for layout in (Layout(2, 1, True, 4), Layout(2, 1, False, 4), Layout(1, 2, True, 4)):
        assert reference.run(TEXTS, layout, seconds=0).texts == len(TEXTS)


def test_a_session_is_shared_by_as_many_workers_as_it_was_opened_for(artifact: Artifact) -> None:
    opened: list[tuple[int, int]] = []

    def opener(workers: int, threads: int) -> Backend:
        opened.append((workers, threads))
        return open_backend(artifact, artifact.manifest.variants[0], workers=workers, threads=threads)

    reference = Reference("counted", open_task(artifact), opener)
    for layout in (Layout(2, 1, True, 4), Layout(2, 1, True, 8), Layout(2, 1, False, 4), Layout(1, 2, True, 4)):
        reference.run(TEXTS, layout, seconds=0)
    assert opened == [(2, 1), (1, 1), (1, 1), (1, 2)]


def test_bfloat16_is_compared_with_its_own_peak(artifact: Artifact) -> None:
    variant = artifact.manifest.variants[0]
    assert computes_in(variant, "openvino-bf16") == "bf16"
    assert computes_in(variant, "openvino") == computes_in(variant, None) == "fp32"


def test_variants_are_chosen_by_name(artifact: Artifact) -> None:
    assert choose_variant(artifact, None).name == "fp32"
    with pytest.raises(SystemExit, match="the artifact has fp32"):
        choose_variant(artifact, "int3")


def test_the_program_ends_with_one_json_document(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["--repository", str(tmp_path / "models"), "--texts", str(tmp_path / "texts.txt")]
    assert main([*words, "--seconds", "0", "--rounds", "1", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "<- the limit" in printed
    found = json.loads(printed.splitlines()[-1])
    assert found["limit"]["fp32"]["short"]["grid"][0]["samples"]


def test_others_read_a_long_text_as_one_row(tmp_path: Path) -> None:
    publish_tiny(tmp_path / "models", window_tokens=8)
    artifact = Repository(tmp_path / "models").open("sentiment")
    rows: list[int] = []

    class Counting:
        engine = "counting"

        def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            rows.append(len(inputs["input_ids"]))
            return {}

    reference = Reference("counted", open_task(artifact), lambda *_: Counting(), whole_task(artifact))
    bodies = [["the film is very good and warm and funny", "bad"]]
    served = reference.infer(Counting(), bodies[0])
    whole = reference.padded_batch(bodies, Layout(1, 1, True, 2), seconds=0.0)
    assert rows[:2] == [3, 2]
    assert whole.tokens == served
