"""Every test runs on eight virtual CPU devices, with strict dtypes and strict ranks."""

import os
from functools import partial

import jax
import pytest

FULLY_COMPILED = os.environ.get("FULLY_COMPILED") == "1"
QUICK = "--xla_cpu_use_fusion_emitters=false"
if not FULLY_COMPILED and jax.__version_info__ < (0, 11):
    # With XLA's older emitters of loops most files take 0.4 to 0.7 of the time. A flag that XLA
    # does not know ends the process: jaxlib 0.8 and 0.10 know this one, 0.12 does not.
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*flags, *({QUICK} - {*flags})])

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Run files side by side: compiling a program keeps one core busy."""
    return min(os.cpu_count() or 1, 4)


def pytest_configure(config):
    """Keep compiled programs beside pytest's own cache: the next run finds them."""
    if getattr(config, "cache", None) is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def _programs(request):
    """Compile with few optimisations, and give back the memory of what a file compiled.

    Small networks run fast however they are compiled. A file that reads the compiled program says
    `FULLY_COMPILED = True`; the variable FULLY_COMPILED=1 says so for all.
    """
    full = getattr(request.module, "FULLY_COMPILED", FULLY_COMPILED)
    jax.config.update("jax_disable_most_optimizations", not full)
    yield
    jax.clear_caches()


@pytest.fixture
def fully_compiled():
    """Optimise the programs of a test that takes longer to run than to compile."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def x64():
    """Run a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def small_fc():
    """Make fc a network of one hidden layer; allow int with float, which optax's schedules mix."""
    from experiments.models import MODELS
    from experiments.models.fc import FC

    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(MODELS, "fc", partial(FC, width=20, depth=1))
        yield


@pytest.fixture
def flax_promotes():
    """Flax mixes dtypes and ranks: let it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
