"""What the relay does before anything else: here the ports that it gives to the child."""

from __future__ import annotations

import socket
import sys

import pytest
import zmq

from rtc_kernel.relay.launch import _free_ports


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a child bind what we hold")
def test_nobody_is_given_the_childs_ports_but_the_child() -> None:
    """A manager chooses a kernel's ports before the kernel binds them, and so do we: they must not be the same."""
    held: list[socket.socket] = []
    try:
        ports: set[int] = set()
        for _ in range(100):
            holders, chosen = _free_ports(())
            held += holders
            ports |= set(chosen.values())
        assert len(ports) == 500
        for _ in range(2000):  # of about 14 000 that the system draws from
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", 0))
                assert other.getsockname()[1] not in ports
        with zmq.Context() as context, context.socket(zmq.ROUTER) as child:
            child.bind(f"tcp://127.0.0.1:{min(ports)}")
    finally:
        for holder in held:
            holder.close()


class Chosen:
    """Ports that a manager has chosen: whatever is looked up first."""

    def __init__(self) -> None:
        self.ports: set[object] = set()

    def __contains__(self, port: object) -> bool:
        if len(self.ports) < 3:
            self.ports.add(port)
        return port in self.ports


def test_ports_that_the_frontends_manager_chose_are_not_taken() -> None:
    chosen = Chosen()
    holders, ports = _free_ports(chosen)
    for holder in holders:
        holder.close()
    assert len(chosen.ports) == 3
    assert len(set(ports.values()) - chosen.ports) == 5
