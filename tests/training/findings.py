"""Made-up findings for the report and the model card: every figure present, one variant refused."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from artifact.manifest import (
    GOLDEN,
    Assessment,
    BiasResult,
    CalibrationResult,
    CheckResult,
    Estimate,
    Explored,
    FileRecord,
    GateResult,
    Limits,
    Manifest,
    PerturbationResult,
    Provenance,
    SliceResult,
    TensorSpec,
    TermPair,
    Variant,
    VariantResult,
)
from tests.training import tiny
from training.evaluate import evaluate
from training.finetune import CurvePoint, FineTuned
from training.prepare import Prepared, Split
from training.report import Findings
from training.sources import EncoderFolder

REASON = "labels flipped in batches of 32: 17, required <= 0"
NASTY = 'rows <script>alert("&")</script>'


def findings(*, skill: float = 2.0, **changes: object) -> Findings:
    """Findings of a model whose scores lean `skill` towards the truth; the baseline's lean by 0.3."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 200)
    ours, baseline = (
        evaluate(_scores(random, labels, lean), labels, ("negative", "positive"), resamples=200)
        for lean in (skill, 0.3)
    )
    found = Findings(
        recipe=tiny.recipe(description="Good or bad?"),
        prepared=_prepared(),
        encoder=EncoderFolder(Path("encoder"), "tiny-encoder", "Apache-2.0", "a folder"),
        fine_tuned=_fine_tuned(),
        evaluation=ours,
        baseline=baseline,
        lengths=[5, 9, 9, 12, 40],
        manifest=_manifest(),
        notes=("model.onnx: not fused",),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def explored_findings(*explored: Explored) -> Findings:
    """The same of data that somebody explored."""
    manifest = _manifest()
    provenance = manifest.provenance.model_copy(update={"explored": explored})
    return findings(manifest=manifest.model_copy(update={"provenance": provenance}))


def _scores(random: np.random.Generator, labels: np.ndarray, lean: float) -> np.ndarray:
    positive = 1 / (1 + np.exp(-(random.normal(size=len(labels)) + lean * (2 * labels - 1))))
    return np.stack([1 - positive, positive], axis=1)


def _prepared() -> Prepared:
    split = Split(("a", "b"), np.array([0, 1]), None)
    return Prepared(
        name=NASTY,
        licence="MIT",
        origin="made for a test",
        labels=("negative", "positive"),
        train=split,
        validation=split,
        test=split,
        counts={"read": 12_345, "neutral": 3, "something_new": 1, "kept": 6},
        fingerprint="sha256:abc",
        balance_p_value=0.5,
    )


def _fine_tuned() -> FineTuned:
    return FineTuned(
        model_dir=Path("model"),
        encoder_name="tiny-encoder",
        precision="bf16",
        seconds=75.0,
        steps=100,
        best_step=80,
        resumed=True,
        curve=(
            CurvePoint(step=10, epoch=0.1, kind="train", loss=0.7, learning_rate=5e-5),
            CurvePoint(step=20, epoch=0.2, kind="train", loss=0.5, learning_rate=1e-5),
            CurvePoint(step=20, epoch=0.2, kind="validation", loss=0.6, accuracy=0.8),
        ),
        max_input_tokens=64,
        length_quantiles={"p50": 9, "p99": 40},
    )


def _manifest() -> Manifest:
    nothing = FileRecord(sha256="0" * 64, bytes=0)
    return Manifest(
        name="tiny",
        version=1,
        task="text-classification",
        inputs=(TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 2)),),
        labels=("negative", "positive"),
        limits=Limits(max_input_tokens=64),
        variants=(
            Variant(name="fp32", file="model.onnx", format="onnx", precision="fp32"),
            Variant(name="int8", file="model.int8.onnx", format="onnx", precision="int8"),
        ),
        files=dict.fromkeys(["model.onnx", "model.int8.onnx", "tokenizer.json", GOLDEN], nothing),
        provenance=Provenance(
            created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            recipe={"name": "</pre><script>"},
            data_fingerprint="sha256:abc",
            seed=13,
            libraries={"torch": "2.13.0"},
        ),
        gate=GateResult(
            passed=True,
            test_rows=200,
            cpu="a CPU (avx2)",
            variants=(
                VariantResult(
                    name="fp32",
                    published=True,
                    bytes=90_969_681,
                    checks=(CheckResult(name="labels equal to torch", passed=True, measured=1.0, required=">= 1"),),
                    metrics={"accuracy": Estimate(value=0.87, low=0.85, high=0.89)},
                    max_score_difference=6e-7,
                    label_agreement=1.0,
                    speed=(
                        {"batch_size": 1.0, "tokens": 8.0, "seconds": 0.002, "inputs_per_second": 500.0},
                        {"batch_size": 8.0, "tokens": 8.0, "seconds": 0.008, "inputs_per_second": 1000.0},
                    ),
                ),
                VariantResult(name="int8", published=False, reason=REASON),
            ),
        ),
    )


def assessment() -> Assessment:
    """Made-up figures, with a slice and a pair of terms that are clearly worse."""
    good, bad = Estimate(value=0.9, low=0.85, high=0.94), Estimate(value=0.61, low=0.5, high=0.71)
    apart = Estimate(value=-0.29, low=-0.4, high=-0.18)
    worst = SliceResult(by="genre", name="horror | <b>", rows=80, accuracy=bad, difference=apart)
    return Assessment(
        variant="fp32",
        data=NASTY,
        rows=200,
        metrics={"accuracy": good, "calibration_error": Estimate(value=0.04, low=0.03, high=0.06)},
        slices=(SliceResult(by="length", name="3 to 9 tokens", rows=120, accuracy=good), worst),
        worst_slice=worst,
        bias=(
            BiasResult(
                group="pets",
                terms=2,
                texts=2,
                pairs=1,
                mean_movement=0.2,
                max_movement=0.412,
                label_flips=1,
                worst=TermPair(template="About {term}.", terms=("cats", "dogs"), label="positive", scores=(0.7, 0.288)),
            ),
        ),
        robustness=(
            PerturbationResult(
                name="typos",
                rows=190,
                accuracy_before=good,
                accuracy_after=bad,
                difference=apart,
                flip_rate=Estimate(value=0.3, low=0.2, high=0.4),
            ),
        ),
        calibration=CalibrationResult(
            temperature=1.5,
            best_temperature=1.02,
            before={"calibration_error": Estimate(value=0.09, low=0.07, high=0.11)},
            after={"calibration_error": Estimate(value=0.04, low=0.03, high=0.06)},
        ),
    )
