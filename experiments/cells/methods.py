"""The compared methods: the paper's five, two controls and SynFlow on the certified schedule.

Every method is a function of a `Network`, ρ and a number of rounds that returns masks. SNIP and
GraSP score 10 examples a class in evaluation mode, GraSP at temperature 200. The controls test
whether it matters which weights of a layer stay: SynFlow's masks shuffled inside each layer, and
random weights at ERK densities. Random scores and magnitudes are the same in every round, and the
certified schedule finds its own number of rounds; these methods ignore the number.
"""

from collections.abc import Callable
from typing import Any, Literal

from experiments.cells.network import Network
from synflow_jax import certified, cross_entropy, erk, grasp, magnitude, random, snip, synflow
from synflow_jax.pruning import shuffle

MethodName = Literal[
    "synflow",
    "snip",
    "grasp",
    "magnitude",
    "random",
    "synflow-shuffled",
    "random-erk",
    "synflow-certified",
]
PAPERS: tuple[MethodName, ...] = ("synflow", "snip", "grasp", "magnitude", "random")
CONTROLS: tuple[MethodName, ...] = ("synflow-shuffled", "random-erk")
ROUNDS = {"synflow": 100, "synflow-shuffled": 100}  # of the paper; the other methods have one
TEMPERATURE = 200.0
SCORED_ON_DATA = {"snip", "grasp"}


class OutOfReachError(ValueError):
    """The certified schedule cannot reach the asked ρ; the message has the one it reached."""


def _synflow(net: Network, rho: float, rounds: int) -> Any:
    return synflow(net.params, net.apply_fn, net.dataset.shape, rho, rounds=rounds)


def _certified(net: Network, rho: float, _: int) -> Any:
    try:
        return synflow(net.params, net.apply_fn, net.dataset.shape, rho, schedule=certified())
    except ValueError as error:
        raise OutOfReachError(str(error)) from error


def _snip(net: Network, rho: float, rounds: int) -> Any:
    return snip(net.params, cross_entropy(net.apply_fn), net.batches, rho, rounds=rounds)


def _grasp(net: Network, rho: float, rounds: int) -> Any:
    loss_fn = cross_entropy(net.apply_fn, TEMPERATURE)
    return grasp(net.params, loss_fn, net.batches, rho, rounds=rounds)


METHODS: dict[str, Callable[[Network, float, int], Any]] = {
    "synflow": _synflow,
    "snip": _snip,
    "grasp": _grasp,
    "magnitude": lambda net, rho, _: magnitude(net.params, rho),
    "random": lambda net, rho, _: random(net.keys.masks, net.params, rho),
    "synflow-shuffled": lambda net, rho, n: shuffle(net.keys.shuffle, _synflow(net, rho, n)),
    "random-erk": lambda net, rho, _: random(net.keys.masks, net.params, rho, densities=erk),
    "synflow-certified": _certified,
}
