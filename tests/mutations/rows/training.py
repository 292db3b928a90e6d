"""The loss, the step and evaluation."""

from tests.mutations.pieces import Rows, drop, put

ROWS: Rows = {
    "training/loss.py::_token_losses_backward": [
        (
            put("(d_ce_T + d_log_z_T)", "d_ce_T"),
            "loss: no gradient of z-loss",
            "training/test_loss.py -k 'values or count'",
        ),
    ],
    "training/loss.py::summed_losses": [
        (
            put("jnp.square(log_z_T) * weight_T)", "jnp.square(log_z_T)) * jnp.mean(weight_T)"),
            "z-loss: of padding too",
            "training/test_loss.py -k 'values or count'",
        ),
    ],
    "training/loss.py::target_weights": [
        (
            drop(".at[:, 0].set(0)"),
            "loss: the last position predicts the first token",
            "training/test_loss.py -k 'values or count'",
        ),
    ],
    "training/loss.py::num_targets": [
        (drop("[:, 1:]"), "loss: column 0 counts as a target", "training/test_loss.py -k 'values or count'"),
    ],
    "training/step.py::HParams.multiplier": [
        (
            put("self.optimizer.calibration_steps", "0"),
            "step: the schedule runs during the calibration",
            "training/test_step.py -k calibration",
        ),
    ],
    "training/step.py::make_train_step.train_step": [
        (
            put("multiplier(state.step)", "multiplier(state.step + 1)"),
            "step: the schedule a step early",
            'training/test_step.py -k "metrics_say or calibration"',
        ),
        (
            put("_CURVATURE), state.step", "_CURVATURE), 0"),
            "step: the same draws of curvature at every step",
            'training/test_step.py -k "sophia_divides or rows_without or every_estimate"',
        ),
        (
            put("num_targets(batch)", "batch.tokens.size"),
            "Sophia-G: n counts all tokens, not targets",
            "training/test_step.py -k sophia_divides",
        ),
        (
            put("global_norm(params)", "global_norm(state.params)"),
            "metrics: the parameters' norm before the update",
            "training/test_step.py -k metrics_say",
        ),
    ],
    "training/step.py::_applied": [
        (
            put("new, old), optax", "old, new), optax"),
            "step: nothing is applied",
            "training/test_step.py -k metrics_say",
        ),
    ],
    "training/step.py::_Objective._loss": [
        (drop("self.z_loss *"), "step: z-loss without its weight", "training/test_step.py -k metrics_say"),
        (
            put("self.batch", "part"),
            "microbatches: each a mean of its own",
            "training/test_step.py -k microbatches_are",
        ),
    ],
    "training/step.py::_Objective.sampled_grads.of_part": [
        (
            put("/ count", "/ self.batch.tokens.size"),
            "Sophia-G: sampled gradients of a mean over all tokens",
            'training/test_step.py -k "sophia_divides or rows_without or every_estimate"',
        ),
        (
            drop("index + self.num_parts *"),
            "microbatches: rows of two parts draw alike",
            "training/test_step.py -k estimates_are",
        ),
    ],
    "training/population.py::axes": [
        (
            put("None if _is_counter(x) else 0", "0"),
            "population: a counter for every member, so that a conditional becomes a select",
            "training/test_program.py -k conditionals",
        ),
    ],
    "training/loop.py::Divergence.watch": [
        (
            put("self.alive & ~np.isfinite(value)", "~np.isfinite(value)"),
            "divergence: the newest value that is not finite, not the first",
            "training/test_loop.py -k keeps_the_first",
        ),
        (
            put("np.where(self.alive, x, np.nan)", "x"),
            "divergence: numbers of members that have diverged are told",
            "training/test_loop.py -k keeps_the_first",
        ),
    ],
    "training/step.py::make_eval_step.eval_step": [
        (
            put("num_targets(batch)", "jnp.sum(batch.is_target)"),
            "evaluation: column 0 counts as a target",
            "training/test_step.py -k evaluation_is",
        ),
    ],
    "training/step.py::make_grouped_eval_step.eval_step": [
        (
            put("target_weights(batch)", "target_weights(batch._replace(is_target=jnp.ones_like(batch.is_target)))"),
            "evaluation by frequency: padding counts as targets",
            "training/test_evaluation.py -k by_hand",
        ),
        (
            put("[targets_T]", "[batch.tokens.reshape(-1)]"),
            "evaluation by frequency: grouped by the token before the target",
            "training/test_evaluation.py -k by_hand",
        ),
    ],
    "training/evaluation.py::Evaluator._metrics": [
        (
            drop("/ math.log(2)"),
            "evaluation: nats per byte for bits",
            "training/test_run.py -k a_run_and_what_it_leaves",
        ),
    ],
    "runs/folder.py::RunFolder.trained_on": [
        (put("< step", "<= step"), "machines: of steps that were lost", "runs/test_machine.py -k goes_on"),
    ],
    "training/evaluation.py::deciles.middles": [
        (
            drop("- counts[order] / 2"),
            "deciles: by an entry's end, not its middle",
            "training/test_evaluation.py -k by_hand",
        ),
    ],
}
