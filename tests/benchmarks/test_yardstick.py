import os
from pathlib import Path

import pytest

from artifact.repository import Repository
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick, newest_checkpoint, what_is_not_fused
from tests.tiny_artifact import publish_tiny


def test_a_fused_graph_has_attention_and_two_norms_a_layer() -> None:
    assert what_is_not_fused({"Attention": 6, "SkipLayerNormalization": 12}) is None
    assert "no Attention" in str(what_is_not_fused({"MatMul": 36}))
    assert "0 SkipLayerNormalization nodes for 6" in str(what_is_not_fused({"Attention": 6}))


def test_a_graph_that_is_no_encoder_makes_no_yardstick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where `make run` trained there are runs to make one from
    publish_tiny(tmp_path)
    artifact = Repository(tmp_path).open("sentiment")
    with pytest.raises(BenchmarkError, match=r"optimizer fails|no Attention"):
        build_yardstick(artifact, tmp_path / "cache")


def test_the_newest_fine_tuned_model_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for age, run in enumerate(("first", "second")):
        folder = tmp_path / run / "fine-tune" / "model"
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "config.json"):
            (folder / name).write_bytes(b"")
        os.utime(folder / "model.safetensors", (age, age))
    (tmp_path / "first" / "fine-tune" / "half").mkdir()
    (tmp_path / "first" / "fine-tune" / "half" / "model.safetensors").write_bytes(b"")
    assert newest_checkpoint(tmp_path) == tmp_path / "second" / "fine-tune" / "model"
