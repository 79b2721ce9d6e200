"""Numbered things in their order, and when one of them is lost."""

import numpy as np

from sare_tf.training.arrivals import PATIENCE_S, Arrivals


def test_things_are_taken_in_order_whatever_order_they_come_in():
    order = np.random.default_rng(0).permutation(20)
    arrivals = Arrivals(20, waiting=20, in_flight=0)
    taken, wanted = [], 0
    for number in order:
        arrivals.add(number, f"thing {number}")
        arrivals.add(number, "the same again")
        while arrivals.has(wanted):
            taken.append(arrivals.take(wanted))
            wanted += 1
    assert taken == [f"thing {number}" for number in range(20)]
    arrivals.add(3, "late")
    assert not arrivals.has(3)


def test_a_thing_is_lost_when_a_later_one_came_long_ago():
    arrivals = Arrivals(100, waiting=50, in_flight=2)
    arrivals.waited(100.0)
    assert not arrivals.is_lost(0)
    arrivals.add(1, "one")
    assert not arrivals.is_lost(0)
    arrivals.waited(PATIENCE_S - 1)
    arrivals.add(2, "two")
    assert not arrivals.is_lost(0)
    arrivals.waited(2)
    assert arrivals.is_lost(0)
    arrivals.fill(0, "zero")
    assert [arrivals.take(number) for number in range(3)] == [
        *("zero", "one", "two")
    ]
    # None later than it has come.
    arrivals.waited(100.0)
    assert not arrivals.is_lost(3)


def test_a_thing_is_lost_when_many_later_ones_wait():
    arrivals = Arrivals(100, waiting=3, in_flight=2)
    for number in (5, 2):
        arrivals.add(number, number)
        assert not arrivals.is_lost(1)
    arrivals.add(9, 9)
    assert arrivals.is_lost(1)


def test_the_last_ones_are_lost_when_nothing_comes():
    arrivals = Arrivals(10, waiting=50, in_flight=3)
    for number in range(7):
        arrivals.add(number, number)
        arrivals.take(number)
    assert not arrivals.is_lost(7)
    arrivals.waited(PATIENCE_S + 1)
    assert arrivals.is_lost(7)
    arrivals.fill(7, "made here")
    arrivals.take(7)
    # Without waiting again.
    assert arrivals.is_lost(8)
    assert arrivals.silent_s > PATIENCE_S
    arrivals.add(9, 9)
    assert not arrivals.is_lost(8)
