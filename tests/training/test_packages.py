"""training/packages.py: what the tables of known packages must hold for a download to be verifiable."""

import re

import pytest

from training.packages import DATA, ENCODERS, DataSet, EncoderSet

SHA256 = re.compile(r"[0-9a-f]{64}")
EVERYTHING: dict[str, DataSet | EncoderSet] = {**DATA, **ENCODERS}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_package_is_pinned_to_one_file(name: str) -> None:
    package = EVERYTHING[name].package
    project, _, version = package.requirement.partition("==")
    assert version
    assert package.project == project
    assert SHA256.fullmatch(package.sha256)
    assert package.file.startswith((f"{project}-{version}", f"{project.replace('-', '_')}-{version}"))
    assert package.file.endswith(".tar.gz" if package.source else ".whl")


@pytest.mark.parametrize("name", DATA)
def test_every_table_is_hashed_on_each_level(name: str) -> None:
    known = DATA[name]
    assert SHA256.fullmatch(known.member_sha256)
    assert known.package.source == bool(known.inner) == bool(SHA256.fullmatch(known.inner_sha256))
    assert known.title
    assert known.licence


def test_no_two_tables_are_one() -> None:
    assert len({known.member_sha256 for known in DATA.values()}) == len(DATA)
