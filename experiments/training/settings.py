"""Training settings of the paper, by network and data set.

From the appendix of Tanaka et al. 2020. Where the arguments stored with the authors' results differ
from it, the stored ones are used. All have batches of 128, Nesterov momentum of 0.9 and no gradient
clipping.
"""

from experiments.training.optimiser import Budget

BATCH = 128

CIFAR_VGG = Budget(160, BATCH, 0.1, 1e-4, None, drops=(60, 120), factor=0.1)
CIFAR_RESNET = Budget(160, BATCH, 0.01, 5e-4, None, drops=(60, 120), factor=0.2)
TINY_IMAGENET = Budget(100, BATCH, 0.01, 1e-4, None, drops=(30, 60, 80), factor=0.2)
# VGG-11 on CIFAR-10: each level of iterative magnitude pruning. The learning rate is constant.
ITERATIVE = Budget(50, BATCH, 0.01, 1e-4, None, drops=())
# VGG-19 on CIFAR-10, whose layer magnitudes are recorded during training. Epochs and rate are the
# paper's; it does not state the rest, which is taken from iterative magnitude pruning.
WATCHED = Budget(100, BATCH, 0.001, 1e-4, None, drops=())

# The networks that the paper trains, and their variants for images of 64×64 ("X-tiny").
CIFAR = {"vgg11": CIFAR_VGG, "vgg16": CIFAR_VGG, "resnet18": CIFAR_RESNET}
TRAINED: dict[str, dict[str, Budget]] = {
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "tiny_imagenet": {f"{model}-tiny": TINY_IMAGENET for model in CIFAR},
}


def settings(model: str, dataset: str) -> Budget:
    """Look up the paper's training settings for a network (Figures 1 and 6).

    Args:
      model: a name of `MODELS`.
      dataset: a name of `data.DatasetName`.

    Returns:
      The budget, in float32.

    Raises:
      ValueError: the paper does not train this network, or nothing on this data set.

    Example:
      >>> settings("resnet18", "cifar10").factor
      0.2
    """
    if dataset not in TRAINED:
        raise ValueError(f"dataset must be one of {tuple(TRAINED)}, got {dataset!r}")
    if model not in TRAINED[dataset]:
        allowed = tuple(TRAINED[dataset])
        raise ValueError(f"model must be one of {allowed} on {dataset}, got {model!r}")
    return TRAINED[dataset][model]
