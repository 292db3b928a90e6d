"""Products of float32 matrices, for the rate that the machine reaches: `gemm.py jax` or `gemm.py torch`.

A step is a product.
"""

import sys

import numpy as np
import serve


def by_jax(a: np.ndarray):
    import jax

    product, x = jax.jit(lambda x: x @ x), jax.device_put(a)
    return lambda: product(x).block_until_ready()


def by_torch(a: np.ndarray):
    import torch

    torch.set_num_threads(serve.cores())
    x, out = torch.from_numpy(a), torch.empty(a.shape)
    return lambda: torch.mm(x, x, out=out)


if __name__ == "__main__":
    with serve.Answers() as answers:
        matrix = np.random.default_rng(0).normal(size=(serve.GEMM_WIDTH,) * 2).astype(np.float32)
        multiply = {"jax": by_jax, "torch": by_torch}[sys.argv[1]](matrix)

        def step(i: int) -> tuple[float, float]:
            multiply()
            return 0.0, 0.0

        serve.serve(answers, {}, step)
