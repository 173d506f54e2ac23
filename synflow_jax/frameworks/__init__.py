"""Models of a framework as (params, apply_fn) and back: a module a framework.

`linen` and `nnx` are the only modules that import Flax, and are loaded when asked for: they are
reached as `synflow_jax.linen` and `synflow_jax.nnx`. A framework to be added is one more module.
"""
