"""What optimizers share: decay and rate, schedules, clipping, arithmetic, bfloat16 momenta, groups, telemetry."""

from tests.mutations.pieces import Rows, drop, put, swap

ROWS: Rows = {
    "config.py::OptimizerConfig.make": [
        (
            swap("self.direction(labels)", "self.decay(labels)"),
            "decay added to the gradients instead of the directions",
            "test_golden.py -k adamw_b95_eps1e-15_wd0.1",
        ),
        (
            drop("self.decay(labels),")
            + put(
                "self.moments())",
                "self.moments()), optax.add_decayed_weights(-self.weight_decay, self.decay_mask(labels))",
            ),
            "decay not scaled by the rate at all",
            "test_golden.py -k sgdw_m90",
        ),
        (drop("* multiplier"), "the schedule is not applied", "test_golden.py -k lion"),
    ],
    "config.py::OptimizerConfig.decay": [
        (put("self.weight_decay", "-self.weight_decay"), "decay with the wrong sign", "test_golden.py -k sgdw_m90"),
        (
            put("self.weight_decay", "self.weight_decay / self.learning_rate"),
            "decay not scaled by the peak rate",
            'test_of_optax.py -k "AdamWConfig and not ScheduleFree"',
        ),
    ],
    "config.py::OptimizerConfig.decays": [
        (
            put("label.role in self.decay_roles", "True"),
            "roles that must not decay do",
            "test_golden.py -k almvr",
        ),
    ],
    "config.py::by_count.update": [
        (
            put("at(state.count)", "at(next_count(state.count))"),
            "a constructor's schedule off by one step",
            "test_telemetry.py -k scheduled",
        ),
    ],
    "config.py::held": [
        (put(">=", ">"), "frozen: T + 1 updates at rate 0", "test_golden.py -k frozen"),
        (
            put("jnp.asarray(steps)", "jnp.asarray(steps) - 1"),
            "frozen: the last calibration batch steps, as released",
            "test_identities.py -k frozen_everywhere",
        ),
    ],
    "rates.py::scale_by_rate.in_force": [
        (drop("rate *"), "a parameter's multiplier instead of the rate times it", "test_golden.py -k svrm"),
        (put("x(count)", "x(count - 1)"), "the recorded eps is the last update's", "test_formulas.py -k recorded"),
    ],
    "rates.py::scale_by_rate.update": [
        (put("-r", "r"), "uphill", "test_golden.py -k signum"),
        (
            put("state = in_force", "before, state = state, in_force")
            + put(
                "state.learning_rate", "state.learning_rate; state = state._replace(learning_rate=before.learning_rate)"
            ),
            "the recorded rate is the last update's",
            "test_telemetry.py -k scheduled",
        ),
        (
            put(
                "rates), state",
                "rates), state._replace(learning_rate=jax.tree.map(lambda r: jnp.full_like(r, learning_rate), rate))",
            ),
            "the recorded rate lacks the multipliers",
            "test_formulas.py -k recorded",
        ),
    ],
    "schedules.py::ScheduleConfig.multiplier": [
        (put("s + 1 - lead", "s - lead"), "schedules: s from 0", "test_schedules.py -k recorded_cosine"),
        (
            put("s + 1 - lead, total - lead", "s + 1, total"),
            "schedules: run during the calibration",
            "test_schedules.py -k recorded_calibration",
        ),
        (
            put("total - lead", "total"),
            "schedules: longer by the calibration",
            "test_schedules.py -k recorded_calibration",
        ),
        (
            put("* s / jnp", "* (s - 1) / jnp"),
            "schedules: warmup a step late",
            "test_schedules.py -k warmup_is_linear",
        ),
        (
            put("self.warmup_fraction, total", "self.warmup_fraction, total + lead"),
            "schedules: a fraction of the calibration too",
            "test_schedules.py -k fraction",
        ),
    ],
    "schedules.py::_steps": [
        (
            put("rounded(fraction * total)", "fraction * total"),
            "schedules: a fraction's steps not rounded",
            "test_schedules.py -k fraction",
        ),
    ],
    "clipping.py::clip_by_global_norm.update": [
        (drop("+ 1e-6"), "clipping: no 1e-6", "test_config.py -k clipping"),
        (
            put("jnp.minimum(1.0", "jnp.maximum(0.0"),
            "clipping: small gradients grow to the bound",
            "test_config.py -k clipping",
        ),
    ],
    "clipping.py::layer_square_sums.add": [
        (
            put(".add(", ".set("),
            "clipping by layer: the norm of a layer's last tensor alone",
            "test_identities.py -k clipping_by_layer",
        ),
        (
            drop(", tuple(range(1, x.ndim))"),
            "clipping by layer: stacked layers share a norm",
            'test_table.py -k "stacked_layers and layer_adaptive"',
        ),
    ],
    "clipping.py::clip_by_layer_norm.update": [
        (
            put("jnp.sqrt(squares)", "squares"),
            "clipping by layer: squared norms",
            "test_identities.py -k clipping_by_layer",
        ),
    ],
    "trees.py::bias_correction": [
        (put("count.astype", "(count + 1).astype"), "bias correction: t off by one", "test_golden.py -k adalayer_wd0"),
        (put("-jnp.expm1", "jnp.exp"), "bias correction: b^t for 1 - b^t", "test_golden.py -k adalayer_wd0"),
        (
            put("np.float64", "np.float32"),
            "digits: bias correction of a rounded decay",
            "test_decays.py -k bias_corrections",
        ),
    ],
    "trees.py::ema": [
        (
            put("one_minus(decay, old.dtype)", "jnp.asarray(decay).astype(old.dtype)")
            + put("decay)", "one_minus(decay, old.dtype))"),
            "averages: decay and 1 - decay swapped",
            "test_golden.py -k sophiah",
        ),
        (drop("one_minus(decay, old.dtype) *"), "averages: sums", "test_golden.py -k almvr"),
    ],
    "trees.py::one_minus": [
        (put("np.float64", "np.float32"), "digits: 1 - decay of a rounded decay", "test_decays.py -k averages"),
    ],
    "trees.py::decay_and_add": [
        (
            put("(jnp.asarray(rest) * old + added if rest.any() else added)", "added"),
            "digits: averages decay by a rounded decay",
            "test_decays.py -k averages",
        ),
    ],
    "trees.py::_sum_rows": [
        (
            put("range(_ROWS)", "range(_ROWS - 1)"),
            "sums of squares: one row of 32 left out",
            "test_identities.py -k sums_of_squares",
        ),
    ],
    "trees.py::sum_of_squares": [
        (
            put("jnp.sum(jnp.square(x), reduced, keepdims=True)", "jnp.square(jnp.sum(x, reduced, keepdims=True))"),
            "sums of squares: squares of sums",
            "test_golden.py -k adalayer_wd0",
        ),
    ],
    "trees.py::MOMENTA": [
        (
            put('"m1"', '"m1", "m2"'),
            "bfloat16 momenta: AdEMAMix's slow average too",
            'test_table.py -k "momenta_in_bfloat16 and ademamix"',
        ),
    ],
    "trees.py::_narrow_momenta": [
        (
            put("lambda node: structure(node) == below", "None"),
            "bfloat16 momenta: names of parameters are taken for them",
            "test_table.py -k names_of_parameters",
        ),
    ],
    "trees.py::with_wide_state.init": [
        (
            put("_narrow_momenta(_copied(inner.init(wide), wide), wide, mu_dtype)", "inner.init(wide)"),
            "bfloat16 momenta: they are not",
            'test_table.py -k "momenta_in_bfloat16 and svrm"',
        ),
    ],
    "trees.py::with_wide_state.update": [
        (
            put("x.astype(like.dtype), state", "x, state"),
            "bfloat16 momenta: the update is computed in bfloat16",
            'test_table.py -k "momenta_in_bfloat16 and (lars or adopt or novograd)"',
        ),
    ],
    "groups.py::layer_positions": [
        (
            put("number: position for position, number in enumerate(numbers)", "number: number for number in numbers"),
            "layers: numbered from 1 counted from 0",
            "test_partial.py -k position",
        ),
    ],
    "groups.py::num_layers": [
        (
            put("len(layer_positions(labels))", "max(len(layer_positions(labels)) - 1, 0)"),
            "num_layers: one too few",
            "test_groups.py -k rules_label",
        ),
    ],
    "groups.py::is_matrix": [
        (drop("and len(matrix_axes(label)) == 2"), "is_matrix: vectors too", "test_golden.py -k mars"),
    ],
    "groups.py::matrix_axes": [
        (
            put("_HEAD_AXES and", '("heads", "kv_heads") and') + drop("and label.axes[groups[-1][-1]] in _HEAD_AXES"),
            "matrix_axes: a per-head kernel is the matrix [d * H, K]",
            "test_golden.py -k adafactor_authors",
        ),
        (
            drop('1 if label.axes[groups[0][0]] == "out" else'),
            "matrix_axes: a convolution whose output comes first is split before its last axis",
            "test_habits.py -k convolution",
        ),
    ],
    "groups.py::output_axes": [
        (
            drop('groups[0] if label.axes[groups[0][0]] == "out" else'),
            "output_axes: the last, where the first is",
            "test_habits.py -k muon_scales",
        ),
    ],
    "groups.py::axes_kept.kept": [
        (
            put('("layers", *by_role.get(label.role, ()))', "by_role.get(label.role, ())"),
            "axes_kept: stacked layers share a second moment",
            'test_table.py -k "stacked_layers and adalayer_star"',
        ),
    ],
    "groups.py::by_layer.value": [
        (
            put("per_layer.reshape", "per_layer[::-1].reshape"),
            "by_layer: stacked layers from the last to the first",
            'test_table.py -k "stacked_layers and layer_adaptive"',
        ),
        (
            put("positions[label.layer]", "positions[label.layer] - 1"),
            "by_layer: layers off by one",
            "test_identities.py -k a_layer_has_its_rate",
        ),
    ],
    "groups.py::per_layer": [
        (
            drop('"stacked" if label.axes[:1] == ("layers",) else'),
            "per_layer: stacked layers as one tensor",
            'test_table.py -k "stacked_layers and lars"',
        ),
    ],
    "groups.py::partition": [
        (
            put("lambda _: groups", "groups"),
            "partition: optax calls an equinox module",
            'test_habits.py -k "equinox_modules and frozen"',
        ),
    ],
    "labelling.py::with_mask": [
        (
            put("dataclasses.replace(label, decays=bool(flag))", "label"),
            "a mask of what decays is not heard",
            'test_habits.py -k "a_mask_decays and lars"',
        ),
    ],
    "telemetry.py::QUANTILES": [
        (put('"q25": 0.25', '"q25": 0.75'), "telemetry: quartiles swapped", "test_telemetry.py -k by_role"),
    ],
    "telemetry.py::_parts": [
        (
            put("part._replace(mu=widen(part.mu))", "part"),
            "telemetry: bfloat16 momenta are bias-corrected in bfloat16",
            "test_telemetry.py -k momenta_in_bfloat16",
        ),
    ],
    "telemetry.py::_corrected": [
        (
            drop("/ bias_correction(decay, count, x.dtype)"),
            "telemetry: moments not bias-corrected",
            "test_telemetry.py -k optax.adam",
        ),
    ],
    "telemetry.py::telemetry": [
        (
            put("-u, jnp.sign(m)", "u, jnp.sign(m)"),
            "telemetry: cosine of the update, not of its negative",
            "test_telemetry.py -k signum",
        ),
    ],
}
