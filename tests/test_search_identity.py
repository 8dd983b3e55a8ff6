"""Equal configurations are one static argument, and compile once."""

import functools

import jax

from jaxnas.search.identity import Configured


class Scaled(Configured):
    def __init__(self, factor):
        self.factor = factor

    def _configuration(self):
        return type(self), self.factor


class Other(Scaled):
    pass


def test_equal_are_those_of_one_class_and_configuration():
    assert Scaled(2) == Scaled(2) and hash(Scaled(2)) == hash(Scaled(2))
    assert Scaled(2) != Scaled(3) and Scaled(2) != Other(2) and Scaled(2) != 2


def test_equal_ones_share_a_program():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def scale(scaled, x):
        traced.append(scaled.factor)
        return scaled.factor * x

    assert [scale(Scaled(factor), 3.0) for factor in (2, 2, 5)] == [6.0, 6.0, 15.0]
    assert traced == [2, 5]
