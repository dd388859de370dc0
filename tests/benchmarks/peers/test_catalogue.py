from pathlib import Path

import pytest

from benchmarks.peers.catalogue import PEERS, Peer, choose, environ_of
from benchmarks.wrk import BenchmarkError


@pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])
def test_every_peer_has_its_driver_and_pinned_requirements(peer: Peer) -> None:
    lines = peer.requirements.read_text(encoding="utf-8").split()
    assert lines
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


def test_drivers_are_told_where_everything_is() -> None:
    environ = environ_of(Path("m.onnx"), Path("t.json"), None, 8123, Path("root"))
    assert environ["PEER_PORT"] == "8123"
    assert "PEER_ENCODER" not in environ
    assert environ_of(Path("m"), Path("t"), Path("e"), 1, Path("r"))["PEER_ENCODER"] == "e"
