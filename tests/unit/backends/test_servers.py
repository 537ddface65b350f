"""Ports of rollout servers."""

import socket

from ehrmind_k8s.backends.local import servers


def test_ports_stay_the_same_unless_somebody_took_them() -> None:
    first = servers._free_ports([], 3)
    assert len(set(first)) == 3
    assert servers._free_ports(first, 3) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first[1]))
        other.listen()
        again = servers._free_ports(first, 3)
    assert again[:2] == [first[0], first[2]]
    assert again[2] not in first


def test_a_port_where_nobody_answers_is_not_healthy() -> None:
    (port,) = servers._free_ports([], 1)
    assert not servers._answers(port)
