"""Publishing is one step: all of a version or nothing, whoever else publishes and whenever the process dies."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact.errors import ArtifactCorrupt, ArtifactError
from artifact.manifest import Estimate, GateResult
from artifact.publish import publish, staging
from artifact.repository import Repository, open_artifact
from tests.artifact.build import FILES, draft, fill, publish_toy, toy_repository

ROOT = Path(__file__).parents[2]
STRANGERS = ("/etc/hostname", "model.onnx", "absent")


def left_behind(root: Path) -> list[str]:
    """Staging folders in the repository."""
    return [path.name for path in root.iterdir() if path.name.startswith(".staging")]


def test_a_published_version_is_what_was_staged(tmp_path: Path) -> None:
    path, manifest = publish_toy(tmp_path)
    assert path == tmp_path / "toy" / "1"
    opened = open_artifact(path)
    assert opened.manifest == manifest
    assert set(manifest.files) == {*FILES, "golden.json"}
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert left_behind(tmp_path) == []


def test_versions_count_up_and_only_the_first_becomes_production(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path, versions=2)
    assert repository.versions("toy") == [1, 2]
    assert repository.aliases("toy") == {"production": 1}
    publish_toy(tmp_path, promote=True)
    assert repository.aliases("toy") == {"production": 3}


def test_a_removed_production_alias_does_not_promote_the_next_version(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    repository.remove_alias("toy", "production")
    publish_toy(tmp_path)
    assert repository.resolve("toy") == 1


def test_the_number_of_a_deleted_version_is_not_used_again_while_an_alias_remembers_it(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path, versions=2)
    repository.set_alias("toy", "canary", 2)
    (tmp_path / "toy" / "2" / "manifest.json").unlink()
    assert publish_toy(tmp_path)[1].version == 3


def test_everything_is_readable_by_other_users_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with staging(tmp_path) as folder:
            (folder / "onnx").mkdir()
            (folder / "onnx" / "weights.bin").write_bytes(b"w")
            path, manifest = publish(fill(folder), tmp_path, draft())
    finally:
        os.umask(before)
    assert "onnx/weights.bin" in manifest.files
    modes = {p.relative_to(path).as_posix(): oct(p.stat().st_mode & 0o777) for p in (path, *path.rglob("*"))}
    folders = {".", "onnx"}
    assert modes == {name: "0o755" if name in folders else "0o644" for name in modes}


def test_a_left_over_manifest_is_replaced_not_published_as_a_file(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        (folder / "manifest.json").write_text("{}")
        path, manifest = publish(fill(folder), tmp_path, draft())
    assert "manifest.json" not in manifest.files
    assert open_artifact(path).manifest.version == 1


@pytest.mark.parametrize("target", STRANGERS)
def test_links_are_not_published(tmp_path: Path, target: str) -> None:
    with staging(tmp_path) as folder:
        (fill(folder) / "extra").symlink_to(target)
        with pytest.raises(ArtifactError, match=r"'extra'.*link"):
            publish(folder, tmp_path, draft())
    assert Repository(tmp_path).models() == []


def test_neither_are_pipes(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        os.mkfifo(fill(folder) / "pipe")
        with pytest.raises(ArtifactError, match="not a plain file"):
            publish(folder, tmp_path, draft())


@pytest.mark.parametrize("name", [b"a:b", b"a\\b", b"\xff.json"])
def test_a_file_no_reader_would_accept_is_refused(tmp_path: Path, name: bytes) -> None:
    with staging(tmp_path) as folder:
        (Path(os.fsdecode(os.fsencode(fill(folder)) + b"/" + name))).write_bytes(b"x")
        with pytest.raises(ArtifactError) as caught:
            publish(folder, tmp_path, draft())
    assert caught.value.message.isprintable()
    assert Repository(tmp_path).models() == []


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        (fill(folder) / "model.onnx").unlink()
        with pytest.raises(ArtifactError, match=r"files lists no model\.onnx"):
            publish(folder, tmp_path, draft())
    assert Repository(tmp_path).models() == []


def test_golden_inputs_nobody_could_read_are_refused(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        (fill(folder) / "golden.json").write_text('{"inputs": []}')
        with pytest.raises(ArtifactCorrupt, match=r"golden\.json: inputs"):
            publish(folder, tmp_path, draft())
    assert Repository(tmp_path).models() == []


def test_a_figure_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    nan = Estimate(value=float("nan"), low=0, high=1)
    with pytest.raises(ArtifactError, match="roc_auc"):
        publish_toy(tmp_path, gate=GateResult(passed=True, test_rows=1, reference_metrics={"roc_auc": nan}))
    assert Repository(tmp_path).models() == []


def test_a_damaged_alias_file_stops_a_publication_before_it_is_visible(tmp_path: Path) -> None:
    repository = toy_repository(tmp_path)
    (tmp_path / "toy" / "aliases.json").write_text("{")
    with pytest.raises(ArtifactCorrupt, match=r"aliases\.json"):
        publish_toy(tmp_path)
    assert repository.versions("toy") == [1]


def test_a_disk_that_refuses_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written to"), staging(tmp_path / "file" / "models"):
        pass
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy").write_text("")  # where the model's folder should be
    with pytest.raises(ArtifactError, match="could not publish toy"):
        publish_toy(tmp_path / "models")


def test_staging_leaves_nothing_when_it_is_not_published(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        fill(folder)
    assert not folder.exists()
    assert left_behind(tmp_path) == []


def test_the_next_publisher_removes_what_a_killed_one_left_but_not_what_a_live_one_holds(tmp_path: Path) -> None:
    (tmp_path / ".staging-killed" / "files").mkdir(parents=True)
    with staging(tmp_path) as live:
        assert not (tmp_path / ".staging-killed").exists()
        publish_toy(tmp_path)
        assert live.is_dir()


def test_a_published_version_cannot_be_replaced(tmp_path: Path) -> None:
    path, _ = publish_toy(tmp_path)
    before = open_artifact(path).digest
    with staging(tmp_path) as folder, pytest.raises(OSError, match="not empty"):
        fill(folder).rename(path)
    assert open_artifact(path).digest == before


@pytest.mark.parametrize("obstacle", ["folder", "file", "link"])
def test_what_stands_where_a_version_would_go_is_stepped_over(tmp_path: Path, obstacle: str) -> None:
    target = toy_repository(tmp_path).root / "toy" / "2"
    if obstacle == "folder":
        (target / "someone's").mkdir(parents=True)
    elif obstacle == "file":
        target.write_text("")
    else:
        target.symlink_to("nowhere")
    assert publish_toy(tmp_path)[1].version == 3


def test_publishers_at_once_get_different_versions(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from tests.artifact.build import publish_toy; "
    program += "sys.stdin.readline(); [publish_toy(Path(sys.argv[1])) for _ in range(5)]"
    command = [sys.executable, "-c", program, str(tmp_path)]
    publishers = [subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    with ThreadPoolExecutor() as starter:
        list(starter.map(lambda process: process.communicate(b"go\n", timeout=60), publishers))
    assert [process.returncode for process in publishers] == [0, 0]
    repository = Repository(tmp_path)
    assert repository.versions("toy") == list(range(1, 11))
    assert [repository.open("toy", version).manifest.version for version in range(1, 11)] == list(range(1, 11))
    assert repository.aliases("toy") == {"production": 1}
    assert left_behind(tmp_path) == []


def test_a_crash_at_any_step_leaves_no_half_version(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.artifact.crashing", str(tmp_path)]
    crashes = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout)
    assert crashes > 20
    seen = set()
    for step in range(crashes):
        repository = Repository(tmp_path / str(step))
        assert repository.models() == ["toy"]
        seen.add(len(repository.versions("toy")))
        for version in repository.versions("toy"):
            repository.open("toy", version).golden()
        assert repository.resolve("toy") == 1, "what is served changed without being asked"
        publish_toy(repository.root)
        assert repository.aliases("toy") == {"production": 1}
        assert left_behind(repository.root) == []
    assert seen == {1, 2}, "the crashes should fall on both sides of the rename"
