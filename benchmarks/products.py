"""How fast this machine multiplies matrices: the limit of every trainer on it."""

import os
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.report import markdown_table
from dynlearn.models.affine import members_affine, onednn_is_faster

# Operands of a product that fills the machine, and of a layer of five members.
_SHAPES = {
    "mm": ((2048, 2048), (2048, 2048)),
    "bmm": ((5, 256, 200), (5, 200, 200)),
}


def measure_products() -> dict[str, float]:
    """Print what products in float32 reach at best, in torch and in JAX, and return GFLOP/s."""
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    rates = {}
    for name, count in (("torch_1_thread", 1), ("torch", threads)):
        torch.set_num_threads(count)
        rates[name] = _rates(lambda a, b: partial(torch.matmul, a, b))
        rates[f"{name}_onednn"] = _rates(_onednn_product)
    rates["jax"] = _rates(_jax_product)
    chosen = "oneDNN" if onednn_is_faster() else "MKL"
    print(f"Torch has {threads} threads; the load was {load:.1f} before; dynlearn uses {chosen}.")
    print("GFLOP/s of products:\n")
    rows = [[name, *(f"{rate:.0f}" for rate in each.values())] for name, each in rates.items()]
    print(markdown_table(["", "2048³", "5 × 256·200·200"], rows), flush=True)
    return {"load": load} | {
        f"{name}_{product}_gflops": rate
        for name, each in rates.items()
        for product, rate in each.items()
    }


def _rates(prepare: Callable[[Tensor, Tensor], Callable[[], object]]) -> dict[str, float]:
    rates = {}
    for name, shapes in _SHAPES.items():
        a, b = (torch.randn(shape) for shape in shapes)
        rates[name] = 2e-9 * a.numel() * b.shape[-1] / _best_seconds(prepare(a, b))
    return rates


def _onednn_product(a: Tensor, b: Tensor) -> Callable[[], object]:
    a, b = (tensor.reshape(-1, *tensor.shape[-2:]) for tensor in (a, b))
    return partial(members_affine, torch.zeros(len(b), 1, b.shape[2]), a, b, True)


def _jax_product(a: Tensor, b: Tensor) -> Callable[[], object]:
    import jax

    product = jax.jit(jax.numpy.matmul)
    arrays = jax.numpy.array(a.numpy()), jax.numpy.array(b.numpy())
    return lambda: product(*arrays).block_until_ready()


def _best_seconds(product: Callable[[], object]) -> float:
    """Return how long a product takes in the best of some bursts."""
    product()
    bursts = []
    for _ in range(20):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() < began + 0.02:
            product()
            calls += 1
        bursts.append((time.perf_counter() - began) / calls)
    return min(bursts)
