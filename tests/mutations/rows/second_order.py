"""Rows and columns of matrices, and curvature: Adafactor, Muon, SOAP, Sophia and its estimators."""

from tests.mutations.pieces import Rows, drop, put, swap

ROWS: Rows = {
    "adafactor.py::row_and_column_means": [
        (
            drop("/ max(g.shape[1 - kept], 1)"),
            "Adafactor: row and column sums for means",
            "test_golden.py -k adafactor_authors",
        ),
        (
            put("1 - kept", "kept"),
            "Adafactor: divided by the length of the wrong axis",
            "test_golden.py -k adafactor_authors",
        ),
    ],
    "adafactor.py::factored": [
        (
            put("jnp.mean", "jnp.sum"),
            "Adafactor: r c / sum(r) for r c / mean(r)",
            "test_golden.py -k adafactor_authors",
        ),
        (
            put("row / mean) * column", "row * column / mean)"),
            "Adafactor: underflow of r c",
            "test_identities.py -k underflow",
        ),
    ],
    "adafactor.py::scale_by_adafactor.squares": [
        (
            drop('(0,) if label.axes[:1] == ("layers",) else'),
            "Adafactor: stacked vectors share their one scalar",
            "test_groups.py -k one_scalar",
        ),
    ],
    "adafactor.py::scale_by_adafactor.squares.kept": [
        (
            swap("stacked", "tuple(range(g.ndim))"),
            "Adafactor: one_scalar_1d inverted",
            "test_golden.py -k adafactor_paper",
        ),
    ],
    "adafactor.py::scale_by_adafactor.update.direction": [
        (
            put("(jnp.sqrt(v_hat) + jnp.asarray(eps)", "jnp.sqrt(v_hat + jnp.asarray(eps)"),
            "Adafactor: eps inside the root",
            "test_identities.py -k underflow",
        ),
        (
            drop("/ bias_correction(b2, count, m.dtype)"),
            "Adafactor: no bias correction of v",
            "test_golden.py -k adafactor_authors",
        ),
    ],
    "adafactor.py::scale_by_adafactor_big_vision.axes": [
        (
            put("shape[order[-2]] >=", "shape[order[-1]] >="),
            "big_vision's Adafactor: the longer axis decides on factoring",
            "test_golden.py -k adafactor_bv",
        ),
    ],
    "adafactor.py::scale_by_adafactor_big_vision.update": [
        (
            put("step **", "(step + 1) **"),
            "big_vision's Adafactor: t off by one",
            "test_golden.py -k adafactor_bv",
        ),
        (
            put("found[0], keepdims", "found[1], keepdims"),
            "big_vision's Adafactor: mean of the rows' factors over the wrong axis",
            "test_golden.py -k adafactor_bv",
        ),
        (
            put("jnp.minimum", "jnp.maximum"),
            "big_vision's Adafactor: the cap of b2 is its floor",
            "test_golden.py -k adafactor_bv",
        ),
        (
            put("jnp.minimum(jnp.asarray(b2_cap), 1", "(1"),
            "big_vision's Adafactor: b2 not capped",
            "test_formulas.py -k big_vision_caps",
        ),
    ],
    "muon.py::MATRIX_ROLES": [
        (put('"mlp"', '"mlp", "head"'), "Muon: the head too", "test_of_optax.py -k muon"),
    ],
    "muon.py::MuonConfig._ahead": [
        (drop("not"), "Muon: no Nesterov", "test_of_optax.py -k muon"),
    ],
    "muon.py::MuonConfig._by_shape": [
        (
            put("columns / max(rows, 1)", "rows / max(columns, 1)"),
            "Muon: rows and columns swapped in the scale",
            "test_of_optax.py -k muon",
        ),
        (
            put("max(rows, columns)", "min(rows, columns)"),
            "Muon: the shorter side in the consistent scale",
            "test_of_optax.py -k muon",
        ),
    ],
    "muon.py::MuonConfig.direction": [
        (put("self.num_iterations", "5"), "Muon: iterations not passed on", "test_formulas.py -k muon"),
    ],
    "soap.py::_rotate": [
        (
            put("_t(s.left_basis) @ x", "s.left_basis @ x"),
            "SOAP: rotation by the transposed basis",
            "test_golden.py -k soap",
        ),
    ],
    "soap.py::_power_iteration": [
        (put("qr(a @", "qr("), "SOAP: no power iteration", "test_golden.py -k soap"),
    ],
    "soap.py::_turned": [
        (
            drop(", nu=jnp.take_along_axis(s.nu, order[..., :, None], -2)"),
            "SOAP: nu not ordered with its basis",
            "test_golden.py -k soap",
        ),
    ],
    "soap.py::scale_by_soap.update": [
        (put("== 0", "< 0"), "SOAP: the first update steps", "test_golden.py -k soap"),
    ],
    "soap.py::scale_by_soap.later": [
        (
            put("b2, state.count", "b2, state.count + 1") + put("b1, state.count", "b1, state.count + 1"),
            "SOAP: bias correction counts the first update",
            "test_golden.py -k soap",
        ),
        (put("state.count %", "(state.count + 1) %"), "SOAP: bases turn a step early", "test_golden.py -k soap"),
        (
            put("jnp.square(rotated)", "jnp.square(g)"),
            "SOAP: second moment of gradients that are not rotated",
            "test_golden.py -k soap",
        ),
    ],
    "soap.py::SoapConfig.direction": [
        (
            put("scale_by_soap(self.b1, self.b2", "scale_by_soap(self.b2, self.b1"),
            "SOAP: betas swapped",
            "test_formulas.py -k soap",
        ),
    ],
    "sophia.py::scale_by_sophia_g.update": [
        (
            put("(state.count > 0) & (state.count % interval == 0)", "(state.count + 1) % interval == 0"),
            "Sophia-G: estimate one step early, before the step",
            "test_golden.py -k sophiag",
        ),
        (
            put("> 0", "> 1") + put("== 0", "== 1"),
            "Sophia-G: estimate one step late",
            "test_golden.py -k sophiag",
        ),
        (drop("(state.count > 0) &"), "Sophia-G: an estimate before the first step", "test_golden.py -k sophiag"),
        (
            put("state = ScaleBySophiaState", "after = ScaleBySophiaState")
            + put("mu, hessian), state", "mu, state.hessian), after"),
            "Sophia-G: the step before the estimate of its update",
            "test_golden.py -k sophiag",
        ),
        (put("jnp.square", "jnp.abs"), "Sophia-G: sampled gradients not squared", "test_golden.py -k sophiag"),
        (
            drop("* jnp.asarray(batch_tokens).astype(m.dtype)"),
            "Sophia-G: no factor of the batch's tokens",
            "test_golden.py -k sophiag",
        ),
    ],
    "sophia.py::scale_by_sophia_h.update": [
        (
            put("state.count %", "(state.count + 1) %"),
            "Sophia-H: estimates at t = k, 2 k, … instead of 1, k + 1, …",
            "test_golden.py -k sophiah",
        ),
        (
            put("state = ScaleBySophiaState", "after = ScaleBySophiaState")
            + put("mu, hessian), state", "mu, state.hessian), after"),
            "Sophia-H: h after the step",
            "test_golden.py -k sophiah",
        ),
        (
            put("widen(hutchinson())", "jax.tree.map(jnp.abs, widen(hutchinson()))"),
            "Sophia-H: estimates without their signs",
            "test_golden.py -k sophiah",
        ),
        (
            put("jnp.maximum(h, least)", "(h + least)"),
            "Sophia-H: eps added to h instead of its least value",
            "test_golden.py -k sophiah",
        ),
    ],
    "curvature.py::sampled_label_grads": [
        (
            put(
                "(jax.vmap(jax.random.categorical) if per_row else jax.random.categorical)(key, logits)",
                "jnp.argmax(logits, -1)",
            ),
            "Gauss-Newton-Bartlett: the likeliest label for a draw",
            "test_of_optax.py -k estimators",
        ),
        (
            put("1 / labels.size", "1.0"),
            "Gauss-Newton-Bartlett: the gradient of the summed loss",
            "test_of_optax.py -k estimators",
        ),
        (
            put("else weights", "else jnp.full(labels.shape, 1 / labels.size)"),
            "Gauss-Newton-Bartlett: weights ignored",
            "test_of_optax.py -k estimators",
        ),
    ],
    "curvature.py::hutchinson": [
        (
            put("jnp.multiply, z", "jnp.multiply, product"),
            "Hutchinson: (H z)^2 for z * (H z)",
            "test_of_optax.py -k estimators",
        ),
    ],
}
