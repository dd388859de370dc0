"""Reading a repository that nobody can be trusted to have left alone, and moving aliases in it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound
from artifact.manifest import FORMAT_VERSION
from artifact.repository import Repository, open_artifact
from tests.artifact.build import publish_toy, toy_repository

ROOT = Path(__file__).parents[2]


def rewrite(version: Path, **changes: object) -> None:
    """Change fields of a published manifest, as an attacker or a later Slipway would."""
    path = version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_the_digest_is_the_hash_of_the_manifest(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    expected = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert open_artifact(path).digest == f"sha256:{expected}"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def into_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "No such file"),
        (truncate, "17 bytes, the manifest promises 18"),
        (flip, "sha256 differs"),
        (into_folder, "not a plain file"),
        (into_pipe, "not a plain file"),
        (into_loop, "link"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    path, _ = publish_toy(tmp_path)
    damage(path / "model.onnx")
    with pytest.raises(ArtifactCorrupt, match=rf"model\.onnx: .*{reason}"):
        open_artifact(path)
    assert open_artifact(path, verify=False).manifest.version == 1


def test_a_file_that_is_not_in_the_manifest_is_no_part_of_the_artifact(tmp_path: Path) -> None:
    path, manifest = publish_toy(tmp_path)
    (path / "NOTES.txt").write_text("mine")
    assert open_artifact(path).manifest.files == manifest.files
    assert open_artifact(path).unlisted() == ["NOTES.txt"]


def test_a_link_that_leaves_the_artifact_is_refused_even_if_its_target_hashes_right(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path / "models")
    outside = shutil.move(path / "model.onnx", tmp_path / "model.onnx")
    (path / "model.onnx").symlink_to(outside)
    with pytest.raises(ArtifactCorrupt, match=r"model\.onnx: a link that leaves"):
        open_artifact(path)


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    (path / "model.onnx").rename(path / "blob")
    (path / "model.onnx").symlink_to("blob")
    open_artifact(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../2/model.onnx", "a\\b", "manifest.json", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path, _ = publish_toy(tmp_path)
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    rewrite(path, files=files | {name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json: files\."):
        open_artifact(path)


def test_a_manifest_without_hashes_is_refused(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    rewrite(path, files={})
    with pytest.raises(ArtifactCorrupt, match="files is empty"):
        open_artifact(path, verify=False)


def test_a_later_format_is_refused_and_a_later_field_is_not(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    rewrite(path, colour="blue")
    open_artifact(path)
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(ArtifactCorrupt, match="another format_version"):
        open_artifact(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 100_000])
def test_a_manifest_that_is_not_utf8_or_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path, _ = publish_toy(tmp_path)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json"):
        open_artifact(path)


def test_a_refusal_does_not_repeat_the_value_it_refuses(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    rewrite(path, task={"secret": "hunter2"})
    with pytest.raises(ArtifactCorrupt) as caught:
        open_artifact(path)
    assert "task" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_where_there_is_no_manifest_there_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ArtifactNotFound, match=r"no manifest\.json"):
            open_artifact(path)


def test_a_manifest_that_is_a_folder_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ArtifactCorrupt, match="directory"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"inputs": [], "tolerance": {}}'])
def test_golden_inputs_that_cannot_be_read_are_corrupt(tmp_path: Path, content: bytes | None) -> None:
    path, _ = publish_toy(tmp_path)
    opened = open_artifact(path)
    assert opened.golden().inputs[0].label == "positive"
    if content is None:
        (path / "golden.json").unlink()
    else:
        (path / "golden.json").write_bytes(content)
    with pytest.raises(ArtifactCorrupt, match=r"golden\.json"):
        opened.golden()


def test_a_folder_moved_to_another_name_is_refused(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    shutil.copytree(tmp_path / "toy" / "1", tmp_path / "toy" / "2")
    shutil.copytree(tmp_path / "toy" / "1", tmp_path / "other" / "1")
    for model, version in (("toy", 2), ("other", 1)):
        with pytest.raises(ArtifactCorrupt, match="another model or version"):
            repository.open(model, version)


def test_only_published_folders_with_a_plain_number_are_versions(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path, versions=2)
    for name in ("03", "0", "-4", "5.0", "6a", "٧", "１０", " 8", ".9", "1_1"):
        shutil.copytree(tmp_path / "toy" / "1", tmp_path / "toy" / name)
    (tmp_path / "toy" / "12").mkdir()  # half copied: its manifest has not arrived
    (tmp_path / "toy" / "13").write_text("a file")
    assert repository.versions("toy") == [1, 2]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    assert toy_repository(tmp_path, versions=11).resolve("toy", None) == 1
    Repository(tmp_path).remove_alias("toy", "production")
    assert Repository(tmp_path).resolve("toy") == 11


def test_models_are_the_folders_that_hold_a_version(tmp_path: Path) -> None:
    assert Repository(tmp_path / "absent").models() == []
    publish_toy(tmp_path, name="b.1")
    publish_toy(tmp_path, name="a")
    for stranger in ("Upper", ".staging-x", "lost+found"):
        shutil.copytree(tmp_path / "a", tmp_path / stranger)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert Repository(tmp_path).models() == ["a", "b.1"]


@pytest.mark.parametrize("model", ["..", "../toy", "/toy", "toy\n", "", "Toy", "toy/1", "."])
def test_a_name_that_is_no_model_name_finds_nothing(tmp_path: Path, model: str) -> None:
    with pytest.raises(ArtifactNotFound):
        toy_repository(tmp_path).open(model)


@pytest.mark.parametrize(("named", "number"), [(None, 1), (1, 1), (2, 2), ("2", 2), ("production", 1), ("canary", 2)])
def test_a_version_is_named_by_number_alias_or_nothing(tmp_path: Path, named: int | str | None, number: int) -> None:
    repository = toy_repository(tmp_path, versions=2)
    repository.set_alias("toy", "canary", 2)
    assert repository.resolve("toy", named) == number
    assert repository.open("toy", named).manifest.version == number


@pytest.mark.parametrize("named", [0, -1, 3, "3", "02", "٢", "9" * 5000, "staging", "", "stale"])
def test_a_version_that_is_not_there_is_not_found(tmp_path: Path, named: int | str) -> None:
    repository = toy_repository(tmp_path, versions=2)
    (tmp_path / "toy" / "aliases.json").write_text('{"stale": 9}')
    with pytest.raises(ArtifactNotFound):
        repository.resolve("toy", named)


def test_a_model_nobody_published_is_not_found(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    assert repository.versions("toy") == []
    assert repository.aliases("toy") == {}
    with pytest.raises(ArtifactNotFound, match="no model 'toy'"):
        repository.resolve("toy")
    with pytest.raises(ArtifactNotFound):
        repository.set_alias("toy", "canary", 1)
    with pytest.raises(ArtifactNotFound):
        repository.remove_alias("toy", "canary")


def test_an_alias_moves_and_goes(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path, versions=2)
    repository.set_alias("toy", "canary", 2)
    repository.set_alias("toy", "canary", 1)
    assert repository.aliases("toy") == {"canary": 1, "production": 1}
    repository.remove_alias("toy", "canary")
    with pytest.raises(ArtifactNotFound, match="no alias 'canary'"):
        repository.remove_alias("toy", "canary")
    with pytest.raises(ArtifactNotFound, match="no version 3"):
        repository.set_alias("toy", "canary", 3)
    assert repository.aliases("toy") == {"production": 1}


@given(st.text(max_size=8))
@settings(deadline=None)  # it writes files, and a busy disk is no failure
def test_an_alias_is_never_taken_for_a_version(tmp_path_factory: pytest.TempPathFactory, alias: str) -> None:
    repository = toy_repository(tmp_path_factory.mktemp("alias"))
    try:
        repository.set_alias("toy", alias, 1)
    except ArtifactError:
        return
    assert alias.isascii()
    assert not alias[0].isdecimal()
    assert repository.resolve("toy", alias) == 1


@pytest.mark.parametrize("alias", ["", "1", "Canary", "a b", "a/b", "canary\n", "-a", "a" * 64])
def test_an_alias_is_a_plain_lower_case_word(tmp_path: Path, alias: str) -> None:
    with pytest.raises(ArtifactError, match="lower-case word"):
        toy_repository(tmp_path).set_alias("toy", alias, 1)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": "x"}', b"\xff", b'{"a": null}'])
def test_an_alias_file_that_cannot_be_read_is_corrupt_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    repository = toy_repository(tmp_path)
    path = tmp_path / "toy" / "aliases.json"
    path.write_bytes(content)
    for action in (lambda: repository.resolve("toy"), lambda: repository.set_alias("toy", "canary", 1)):
        with pytest.raises(ArtifactCorrupt, match=r"aliases\.json"):
            action()
    assert path.read_bytes() == content


def test_an_edit_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    with pytest.raises(ArtifactNotFound), repository.editing_aliases("toy") as aliases:
        repository.open(f"absent{aliases.setdefault('canary', 1)}")
    assert repository.aliases("toy") == {"production": 1}


def test_an_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    before = (tmp_path / "toy" / "aliases.json").stat().st_ino
    repository.set_alias("toy", "production", 1)
    assert (tmp_path / "toy" / "aliases.json").stat().st_ino == before


def test_concurrent_edits_are_all_kept(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    program = "import sys; from pathlib import Path; from artifact.repository import Repository; "
    program += "r = Repository(Path(sys.argv[1])); [r.set_alias('toy', f'{sys.argv[2]}{n}', 1) for n in range(20)]"
    command = [sys.executable, "-c", program, str(tmp_path)]
    editors = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b")]
    while any(editor.poll() is None for editor in editors):
        assert repository.aliases("toy")["production"] == 1  # whole at every moment
    assert [editor.returncode for editor in editors] == [0, 0]
    expected = {f"{name}{n}" for name in "ab" for n in range(20)}
    assert repository.aliases("toy").keys() == expected | {"production"}


def test_a_repository_that_cannot_be_read_is_an_artifact_error(tmp_path: Path) -> None:
    toy_repository(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(ArtifactError, match="loop"):
        Repository(loop).models()
