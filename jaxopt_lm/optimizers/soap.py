"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.block_adam import scale_by_block_adam
from jaxopt_lm.optimizers.config import AdamConfig, check, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import as_matrix, is_matrix, partition, require_labels
from jaxopt_lm.optimizers.labelling import without_variables
from jaxopt_lm.optimizers.muon import MATRIX_ROLES
from jaxopt_lm.optimizers.trees import bias_correction, ema, map_params, next_count, widen


class SoapMatrix(NamedTuple):
    """What SOAP keeps of one matrix [n, m]; all with a leading axis where layers are stacked.

    Attributes:
      mu: average of gradients, [n, m].
      nu: average of squared gradients in the eigenbases, [n, m].
      left: average of g g^T, [n, n]; [0, 0] where n is too long to be rotated.
      right: average of g^T g, [m, m], or [0, 0].
      left_basis: eigenvectors of left as columns, largest first; of left's shape.
      right_basis: eigenvectors of right.
    """

    mu: jax.Array
    nu: jax.Array
    left: jax.Array
    right: jax.Array
    left_basis: jax.Array
    right_basis: jax.Array


class ScaleBySoapState(NamedTuple):
    """State of `scale_by_soap`.

    Attributes:
      count: updates made so far, int32.
      matrices: a `SoapMatrix` for each parameter.
    """

    count: jax.Array
    matrices: Any


def scale_by_soap(
    b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, labels: Any, *, interval: int, max_dim: int
) -> optax.GradientTransformation:
    """Adam on Q_L^T g Q_R, rotated back; Q_L, Q_R the eigenbases of the averages of g g^T and g^T g.

    The first update sets the bases and is zero; its gradient enters neither average of Adam. Afterwards the bases
    follow by
    one power iteration and a QR decomposition every `interval` updates, after the update.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of squares and of both preconditioners.
      eps: added to the root, before its bias correction.
      labels: the parameters' tree of `Label`s; each is a matrix in each layer.
      interval: updates between changes of basis; structure, not a number.
      max_dim: a longer side is not rotated.

    Reference: Vyas et al. 2024, arXiv 2409.11321.
    """

    def init(params):
        def one(p, label):
            x = as_matrix(p, label)
            sides = [size if size <= max_dim else 0 for size in x.shape[-2:]]
            left, right = (jnp.zeros((*x.shape[:-2], size, size), x.dtype) for size in sides)
            return SoapMatrix(*map(jnp.zeros_like, (x, x, left, right, left, right)))

        bare, bare_labels = without_variables((widen(params), labels))  # a variable holds one array
        return ScaleBySoapState(jnp.zeros((), jnp.int32), map_params(one, bare, bare_labels))

    def update(updates, state, params=None):
        del params
        updates = widen(updates)
        grads = map_params(as_matrix, updates, labels)
        directions, matrices = jax.lax.cond(
            state.count == 0,
            lambda: (optax.tree.zeros_like(grads), map_params(first, grads, state.matrices)),
            lambda: later(grads, state),
        )
        directions = map_params(lambda g, u: u.reshape(g.shape), updates, directions)
        return directions, ScaleBySoapState(next_count(state.count), matrices)

    def averaged(g, s):
        """Both preconditioners with one gradient more."""
        left = ema(s.left, g @ _t(g), b2) if s.left.size else s.left
        return left, ema(s.right, _t(g) @ g, b2) if s.right.size else s.right

    def first(g, s):
        left, right = averaged(g, s)
        return s._replace(left=left, right=right, left_basis=_eigenbasis(left), right_basis=_eigenbasis(right))

    def later(grads, state):
        def adam(g, s):
            rotated = _rotate(g, s)
            return s._replace(mu=ema(s.mu, g, b1), nu=ema(s.nu, jnp.square(rotated), b2))

        def direction(g, s):
            m = _rotate(s.mu, s)
            scale = jnp.sqrt(bias_correction(b2, state.count, g.dtype)) / bias_correction(b1, state.count, g.dtype)
            u = m / (jnp.sqrt(s.nu) + jnp.asarray(eps).astype(g.dtype))
            return scale * _rotate_back(u, s)

        def precondition(g, s):
            left, right = averaged(g, s)
            return s._replace(left=left, right=right)

        matrices = map_params(adam, grads, state.matrices)
        directions = map_params(direction, grads, matrices)
        matrices = map_params(precondition, grads, matrices)
        turn = state.count % interval == 0
        return directions, jax.lax.cond(
            turn, lambda m: map_params(lambda _, s: _turned(s), grads, m), lambda m: m, matrices
        )

    return optax.GradientTransformation(init, update)


def _t(x):
    return jnp.swapaxes(x, -1, -2)


def _rotate(x: jax.Array, s: SoapMatrix) -> jax.Array:
    x = _t(s.left_basis) @ x if s.left.size else x
    return x @ s.right_basis if s.right.size else x


def _rotate_back(x: jax.Array, s: SoapMatrix) -> jax.Array:
    x = s.left_basis @ x if s.left.size else x
    return x @ _t(s.right_basis) if s.right.size else x


def _finite(a: jax.Array) -> jax.Array:
    """a, or where products in it have overflowed the identity, whose power iteration leaves a basis as it is."""
    identity = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    return jnp.where(jnp.isfinite(a).all((-2, -1), keepdims=True), a, identity)


def _eigenbasis(a: jax.Array) -> jax.Array:
    """Eigenvectors as columns, the largest eigenvalue's first."""
    if not a.size:
        return a
    a = _finite(a)
    _, vectors = jnp.linalg.eigh(a + jnp.broadcast_to(1e-30 * jnp.eye(a.shape[-1], dtype=a.dtype), a.shape))
    return vectors[..., ::-1]


def _turned(s: SoapMatrix) -> SoapMatrix:
    """One power iteration of each basis, its columns and nu's entries ordered by their eigenvalue estimates."""
    if s.left.size:
        basis, order = _power_iteration(s.left, s.left_basis)
        s = s._replace(left_basis=basis, nu=jnp.take_along_axis(s.nu, order[..., :, None], -2))
    if s.right.size:
        basis, order = _power_iteration(s.right, s.right_basis)
        s = s._replace(right_basis=basis, nu=jnp.take_along_axis(s.nu, order[..., None, :], -1))
    return s


def _power_iteration(a: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    a = _finite(a)
    values = jnp.sum(basis * (a @ basis), -2)
    order = jnp.argsort(-values, axis=-1)
    return jnp.linalg.qr(a @ jnp.take_along_axis(basis, order[..., None, :], -1))[0], order


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoapConfig(AdamConfig):
    """SOAP on the matrices of attention and MLPs, Adam elsewhere.

    Formula: L, R averages (b2) of g g^T, g^T g; Q their eigenbases; v average of (Q_L^T g Q_R)^2;
      u = Q_L (Q_L^T m Q_R / (sqrt(v) + eps)) Q_R^T sqrt(1 - b2^k) / (1 - b1^k), k = t - 1; u_1 = 0
    Eps: added to the root, before its bias correction; Adam's after
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u; the published code decays after the step, and not at t = 1
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter and, of a matrix [n, m], 8 (n^2 + m^2)
    Differs: optax has none; matrices by axes and roles, layers apart
    Paper: Vyas et al. 2024, arXiv 2409.11321; github nikhilvyas/SOAP
    """

    learning_rate: float = 3e-3
    b1: float = 0.95
    b2: float = 0.95
    eps: float = 1e-8
    interval: int = 10
    """Updates between changes of basis."""
    max_dim: int = 10_000
    """A longer side of a matrix is not rotated."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "interval", 1)
        check(self, "max_dim", 1)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        require_labels(labels, "matrices are chosen")
        parts = {
            "matrix": scale_by_soap(self.b1, self.b2, self.eps, labels, interval=self.interval, max_dim=self.max_dim),
            "rest": scale_by_block_adam(self.b1, self.b2, self.eps),
        }
        return partition(parts, self._group, labels)

    def _group(self, label: Label) -> str:
        return "matrix" if is_matrix(label, MATRIX_ROLES) else "rest"


def soap(
    learning_rate: Number = SoapConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = SoapConfig.b1,
    b2: Number = SoapConfig.b2,
    eps: Number = SoapConfig.eps,
    interval: int | None = None,
    max_dim: int | None = None,
    weight_decay: Number = SoapConfig.weight_decay,
    decay_roles: Sequence[str] = SoapConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SoapConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner on matrices of attention and MLPs, Adam elsewhere.

        m <- b1 m + (1 - b1) g
        L, R <- averages, decay b2, of g g^T and g^T g; Q_L, Q_R their eigenbases, renewed every `interval` updates
        v <- b2 v + (1 - b2) (Q_L^T g Q_R)^2
        u = Q_L (Q_L^T m Q_R / (sqrt(v) + eps)) Q_R^T sqrt(1 - b2^k) / (1 - b1^k), k = t - 1; 0 at t = 1
        p <- p (1 - lr wd) - lr u

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      interval: updates between changes of basis; None: 10.
      max_dim: a longer side of a matrix is not rotated; None: 10000.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, soap
      >>> labels = {"up": Label(("embed", "mlp"), "mlp")}
      >>> params = {"up": jnp.ones((2, 3))}
      >>> tx = soap(3e-3, labels)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(jnp.abs(updates["up"]).max())  # the first update sets the bases
      0.0

    Reference: Vyas et al. 2024, arXiv 2409.11321; github nikhilvyas/SOAP.
    """
    return construct(SoapConfig, **locals())
