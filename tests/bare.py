"""The optimizers, and what the commands say, where nothing but jax and optax is installed: `make bare`."""

import contextlib
import io
import runpy
import sys

import jax
import jax.numpy as jnp
import optax

from jaxopt_lm import optimizers
from jaxopt_lm.optimizers import Label, label_params

RULES = [
    ("embed", Label(("vocab", "embed"), "embedding")),
    (r"(?P<layer>\d)/up", Label(("embed", "mlp"), "mlp")),
    (r"\d/norm", Label(("embed",), "norm")),
    ("head", Label(("embed", "vocab"), "head")),
]


MISSING = "error: tyro is not installed, which this command needs: pip install 'jaxopt_lm[train]'\n"


def ended(command: str) -> tuple[object, str]:
    """Exit code and standard error of a command line."""
    sys.argv, errors = [command, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            runpy.run_module(f"jaxopt_lm.{command}", run_name="__main__")
    except SystemExit as stop:
        return stop.code, errors.getvalue()
    return None, errors.getvalue()


def main() -> None:
    layers = {str(i): {"up": jnp.ones((4, 5)), "norm": jnp.ones(4)} for i in range(2)}
    params = {"embed": jnp.ones((6, 4)), "head": jnp.ones((4, 6)), **layers}
    labels = label_params(params, RULES)
    grads = jax.tree.map(lambda p: jnp.sin(1.0 + jnp.arange(p.size)).reshape(p.shape), params)
    curvature = {"sampled_grads": lambda: grads, "hutchinson": lambda: grads, "batch_tokens": 100}
    for name in optimizers.OPTIMIZERS:
        fields = {"calibration_steps": 1} if name == "frozen" else {}
        tx = optax.with_extra_args_support(getattr(optimizers, name)(labels=labels, **fields))
        state, moved, updates = tx.init(params), params, params
        for _ in range(2):
            updates, state = tx.update(grads, state, moved, **curvature)
            moved = optax.apply_updates(moved, updates)
        assert not jnp.array_equal(moved["head"], params["head"]), name
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(moved)), name
        optimizers.telemetry_by_role(optimizers.telemetry(state, params, updates), labels)
    for command in ("train", "prepare", "plan", "evaluate", "export", "report"):
        assert ended(command) == (2, MISSING), ended(command)
    heavy = {"flax", "orbax", "tensorflow", "seqio", "grain", "rich", "tyro"} & sys.modules.keys()
    assert not heavy, f"importing the optimizers loaded {sorted(heavy)}"
    print(f"{len(optimizers.OPTIMIZERS)} optimizers work with jax {jax.__version__} and optax {optax.__version__}")


if __name__ == "__main__":
    main()
