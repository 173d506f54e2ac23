"""CartPole: a pole on a cart, balanced by a force to the left or to the right at every step.

Barto, Sutton and Anderson 1983, with the constants, the limits and the cap of 500 steps of Gym's
CartPole-v1. States are float32 (4,): position of the cart (m), its velocity (m/s), angle of the
pole (rad) and its velocity (rad/s). The reward is 1 a step, the last one included.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

STATE = 4  # numbers
ACTIONS = 2  # left, right
CAP = 500  # steps of an episode
GRAVITY = 9.8
CART, POLE = 1.0, 0.1  # kg
LENGTH = 0.5  # m, half of the pole
FORCE = 10.0  # N
TAU = 0.02  # s, a step of Euler's method
FARTHEST = 2.4  # m
STEEPEST = 12 * math.pi / 180  # rad
SPREAD = 0.05  # an episode starts at U(±SPREAD) in all four numbers


class Episode(NamedTuple):
    """State of an episode, (4,), and how many steps it has had, int32."""

    state: Array
    steps: Array


def start(key: Array) -> Episode:
    """Draw the start of an episode."""
    return Episode(jax.random.uniform(key, (STATE,), minval=-SPREAD, maxval=SPREAD), jnp.int32(0))


def move(state: Array, action: Array) -> Array:
    """Return the state after one step under an action, 0 for left or 1 for right."""
    speed, angle, spin = state[1:]
    force = jnp.where(action == 1, FORCE, -FORCE)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + POLE * LENGTH * spin**2 * sin) / (CART + POLE)
    inertia = LENGTH * (4 / 3 - POLE * cos**2 / (CART + POLE))
    turn = (GRAVITY * sin - cos * push) / inertia
    gain = push - POLE * LENGTH * turn * cos / (CART + POLE)
    return state + TAU * jnp.stack([speed, gain, spin, turn])


def fallen(state: Array) -> Array:
    """Whether the cart is too far from the middle or the pole too steep."""
    return (jnp.abs(state[0]) > FARTHEST) | (jnp.abs(state[2]) > STEEPEST)


def advance(episode: Episode, action: Array) -> tuple[Episode, Array]:
    """Return the episode after one step, and whether it has ended: by a fall or at the cap."""
    state, steps = move(episode.state, action), episode.steps + 1
    return Episode(state, steps), fallen(state) | (steps >= CAP)
