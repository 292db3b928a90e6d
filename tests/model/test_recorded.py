"""The decoder against recorded numbers: of the reference of the papers and of OLMo as released."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import model
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import AdamWConfig, SgdwConfig
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.training.step import HParams, TrainState, init_state, make_train_step
from tests.conftest import GOLDEN
from tests.model.functions import logits_of, loss_and_grads, mean_loss, whole

FULL = pytest.mark.full  # of a recorded model, which is unrolled; stacked ones equal those, see below

OLMO = preset(
    "150m",
    vocab_size=512,
    num_layers=2,
    embed_dim=128,
    num_heads=2,
    num_kv_heads=2,
    mlp_dim=512,
    qk_norm="none",
    scan_layers=False,
    compute_dtype="float32",
)


def from_torch(arrays, prefix: str, dtype=np.float32, config=OLMO) -> model.Params:
    """Parameters from the recorded torch names and layouts, unrolled."""
    heads, width, d = config.num_heads, config.head_width, config.embed_dim

    def get(name):
        return np.asarray(arrays[f"{prefix}/transformer.{name}.weight"], dtype)

    def kernel(rows):  # [H * K, d] -> [d, H, K]
        return rows.reshape(heads, width, d).transpose(2, 0, 1)

    params = {"embed": get("wte"), "head": get("ff_out_last").T, "final_norm": {"scale": get("ln_f")}}
    for layer in range(config.num_layers):
        block = f"blocks.{layer}"
        query, key, value = (kernel(rows) for rows in np.split(get(f"{block}.att_proj"), 3))
        params[f"layer_{layer:02d}"] = {
            "attention_norm": {"scale": get(f"{block}.attn_norm")},
            "attention": {
                "query": query,
                "key": key,
                "value": value,
                "out": get(f"{block}.attn_out").T.reshape(heads, width, d),
            },
            "mlp_norm": {"scale": get(f"{block}.ff_norm")},
            "mlp": {"up": get(f"{block}.ff_proj").T, "down": get(f"{block}.ff_out").T},
        }
        if config.qk_norm == "full":
            norms = {name: {"scale": get(f"{block}.{name}")} for name in ("q_norm", "k_norm")}
            params[f"layer_{layer:02d}"]["attention"] |= norms
    return jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def recorded():
    names = {"init": "olmo_init", "fixed": "olmo_fixed_noqkz", "trajectory": "trajectory_adamw_noqkz"}
    return {key: np.load(GOLDEN / "model" / f"{name}.npz") for key, name in names.items()}


@pytest.mark.parametrize("scan_layers", [False, pytest.param(True, marks=FULL)])
@pytest.mark.usefixtures("optimized")
def test_recorded_logits_losses_and_gradients(recorded, scan_layers):
    fixed, config = recorded["fixed"], dataclasses.replace(OLMO, scan_layers=scan_layers)
    shape = model.stack_layers if scan_layers else lambda params: params
    params = shape(from_torch(recorded["init"], "w"))
    batch = whole(recorded["init"]["fixed_tokens"])
    with jax.default_matmul_precision("highest"):
        logits = logits_of(config, params, batch.tokens)
        ce, grads = loss_and_grads(config, params, batch)
    np.testing.assert_allclose(logits[:1], fixed["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(jax.nn.logsumexp(logits, -1), fixed["logsumexp"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(ce, fixed["ce"], atol=1e-5, rtol=0)
    expected = shape(from_torch(fixed, "grad"))
    chex.assert_trees_all_equal_shapes(grads, expected)
    jax.tree.map(
        lambda a, b: chex.assert_scalar_negative(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) - 2e-4),
        grads,
        expected,
    )


@pytest.mark.usefixtures("optimized")
def test_recorded_loss_and_gradient_norm_in_float64(recorded, x64):
    config = dataclasses.replace(OLMO, param_dtype="float64", compute_dtype="float64")
    params = from_torch(recorded["init"], "w", np.float64)
    batch = whole(recorded["init"]["fixed_tokens"])
    ce, grads = loss_and_grads(config, params, batch)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(ce, recorded["fixed"]["ce_f64"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(norm, recorded["fixed"]["grad_norm_f64"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=FULL), "float64"])
@pytest.mark.usefixtures("standard_promotion", "optimized")
def test_recorded_training_run(recorded, dtype, request):
    """All 40 AdamW steps: cross-entropy, gradient norm and learning rate, then the evaluation."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    suffix, atol = ("_f64", 1e-10) if dtype == "float64" else ("", 5e-5)
    run = recorded["trajectory"]
    config = dataclasses.replace(OLMO, param_dtype=dtype, compute_dtype=dtype)
    hparams = HParams(
        optimizer=AdamWConfig(learning_rate=3.16e-3, b1=0.9, b2=0.95, eps=1e-15),
        schedule=WarmupCosineConfig(warmup_steps=4, start_fraction=0.1, end_fraction=0.1),
        num_train_steps=40,
        z_loss=0.0,
        max_grad_norm=1.0,
        seed=0,
    )
    params = from_torch(recorded["init"], "w", np.dtype(dtype))
    fresh = init_state(config, hparams)
    state = TrainState(fresh.step, params, fresh.opt_state)
    step = jax.jit(make_train_step(config), donate_argnums=0)
    losses, norms, rates = [], [], []
    with jax.default_matmul_precision("highest"):
        for tokens in recorded["init"]["train_tokens"][:40]:
            state, metrics = step(state, whole(tokens), hparams)
            losses.append(float(metrics["train/loss"]))
            norms.append(float(metrics["grads/norm"]))
            rates.append(float(metrics["learning_rate"]))
        final = mean_loss(config, state.params, whole(recorded["init"]["fixed_tokens"]))
    np.testing.assert_allclose(rates, run["lr"][0], rtol=1e-6)
    np.testing.assert_allclose(losses, run["ce" + suffix], rtol=0, atol=atol)
    np.testing.assert_allclose(norms, run["grad_norm" + suffix], rtol=2e-4 if dtype == "float32" else 1e-8)
    np.testing.assert_allclose(final, run["eval_ce" + suffix], rtol=0, atol=atol)
    assert json.loads(str(recorded["init"]["config"]))["d_model"] == OLMO.embed_dim


@pytest.mark.parametrize("scan_layers", [False, pytest.param(True, marks=FULL)])
@pytest.mark.usefixtures("optimized", "x64", "standard_promotion")
def test_recorded_query_key_norm(scan_layers):
    """OLMo as AI2 released it, with scales of the norms that differ and some queries and keys as small as sqrt(eps).

    The real step, of heavy ball, whose first buffer is the gradient; with z-loss.
    """
    recorded = np.load(GOLDEN / "model" / "olmo_qk_norm.npz")
    meta = json.loads(str(recorded["meta"]))
    unrolled = dataclasses.replace(
        preset("150m", vocab_size=32, num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=24),
        scan_layers=False,
        param_dtype="float64",
        compute_dtype="float64",
    )
    config = dataclasses.replace(unrolled, scan_layers=scan_layers)
    shape = model.stack_layers if scan_layers else lambda params: params
    params, expected = (shape(from_torch(recorded, prefix, np.float64, unrolled)) for prefix in ("w", "grad"))
    np.testing.assert_allclose(logits_of(config, params, recorded["tokens"]), recorded["logits"], rtol=1e-9, atol=1e-11)
    hparams = HParams(
        optimizer=SgdwConfig(learning_rate=0.0),
        schedule=WarmupCosineConfig(warmup_steps=1),
        num_train_steps=2,
        z_loss=meta["z_loss"],
        max_grad_norm=None,
        seed=0,
    )
    state = init_state(config, hparams, params)
    state, metrics = jax.jit(make_train_step(config))(state, whole(recorded["tokens"]), hparams)
    np.testing.assert_allclose(metrics["train/loss"], recorded["ce"], rtol=1e-11)
    np.testing.assert_allclose(metrics["train/log_z_squared"], recorded["log_z_squared"], rtol=1e-11)
    assert_grads_close(optax.tree.get(state.opt_state, "mu"), expected)


def assert_grads_close(found, expected):
    """Every leaf within 1e-9 of its largest entry, which no leaf lacks."""
    for (path, x), y in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        largest = float(jnp.abs(y).max())
        assert largest > 1e-6, path
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * largest, err_msg=jax.tree_util.keystr(path))
