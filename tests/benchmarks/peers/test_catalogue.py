import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.peers.catalogue import PEERS, Peer, Program, choose, environ_of, environment
from benchmarks.wrk import BenchmarkError


@pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])
def test_every_peer_has_its_driver_and_pinned_requirements(peer: Peer) -> None:
    written = peer.requirements.read_text(encoding="utf-8").splitlines()
    lines = [line for line in written if not line.startswith("#")]
    assert len(lines) > 20, "what the packages bring is pinned too"
    assert all("==" in line for line in lines)
    driver = Path(*peer.module.split(".")).with_suffix(".py")
    assert (Path(__file__).parents[3] / driver).is_file()


@pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])
def test_every_body_carries_its_text_and_room_for_an_id(peer: Peer) -> None:
    body = str(peer.body("a good film"))
    assert "a good film" in body
    assert "@ID@" in body


def test_the_port_reaches_those_who_take_it_as_an_argument() -> None:
    (mosec,) = choose(["mosec"])
    command = mosec.command(Path("venv/bin/python"), 8123)
    assert command[:3] == ["venv/bin/python", "-m", "benchmarks.peers.serve_mosec"]
    assert command[-2:] == ["--port", "8123"]


def test_peers_are_chosen_by_name() -> None:
    assert choose([]) == list(PEERS)
    assert [peer.name for peer in choose(["litserve", "mosec"])] == ["litserve", "mosec"]
    with pytest.raises(BenchmarkError, match="no peer called vapour"):
        choose(["mosec", "vapour"])


def told(peer: Peer, encoder: Path | None = None) -> Mapping[str, str]:
    return environ_of(peer, Path("m.onnx"), Path("t.json"), encoder, 8123, Path("counts"), Path("root"))


def test_drivers_are_told_where_everything_is() -> None:
    (mosec,) = choose(["mosec"])
    environ = told(mosec)
    assert (environ["PEER_PORT"], environ["PEER_COUNTS"]) == ("8123", "counts")
    assert "PEER_ENCODER" not in environ
    assert told(mosec, Path("e"))["PEER_ENCODER"] == "e"


def test_what_a_server_is_tuned_by_reaches_only_that_server() -> None:
    mosec, ray = choose(["mosec", "ray-serve"])
    assert told(ray)["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert "RAY_SERVE_THROUGHPUT_OPTIMIZED" not in told(mosec)


def test_a_peer_that_lacks_a_program_says_which_and_where_it_comes_from() -> None:
    peer = Peer("x", "X", needs=(Program("java", "openjdk-17-jre-headless"),))
    assert peer.why_not(which=lambda name: None) == "needs java: apt-get install openjdk-17-jre-headless"
    assert peer.why_not(which=lambda name: f"bin/{name}") is None
    assert Peer("y", "Y").why_not(which=lambda name: None) is None


def test_an_environment_is_made_once_for_its_requirements(tmp_path: Path) -> None:
    (mosec,) = choose(["mosec"])
    made = tmp_path / "mosec"
    made.mkdir()
    stamp = hashlib.sha256(mosec.requirements.read_bytes()).hexdigest()
    (made / "installed").write_text(stamp, encoding="ascii")
    assert environment(mosec, tmp_path) == made / "bin" / "python"


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "mosec").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="venv"):
        environment(choose(["mosec"])[0], tmp_path)
