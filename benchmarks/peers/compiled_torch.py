"""The same loop with the network compiled by torch.compile."""

from benchmarks.peers import Contender, plain_torch


def contend(name: str, device: str) -> Contender:
    """Prune with compiled forward and backward passes."""
    return plain_torch.contend(name, device, compiled=True)
