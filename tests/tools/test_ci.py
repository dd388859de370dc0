"""CI's stages: a line each, the end of the log of what failed, and nothing is passed over in silence."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifact.repository import Repository
from tools.ci import AFTERWARDS, STAGES, Stage, install, run_all
from tools.simulated.manifests import ROOT
from tools.simulated.model import publish_for_ci

GOOD = Stage("good", "echo fine")
BAD = Stage("bad", "echo much; echo the reason >&2; exit 3")
CONTAINERS = Stage("image", "touch started", containers=True)


def test_a_stage_prints_one_line_and_keeps_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all([GOOD], tmp_path, containers=True) == []
    assert re.fullmatch(r"good +\d+\.\d s +ok\n", capsys.readouterr().out)
    assert (tmp_path / "good.log").read_text(encoding="utf-8") == "fine\n"


def test_what_fails_shows_its_log_and_the_others_still_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all([BAD, GOOD], tmp_path, containers=True) == ["bad"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("FAILED")
    assert printed[1:3] == ["    much", "    the reason"]
    assert printed[3].endswith("ok")


def test_what_needs_a_failed_stage_fails_without_a_try(tmp_path: Path) -> None:
    after = Stage("after", "true", needs="bad")
    last = Stage("last", "true", needs="after")
    assert run_all([BAD, after, last], tmp_path, containers=True) == ["bad", "after", "last"]
    assert not (tmp_path / "after.log").exists()


def test_containers_are_skipped_only_when_asked_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all([CONTAINERS], tmp_path, containers=False) == []
    assert "skipped, SKIP_CONTAINERS is set" in capsys.readouterr().out
    assert not (tmp_path / "image.log").exists()


def test_a_stage_that_hangs_is_ended_with_its_children(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all([Stage("slow", "cat /dev/zero >/dev/null & wait", most_seconds=0.3)], tmp_path, containers=True) == [
        "slow"
    ]
    assert "ended after 0.3 s" in capsys.readouterr().out


_ENDED = """
import sys
from pathlib import Path
from tools.ci import Stage, leave_on_sigterm, run_all

leave_on_sigterm()
stage = Stage("slow", f"exec 3> {sys.argv[1]}/held; echo started >&3; sleep 60 & sleep 60; wait")
run_all([stage], Path(sys.argv[1]), containers=True)
"""


def test_a_stage_does_not_outlive_ci(tmp_path: Path) -> None:
    """SIGTERM; a Ctrl-C takes the same way, but a shell's background job, as this test may be one, ignores it."""
    held = tmp_path / "held"
    os.mkfifo(held)
    with subprocess.Popen([sys.executable, "-c", _ENDED, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL) as ci:
        with held.open() as pipe:
            assert pipe.readline() == "started\n"
            ci.terminate()
            assert pipe.read() == "", "the end comes when nobody of the stage holds the pipe any more"
        assert ci.wait(20) == 128 + signal.SIGTERM


def test_only_what_is_lacking_is_installed() -> None:
    assert install({"sh": "dash"}) == ""
    assert install({"sh": "dash", "no-such-program": "some-package"}).endswith(" some-package")


def test_every_check_the_makefile_offers_is_a_stage() -> None:
    offered = set(re.findall(r"^([a-z0-9-]+-test):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert offered == {stage.name for stage in STAGES if stage.name.endswith("-test")}
    names = [stage.name for stage in STAGES]
    assert all(not stage.needs or stage.needs in names[: names.index(stage.name)] for stage in STAGES)
    assert AFTERWARDS.needs in names


def test_ci_has_a_model_and_texts_without_training(tmp_path: Path) -> None:
    for _ in range(2):  # a second run finds what the first one left
        publish_for_ci(tmp_path / "models", tmp_path / "texts.txt")
    assert Repository(tmp_path / "models").open("sentiment").manifest.version == 1
    assert len((tmp_path / "texts.txt").read_text(encoding="utf-8").splitlines()) > 20
