"""What a manifest may say, and which manifests are read."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from artifact.manifest import (
    FORMAT_VERSION,
    Assessment,
    CalibrationResult,
    Estimate,
    FileName,
    FileRecord,
    Manifest,
    ModelName,
    SliceResult,
    TextPreprocessing,
    Variant,
)
from tests.artifact.build import draft

RECORD = FileRecord(sha256="0" * 64, bytes=1)
WHOLE = dict.fromkeys(("golden.json", "model.onnx", "tokenizer.json"), RECORD)
names = TypeAdapter(FileName)
models = TypeAdapter(ModelName)


def as_json(**changes: object) -> str:
    """A published manifest's text, with some fields changed."""
    return json.dumps(draft(files=WHOLE).model_dump(mode="json") | changes)


def test_a_manifest_survives_being_written_and_read() -> None:
    manifest = draft(files=WHOLE)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_fields_nobody_knows_are_ignored() -> None:
    assert Manifest.model_validate_json(as_json(colour="blue")) == draft(files=WHOLE)


def test_an_assessment_is_optional_and_survives() -> None:
    figure = Estimate(value=0.9, low=0.8, high=0.95)
    part = SliceResult(by="length", name="2 to 9 tokens", rows=3, accuracy=figure)
    assessment = Assessment(
        variant="fp32",
        data="rows",
        rows=3,
        metrics={"accuracy": figure},
        slices=(part,),
        worst_slice=part,
        calibration=CalibrationResult(best_temperature=1.0, after={"log_loss": figure}),
    )
    manifest = draft(files=WHOLE, assessment=assessment)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    # As published before there were any.
    old = draft(files=WHOLE).model_dump(mode="json")
    del old["assessment"]
    assert Manifest.model_validate_json(json.dumps(old)).assessment is None


@pytest.mark.parametrize("version", [FORMAT_VERSION, FORMAT_VERSION - 1])
def test_this_format_and_the_one_before_are_read(version: int) -> None:
    assert Manifest.model_validate_json(as_json(format_version=version)).format_version == version


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION - 2, "new", None, 1.5, [1]])
def test_any_other_format_is_refused(version: object) -> None:
    with pytest.raises(ValidationError, match="format_version"):
        Manifest.model_validate_json(as_json(format_version=version))


def test_a_later_format_is_what_is_complained_about_even_if_nothing_else_is_understood() -> None:
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate_json(json.dumps({"format_version": FORMAT_VERSION + 1, "variants": "elsewhere"}))
    assert [error["loc"] for error in caught.value.errors()] == [()]


@pytest.mark.parametrize("content", ["", "[]", "null", "7", '"text"', "{}", "{", "\ufeff{}", "[" * 100_000])
def test_what_is_no_manifest_is_refused(content: str) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(content)


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_every_file_a_reader_needs_must_be_hashed(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        draft(files={name: record for name, record in WHOLE.items() if name != missing})


def test_the_weights_beside_a_graph_must_be_hashed_too() -> None:
    variant = Variant(name="fp32", file="model.onnx", data="weights", format="onnx", precision="fp32")
    assert variant.files == ("model.onnx", "weights")
    with pytest.raises(ValidationError, match="weights"):
        draft(variants=(variant,), files=WHOLE)
    assert draft(variants=(variant,), files=WHOLE | {"weights": RECORD}).variants == (variant,)


def test_a_variant_from_before_there_were_weights_beside_it_is_one_file() -> None:
    content = json.loads(as_json())
    assert content["variants"][0].pop("data") is None
    assert Manifest.model_validate_json(json.dumps(content)).variants[0].files == ("model.onnx",)


def test_two_variants_of_one_name_are_refused() -> None:
    fp32 = Variant(name="fp32", file="model.onnx", format="onnx", precision="fp32")
    with pytest.raises(ValidationError, match="share a name"):
        draft(variants=(fp32, fp32))


def test_a_variant_is_found_by_name() -> None:
    manifest = draft()
    assert manifest.variant("fp32") is manifest.variants[0]
    assert manifest.variant("int8") is None


@pytest.mark.parametrize(
    "name", ["model.onnx", "onnx/model.onnx", "a..b", "..a", "ünïcode.json", "a b", ".hidden", "-"]
)
def test_plain_file_names_are_accepted(name: str) -> None:
    assert names.validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "//etc",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a/./b",
        "manifest.json",
    ],
)
def test_names_that_lead_out_or_are_not_plain_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="file name"):
        names.validate_python(name)


@pytest.mark.parametrize("name", ["a\\b", "..\\a", "C:\\a", "C:a", "a\0b", "a\nb", "\udcff.json", "a\u202eb"])
def test_so_are_names_that_another_system_would_read_differently(name: str) -> None:
    with pytest.raises(ValidationError, match="file name"):
        names.validate_python(name)


@given(st.text() | st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", ":", "\0"])).map("/".join))
def test_whatever_is_accepted_stays_inside(name: str) -> None:
    try:
        accepted = names.validate_python(name)
    except ValidationError:
        return
    path = PurePosixPath("root") / accepted
    assert path.parts == ("root", *accepted.split("/"))
    assert not {"..", ".", ""} & set(accepted.split("/"))


@given(st.text(max_size=70))
def test_a_model_name_is_one_plain_visible_folder(name: str) -> None:
    try:
        models.validate_python(name)
    except ValidationError:
        return
    assert name.isascii()
    assert 0 < len(name) <= 64
    assert not name.startswith(".")
    assert PurePosixPath(name).parts == (name,)


@pytest.mark.parametrize("name", ["Sentiment", "a/b", "..", ".a", "a.", "-a", "a\n", "", "é", "a" * 65])
def test_other_model_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        models.validate_python(name)


def test_a_manifest_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        draft().version = 2  # type: ignore[misc]


def test_cleaning_steps_are_named_with_their_own_normalization() -> None:
    steps = TextPreprocessing(normalization="transforms", transforms=("html", "pii"))
    assert TextPreprocessing.model_validate_json(steps.model_dump_json()) == steps
    # An older reader knows only nfc-whitespace: it must meet something that it refuses.
    with pytest.raises(ValidationError, match="exactly where transforms are named"):
        TextPreprocessing(transforms=("html",))
    with pytest.raises(ValidationError, match="exactly where transforms are named"):
        TextPreprocessing(normalization="transforms")
