"""Small tasks of networks with branches: each has a network, a training and one figure.

`digits` is a residual network with closed blocks, `cartpole` an actor beside a critic, `decoder-2`,
`decoder-6` and `decoder-12` a language model of so many blocks, and `towers` an image tower beside
a text tower. Each task is compiled once, since masks are arguments of the training.
"""

import dataclasses
from fnmatch import fnmatch
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.cells import decoder
from experiments.cells.cell import all_finite
from experiments.cells.decoder import Start
from experiments.cells.network import Network
from experiments.data import cartpole
from experiments.data import text as texts
from experiments.data.dataset import load
from experiments.data.text import CHARACTERS, MODULES, NINTH, Text
from experiments.models.actor_critic import ActorCritic
from experiments.models.decoder import Decoder
from experiments.models.resnet import cifar_resnet
from experiments.models.towers import Towers
from experiments.records.rows import Row
from experiments.training import language, ppo
from experiments.training.optimiser import Budget
from experiments.training.trainer import Trainer
from synflow_jax import linen

TaskName = Literal["digits", "cartpole", "decoder-2", "decoder-6", "decoder-12", "towers"]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONGEST = max(map(len, NAMES))
LETTERS = " abcdefghijklmnopqrstuvwxyz"
SPELLED = tuple(tuple(map(LETTERS.index, name.ljust(LONGEST))) for name in NAMES)


class Trained(NamedTuple):
    """Params after training, the figure of the task, and whether all params are finite."""

    params: Any
    value: float
    finite: bool


class Measure(NamedTuple):
    """What the figure of a task is, whether higher is better, and its digits after the point."""

    name: str
    higher: bool
    digits: int


ACCURACY = Measure("test accuracy (%)", True, 1)
RETURN = Measure("mean return (of 500)", True, 0)
BITS = Measure("bits per character, unseen text", False, 3)


class Task(Protocol):
    """A network, a training and a figure; equal settings make equal rows."""

    @property
    def measure(self) -> Measure:
        """What the figure is."""
        ...

    @property
    def parts(self) -> dict[str, str]:
        """Patterns of the paths of kernels by part of the network; the first that fits counts."""
        ...

    @property
    def settings(self) -> Row:
        """All that decides the figure of a seed, beside its masks."""
        ...

    def start(self, seed: int) -> Start:
        """Initialise the network from a seed."""
        ...

    def train(self, net: Start, masks: Any) -> Trained:
        """Train masked params; pruned weights are zero throughout."""
        ...


@dataclasses.dataclass(frozen=True)
class Digits:
    """Classification of scikit-learn's digits: test accuracy of the last epoch."""

    model: nn.Module
    budget: Budget
    parts: dict[str, str]
    shape: Any
    evaluation: dict[str, Any]  # settings of model.apply for scoring
    measure: Measure = ACCURACY

    @property
    def settings(self) -> Row:
        """The network and the budget."""
        return described(self.model, self.budget)

    @cached_property
    def trainer(self) -> Trainer:
        """The training, with the data."""
        return Trainer(self.model, load("digits"), self.budget)

    def start(self, seed: int) -> Start:
        """Initialise the network from a seed."""
        net = Network(self.model, self.trainer.dataset, seed)
        params, apply_fn = linen.from_linen(self.model, net.variables, **self.evaluation)
        rest = {name: value for name, value in net.variables.items() if name != "params"}
        return Start(params, apply_fn, self.shape, net.keys.masks, net.keys.order, rest)

    def train(self, net: Start, masks: Any) -> Trained:
        """Train masked params as a group of one seed."""
        variables = {"params": net.params, **net.statistics}
        args = jax.tree.map(lambda leaf: leaf[None], (variables, masks, net.order_key))
        *_, (trained, scores) = self.trainer.epochs(*args)
        finite = bool(all_finite(trained["params"])[0])
        params = jax.tree.map(lambda leaf: leaf[0], trained["params"])
        return Trained(params, 100 * float(scores.top1[0]), finite)


@dataclasses.dataclass(frozen=True)
class CartPole:
    """PPO on CartPole: mean return of the final policy on fresh episodes, 500 at most."""

    model: ActorCritic
    budget: ppo.Budget
    parts: dict[str, str]
    measure: Measure = RETURN

    @property
    def settings(self) -> Row:
        """The network and the budget."""
        return described(self.model, self.budget)

    @cached_property
    def trainer(self) -> ppo.PolicyTrainer:
        """The training."""
        return ppo.PolicyTrainer(self.model, self.budget)

    def start(self, seed: int) -> Start:
        """Initialise the network from a seed."""
        keys = jax.random.split(jax.random.key(seed), 3)
        shape = (cartpole.STATE,)
        variables = jax.jit(self.model.init)(keys[0], jnp.ones((1, *shape)))
        return Start(*linen.from_linen(self.model, variables), shape, keys[1], keys[2])

    def train(self, net: Start, masks: Any) -> Trained:
        """Train masked params."""
        outcome = self.trainer(net.params, masks, net.order_key)
        return Trained(outcome.params, float(outcome.mean_return), bool(outcome.finite))


@dataclasses.dataclass(frozen=True)
class Language:
    """The decoder on documentation strings: bits per character on unseen modules."""

    model: Decoder
    budget: language.Budget
    modules: tuple[str, ...]
    parts: dict[str, str]
    measure: Measure = BITS

    @property
    def settings(self) -> Row:
        """The network, the budget and the digest of the text."""
        return {**described(self.model, self.budget), "text": _text(self.modules).digest}

    @cached_property
    def trainer(self) -> language.LanguageTrainer:
        """The training, with the text."""
        return language.LanguageTrainer(self.model, _text(self.modules), self.budget)

    def start(self, seed: int) -> Start:
        """Initialise the network from a seed."""
        return decoder.start(self.model, self.budget.context, seed)

    def train(self, net: Start, masks: Any) -> Trained:
        """Train masked params."""
        outcome = self.trainer(net.params, masks, net.order_key)
        return Trained(outcome.params, float(outcome.validation), bool(outcome.finite))


@cache
def _text(modules: tuple[str, ...]) -> Text:
    return texts.load(modules)


def described(model: nn.Module, budget: Any) -> Row:
    """Return the class and the numbers of a model, and a budget, a dataclass, field by field."""
    pairs = ((field.name, getattr(model, field.name)) for field in dataclasses.fields(model))
    plain = {name: value for name, value in pairs if isinstance(value, int | float | tuple)}
    return {"model": {"class": type(model).__name__, **plain}, **dataclasses.asdict(budget)}


def part_of(path: str, parts: dict[str, str]) -> str:
    """Return the first part of a network whose pattern fits the path of a kernel."""
    return next(part for part, pattern in parts.items() if fnmatch(path, pattern))


# Patterns of * match all, / included.
RESIDUAL = {
    "shortcuts": "Block_*/Conv_2/*",
    "branches": "Block_*",
    "stem and head": "*",
}
APART = {"actor": "actor*", "critic": "critic*"}
BLOCKS = {
    "first attention": "attention0/*",
    "other attentions": "attention*",
    "first MLP": "mlp0/*",
    "other MLPs": "mlp*",
    "head": "head/*",
}
TOWERS = {"image tower": "image/*", "text tower": "text/*"}
PAIR = {
    "image": jax.ShapeDtypeStruct((8, 8, 1), np.float32),
    "text": jax.ShapeDtypeStruct((LONGEST,), np.int32),
}


def _digits(blocks: int, width: int, epochs: int) -> Digits:
    model = cifar_resnet(10, 6 * blocks + 2, width, closed=True)
    budget = Budget(epochs, 32, 0.1, 5e-4, None)
    return Digits(model, budget, RESIDUAL, (8, 8, 1), {"train": False})


def _cartpole(width: int, updates: int) -> CartPole:
    budget = ppo.Budget(updates, 8, 128, 4, 4, 5e-4, 64)
    return CartPole(ActorCritic(cartpole.ACTIONS, width), budget, APART)


def _decoder(depth: int, width: int, steps: int, context: int, modules: int) -> Language:
    model = Decoder(len(CHARACTERS), width, hidden=3 * width, depth=depth)
    budget = language.Budget(steps, 8, context, 0.01, 0.01)
    return Language(model, budget, MODULES[:modules], BLOCKS)


def _towers(width: int, epochs: int) -> Digits:
    model = Towers(SPELLED, len(LETTERS), width, joint=width // 2)
    budget = Budget(epochs, 32, 3e-3, 0.0, 1.0, optimiser="adam")
    return Digits(model, budget, TOWERS, PAIR, {"method": "similarity"})


TASKS: dict[str, Task] = {
    "digits": _digits(blocks=1, width=16, epochs=12),
    "cartpole": _cartpole(width=64, updates=500),
    "decoder-2": _decoder(2, 64, 800, 64, len(MODULES)),
    "decoder-6": _decoder(6, 64, 600, 64, len(MODULES)),
    "decoder-12": _decoder(12, 64, 400, 64, len(MODULES)),
    "towers": _towers(width=64, epochs=20),
}
SMALL: dict[str, Task] = {
    "digits": _digits(blocks=1, width=4, epochs=2),
    "cartpole": _cartpole(width=8, updates=3),
    "decoder-2": _decoder(1, 8, 60, 16, NINTH),
    "decoder-6": _decoder(2, 8, 60, 16, NINTH),
    "decoder-12": _decoder(3, 8, 60, 16, NINTH),
    "towers": _towers(width=8, epochs=2),
}
