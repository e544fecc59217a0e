"""Free ports."""

import socket

from deploy.local.ports import LOOPBACK, Ports


def test_a_free_port_that_is_preferred_is_given():
    free = Ports().take()
    assert Ports().take(free) == free


def test_another_port_is_given_where_the_preferred_one_is_taken():
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = other.getsockname()[1]
        given = Ports().take(taken)
    assert given not in (0, taken)


def test_no_port_is_given_twice():
    ports = Ports()
    first = ports.take()
    given = [first, *(ports.take(first) for _ in range(20))]
    assert len(set(given)) == len(given)
