"""AdamW, and second moments by block: Adalayer, Adalayer*, Adam-mini, frozen, ALMVR, hybrids, the layer-adaptive."""

from tests.mutations.pieces import Rows, drop, put, swap

ROWS: Rows = {
    "adamw.py::AdamWConfig.direction": [
        (swap("self.b1", "self.b2"), "AdamW: betas swapped", "test_golden.py -k adamw_b95_eps1e-15_wd0"),
        (
            put("self.eps", "0.0, eps_root=self.eps"),
            "AdamW: eps inside the root",
            "test_identities.py -k layer_adaptive_adamw_without",
        ),
        (
            put("self.eps", "self.eps, debias_mean=False"),
            "AdamW: no bias correction of m",
            "test_golden.py -k adamw_b95_eps1e-15_wd0",
        ),
    ],
    "block_adam.py::block_mean_square": [
        (
            put(
                'size if normalization == "mean" else math.sqrt(size)',
                'math.sqrt(size) if normalization == "mean" else size',
            ),
            "Adalayer: Algorithm 1 as printed instead of the mean",
            "test_golden.py -k adalayer_wd0",
        ),
        (
            drop('/ (size if normalization == "mean" else math.sqrt(size))'),
            "Adalayer: the sum of squares for their mean",
            "test_golden.py -k adalayer_wd0",
        ),
    ],
    "block_adam.py::scale_by_block_adam.update.floor": [
        (put("eps(count)", "eps(state.count)"), "layer-adaptive: eps of the step before", "test_golden.py -k dyneps"),
    ],
    "block_adam.py::scale_by_block_adam.update.direction": [
        (
            put("(jnp.sqrt(v_hat + inside) + outside)", "jnp.sqrt(v_hat + inside + outside)"),
            "Adam by blocks: eps inside the root",
            "test_golden.py -k adam_mini",
        ),
    ],
    "block_adam.py::scale_by_block_adam.update.direction.m_hat": [
        (
            drop("/ bias_correction(b, count, m.dtype)"),
            "Adalayer: no bias correction of m",
            "test_golden.py -k adalayer_wd0",
        ),
        (put("else m", "else m * (1 - b)"), "ALMVR: m not corrected and smaller", "test_golden.py -k almvr"),
    ],
    "block_adam.py::scale_by_block_adam.update.direction.v_hat": [
        (put("b2", "b"), "Adalayer: bias correction of v with b1", "test_golden.py -k adalayer_wd0"),
        (drop("if calibration is None else v"), "frozen: v bias-corrected", "test_golden.py -k frozen"),
    ],
    "block_adam.py::_calibrated": [
        (put("(count + 1)", "count"), "frozen: sum / T for sum / (T + 1)", "test_golden.py -k frozen"),
        (put("<=", "<"), "frozen: T - 1 updates of calibration", "test_golden.py -k frozen"),
        (
            put("ema(v, square, b2) if live else v", "v if live else ema(v, square, b2)"),
            "frozen: live and frozen roles swapped",
            "test_golden.py -k frozen",
        ),
    ],
    "block_adam.py::adalayer_star_blocks.apart": [
        (
            put('"vocab", "out"', '"embed",'),
            "Adalayer*: mean over the head's vocabulary axis",
            "test_golden.py -k adalayer_star_wd0",
        ),
        (
            drop('"head": ("vocab", "out")'),
            "Adalayer*: one second moment for the head",
            "test_golden.py -k adalayer_star_wd0",
        ),
        (
            put('("vocab",)', '("vocab",) if tied else ("embed",)'),
            "Adalayer*: the first-layer correction by column",
            "test_formulas.py -k first_layer",
        ),
        (drop("tied or"), "Adalayer*: a tied embedding is no head", "test_identities.py -k tied"),
        (drop("or first_layer"), "Adalayer*: no first-layer correction", "test_identities.py -k adalayer_star"),
    ],
    "block_adam.py::adam_mini_axes": [
        (
            put('"heads", "kv_heads"', '"head_dim",'),
            "Adam-mini: a block per dimension of the heads",
            "test_golden.py -k adam_mini",
        ),
        (put("output_axes(label)", "groups[0]"), "Adam-mini: a block per input neuron", "test_golden.py -k adam_mini"),
        (
            put('"head_dim" in label.axes', 'label.role == "attention"'),
            "Adam-mini: values and outputs by head",
            "test_identities.py -k adam_mini",
        ),
        (
            put("not in others", "in others"),
            "Adam-mini: a block per dimension of embedding and head",
            "test_golden.py -k adam_mini",
        ),
    ],
    "block_adam.py::AdamMiniConfig": [
        (
            drop('decay_roles: tuple[str, ...] = ("embedding", "attention", "mlp", "head")'),
            "Adam-mini: norms decay",
            "test_formulas.py -k norms_do_not",
        ),
    ],
    "frozen.py::FrozenConfig.part": [
        (
            drop("None if label.role in self.untrained_roles else"),
            "frozen: untrained roles move",
            "test_identities.py -k untrained",
        ),
    ],
    "almvr.py::AlmvrConfig.decay_roles": [
        (put('"mlp"', '"mlp", "norm"'), "ALMVR: norms decay", "test_golden.py -k almvr"),
    ],
    "almvr.py::AlmvrConfig.direction": [
        (
            put("0.0, blocks, eps_root=self.eps", "self.eps, blocks"),
            "ALMVR: eps outside the root",
            "test_golden.py -k almvr",
        ),
        (drop(", debias_mean=False"), "ALMVR: bias correction of m", "test_golden.py -k almvr"),
        (swap("self.b1", "self.b2"), "ALMVR: betas swapped", "test_golden.py -k almvr"),
        (put('"tensor"', '"element"'), "ALMVR: granularities swapped", "test_golden.py -k almvr"),
    ],
    "layer_adaptive.py::_line": [
        (
            put("max(layers - 1, 1)", "layers"),
            "layer-adaptive: the line ends a layer early",
            "test_identities.py -k depth_multipliers",
        ),
    ],
    "layer_adaptive.py::LayerAdaptiveAdamWConfig.eps_at": [
        (
            swap("(least, base)", "(base, least)"),
            "layer-adaptive: branches of eps's warmup swapped",
            "test_golden.py -k dyneps",
        ),
        (
            put("t - warmup if self.eps_continuous else t", "t if self.eps_continuous else t - warmup"),
            "layer-adaptive: branches of eps's decay swapped",
            "test_golden.py -k dyneps",
        ),
        (put("<", "<="), "layer-adaptive: eps jumps a step late", "test_identities.py -k eps_over_time"),
        (
            put("jnp.maximum(late, least)", "late"),
            "layer-adaptive: eps falls below its minimum",
            "test_identities.py -k eps_over_time",
        ),
    ],
    "layer_adaptive.py::LayerAdaptiveAdamWConfig.depth_multipliers": [
        (
            put("1, layers + 1", "2, layers + 2"),
            "layer-adaptive: depth off by one",
            "test_identities.py -k depth_multipliers",
        ),
        (
            put("jnp.mean", "jnp.sum"),
            "layer-adaptive: multipliers with sum 1 for mean 1",
            "test_identities.py -k depth_multipliers",
        ),
        (
            swap("-0.5", "-1.0"),
            "layer-adaptive: 1 / l and 1 / sqrt(l) swapped",
            "test_identities.py -k depth_multipliers",
        ),
    ],
    "layer_adaptive.py::LayerAdaptiveAdamWConfig._b1": [
        (
            put("_line(first, last", "_line(last, first"),
            "layer-adaptive: b1 from the last layer to the first",
            "test_identities.py -k a_layer_has_its_rate",
        ),
    ],
    "layer_adaptive.py::LayerAdaptiveAdamWConfig.rate_multipliers": [
        (
            put("jnp.ones(())", "jnp.asarray(self.first_multiplier)"),
            "layer-adaptive: embedding and head at the first layer's rate",
            "test_identities.py -k a_layer_has_its_rate",
        ),
    ],
    "layer_adaptive.py::LayerAdaptiveAdamWConfig.direction": [
        (
            drop("clip_by_layer_norm(self.max_layer_norm, labels),")
            + put("adam)", "adam, clip_by_layer_norm(self.max_layer_norm, labels))"),
            "layer-adaptive: directions clipped instead of gradients",
            "test_formulas.py -k clipped_before",
        ),
    ],
    "hybrid.py::HybridConfig._group": [
        (swap('"adaptive"', '"sgd"'), "hybrid: roles swapped", "test_golden.py -k hybrid_sgd_adafactor"),
        (put('"untrained"', '"sgd"'), "hybrid: untrained roles move", "test_golden.py -k no_norm_training"),
    ],
    "hybrid.py::HybridConfig.direction": [
        (
            put("debiased_ema(self.b1)", "optax.ema(self.b1, debias=False)"),
            "hybrid: SGD's average not bias-corrected",
            "test_golden.py -k hybrid_sgd_adalayer_last_norm",
        ),
        (
            drop('if self.sgd == "heavy_ball" else debiased_ema(self.b1)'),
            "hybrid: heavy ball for the bias-corrected average",
            "test_golden.py -k hybrid_sgd_adafactor",
        ),
    ],
    "hybrid.py::HybridConfig.make": [
        (
            put("held(self.calibration_steps, at, multiplier)", "at(multiplier)"),
            "hybrid: SGD moves while the adaptive part is calibrated",
            "test_groups.py -k calibration_inside",
        ),
        (
            put("self.adaptive.make", "dataclasses.replace(self.adaptive, learning_rate=self.learning_rate).make"),
            "hybrid: one rate for two",
            "test_golden.py -k hybrid_sgd_adalayer_last_norm",
        ),
        (
            put("self.adaptive.make(multiplier", "self.adaptive.make(1.0"),
            "hybrid: the adaptive part follows no schedule",
            "test_golden.py -k hybrid_sgd_adalayer_last_norm",
        ),
    ],
}
