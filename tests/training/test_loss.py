"""Cross-entropy and z-loss: values, gradients, masks, higher derivatives, and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lm.training.loss import Batch, num_targets, summed_losses, token_losses

B, L, V = 3, 5, 7


@pytest.fixture
def logits():
    return 3 * jax.random.normal(jax.random.key(0), (B, L, V))


@pytest.fixture
def batch():
    is_target = jnp.ones((B, L)).at[1, 3:].set(0).at[2].set(0)
    return Batch(jax.random.randint(jax.random.key(1), (B, L), 0, V), is_target)


def plain(logits, batch):
    """The same sums, written position by position."""
    ce = z = 0.0
    for b in range(B):
        for t in range(1, L):
            log_z = jnp.log(jnp.sum(jnp.exp(logits[b, t - 1])))
            ce += batch.is_target[b, t] * (log_z - logits[b, t - 1, batch.tokens[b, t]])
            z += batch.is_target[b, t] * log_z**2
    return ce, z


def test_values_and_gradients(logits, batch):
    for mine, reference in zip(summed_losses(logits, batch), plain(logits, batch), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5)

    def total(fn):
        return jax.grad(lambda x: (lambda ce, z: ce + 0.3 * z)(*fn(x, batch)))(logits)

    np.testing.assert_allclose(total(summed_losses), total(plain), rtol=1e-5, atol=1e-6)


def test_count_and_mask(logits, batch):
    assert float(num_targets(batch)) == 4 + 2
    masked_token = batch.tokens.at[1, 4].set((batch.tokens[1, 4] + 1) % V)
    first_token = batch.tokens.at[:, 0].set(0)
    for tokens in (masked_token, first_token):
        np.testing.assert_allclose(summed_losses(logits, batch._replace(tokens=tokens)), summed_losses(logits, batch))


def test_huge_logits_stay_finite(batch):
    logits = jnp.full((B, L, V), -1e4).at[..., 0].set(1e4)
    ce, z = summed_losses(logits, batch)
    grads = jax.grad(lambda x: summed_losses(x, batch)[0])(logits)
    assert np.isfinite([float(ce), float(z)]).all()
    assert np.isfinite(grads).all()


def test_hessian_vector_product_and_vmap(logits):
    """Sophia differentiates twice; sweeps vmap."""
    flat, targets, v = logits.reshape(-1, V), jnp.arange(B * L) % V, jnp.ones((B * L, V)).at[:, 0].set(-2.0)

    def mine(x):
        return token_losses(x, targets)[0].sum()

    def reference(x):
        return -jnp.take_along_axis(jax.nn.log_softmax(x), targets[:, None], 1).sum()

    hvps = [jax.jvp(jax.grad(fn), (flat,), (v,))[1] for fn in (mine, reference)]
    np.testing.assert_allclose(*hvps, rtol=1e-4, atol=1e-6)
    together = jax.vmap(jax.grad(mine))(jnp.stack([flat, 2 * flat]))
    np.testing.assert_allclose(together[1], jax.grad(mine)(2 * flat), rtol=1e-5, atol=1e-7)


def test_no_second_tensor_of_logits():
    """Compiled temporaries of the loss's gradient stay below two float32 logits tensors, head products included."""
    batch_size, length, width, vocab = 4, 64, 8, 8192
    batch = Batch(jnp.zeros((batch_size, length), jnp.int32), jnp.ones((batch_size, length)))

    def loss(hidden, head):
        flat = hidden.reshape(-1, width) @ head
        ce, z = summed_losses(flat.reshape(batch_size, length, vocab), batch)
        return ce + 1e-4 * z

    arguments = (jnp.zeros((batch_size, length, width)), jnp.zeros((width, vocab)))
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.5 * batch_size * length * vocab * 4
