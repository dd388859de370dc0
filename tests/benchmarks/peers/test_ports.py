import socket

from benchmarks.peers.ports import free_ports


def test_ports_differ_and_nobody_listens_there() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ports[0])) != 0
