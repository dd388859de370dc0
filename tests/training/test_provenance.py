"""training/provenance.py: facts for the manifest, and no path of this machine."""

import platform
import re
from pathlib import Path

from tests.training import tiny
from training.provenance import ROOT, cpu_name, git_commit, libraries, public_recipe
from training.recipe import parse_recipe


def test_local_folders_stay_out_of_the_recipe_that_is_published() -> None:
    recipe = tiny.recipe(
        data={"source": "file", "path": "/somewhere/secret/reviews.csv"},
        encoder={"source": "folder", "name": "/somewhere/encoder"},
    )
    values = public_recipe(recipe)
    assert (values["data"]["path"], values["encoder"]["name"]) == ("reviews.csv", "encoder")


def test_the_folders_of_joined_files_stay_out_too() -> None:
    sources = [{"source": "file", "path": "/somewhere/secret/a.csv"}, {"source": "packaged", "name": "x"}]
    elsewhere = [{"source": "file", "path": "/somewhere/secret/b.csv"}]
    values = public_recipe(tiny.recipe(data={"source": "joined", "sources": sources}, elsewhere=elsewhere))
    assert values["data"]["sources"][0]["path"] == "a.csv"
    assert values["elsewhere"][0]["path"] == "b.csv"
    assert parse_recipe(values).sources[1].source == "packaged"


def test_facts_about_the_machine(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert cpu_name(cpuinfo) == f"{platform.machine()} Some CPU (avx2, avx512_vnni)"
    assert cpu_name(tmp_path / "absent") != ""
    assert {"python", "torch", "onnxruntime"} <= libraries().keys()
    assert git_commit(tmp_path) == ""
    assert re.fullmatch(r"([0-9a-f]{40}(\+changes)?)?", git_commit(ROOT))
