"""Momentum, signs, and ratios of norms: SGDW, Lion, Signum, SVRM, MARS, LARS, LAMB."""

from tests.mutations.pieces import Rows, drop, put, swap

ROWS: Rows = {
    "sgdw.py::heavy_ball.update.add": [
        (put("== 0", "< 0"), "SGDW: the first buffer dampened", "test_formulas.py -k dampening"),
        (
            put("one_minus(dampening", "one_minus(momentum"),
            "SGDW: an average instead of a sum",
            "test_golden.py -k sgdw_m98",
        ),
    ],
    "sgdw.py::heavy_ball.update": [
        (
            put("updates, mu)", "updates, state.mu)"),
            "SGDW: Nesterov looks ahead with the buffer before this gradient",
            "test_golden.py -k sgdw_m90_nesterov",
        ),
    ],
    "sgdw.py::SgdwConfig.direction": [
        (drop("self.dampening,"), "SGDW: dampening not passed on", "test_formulas.py -k dampening"),
        (put("self.nesterov", "False"), "SGDW: no Nesterov", "test_golden.py -k sgdw_m90_nesterov"),
    ],
    "lion.py::LionConfig.direction": [
        (swap("self.b1", "self.b2"), "Lion: betas swapped", "test_golden.py -k lion"),
        (put("self.b1", "self.b2"), "Lion: the sign of the momentum alone", "test_golden.py -k lion"),
    ],
    "lion.py::SignumConfig.direction": [
        (put("(self.b1", "(0.0"), "Signum: the sign of the gradient", "test_golden.py -k signum"),
        (
            put("self.b1, self.b1", "1 - self.b1, 1 - self.b1"),
            "Signum: b1 and 1 - b1 swapped",
            "test_golden.py -k signum",
        ),
    ],
    "svrm.py::scale_by_svrm.update.direction": [
        (put("g, m, gamma", "m, g, gamma"), "SVRM: gamma and 1 - gamma swapped", "test_golden.py -k svrm"),
        (
            put("(jnp.sqrt(v) + jnp.asarray(eps).astype(v.dtype))", "jnp.sqrt(v + jnp.asarray(eps).astype(v.dtype))"),
            "SVRM: eps inside the root",
            "test_golden.py -k svrm",
        ),
    ],
    "svrm.py::SvrmConfig.direction": [
        (swap("self.b1", "self.b2"), "SVRM: betas swapped", "test_golden.py -k svrm"),
    ],
    "svrm.py::SvrmConfig.rate_multipliers": [
        (
            swap("self.attention_multiplier", "self.mlp_multiplier"),
            "SVRM: the factors of attention and MLP swapped",
            "test_golden.py -k svrm",
        ),
        (put("self.mlp_multiplier", "1.0"), "SVRM: the MLP's factor not passed on", "test_formulas.py -k svrm"),
    ],
    "mars.py::reduce_variance.update.corrected": [
        (put("g - previous", "previous - g"), "MARS: the correction with the wrong sign", "test_golden.py -k mars"),
        (
            drop("/ jnp.maximum(jnp.linalg.norm(c), 1.0)"),
            "MARS: corrected gradients not clipped",
            "test_golden.py -k mars",
        ),
    ],
    "mars.py::reduce_variance.update": [
        (
            put(
                "map_params(corrected, updates, state.previous)",
                "(c := map_params(corrected, updates, state.previous))",
            )
            + put("ReduceVarianceState(updates)", "ReduceVarianceState(c)"),
            "MARS: the last corrected gradient for the last gradient",
            "test_golden.py -k mars",
        ),
    ],
    "mars.py::MarsConfig._of_vectors": [
        (
            put("self.vector_b1", "self.b1") + put("self.vector_b2", "self.b2"),
            "MARS: vectors with the decays of matrices",
            "test_golden.py -k mars",
        ),
        (
            drop('"mu_dtype",'),
            "bfloat16 momenta: not those of MARS's vectors",
            'test_table.py -k "momenta_in_bfloat16 and mars"',
        ),
    ],
    "trust_ratio.py::scale_by_lars_ratio.update.scaled": [
        (
            put("c * p_norm / (g_norm + wd * p_norm)", "c * g_norm / (p_norm + wd * g_norm)"),
            "LARS: the ratio upside down",
            "test_golden.py -k lars",
        ),
        (put("(g + wd * p)", "g"), "LARS: no decay", "test_formulas.py -k lars"),
    ],
    "trust_ratio.py::LarsConfig.direction": [
        (
            put("chain(", "chain(heavy_ball(self.momentum), ") + drop(", heavy_ball(self.momentum)"),
            "LARS: the momentum scaled instead of the gradients",
            "test_golden.py -k lars",
        ),
        (
            drop(", self.decay_mask(labels)"),
            "LARS: roles that must not decay do",
            'test_table.py -k "decay_is_by_role and lars"',
        ),
        (put("self.trust_coefficient", "0.001"), "LARS: its coefficient not passed on", "test_formulas.py -k lars"),
    ],
    "trust_ratio.py::LambConfig.direction": [
        (
            swap(
                "optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels))",
                "ratio if labels is None else per_layer(ratio, labels)",
            ),
            "LAMB: decay after the ratio",
            "test_golden.py -k lamb",
        ),
        (
            drop(", self.decay_mask(labels)"),
            "LAMB: roles that must not decay do",
            'test_table.py -k "decay_is_by_role and lamb"',
        ),
        (put("self.eps", "0.0, eps_root=self.eps"), "LAMB: eps inside the root", "test_golden.py -k lamb"),
        (
            drop("if labels is None else per_layer(ratio, labels)"),
            "LAMB: one norm for all stacked layers",
            'test_table.py -k "stacked_layers and lamb"',
        ),
    ],
}
