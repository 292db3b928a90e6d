"""Optimizers whose transforms are optax's: ADOPT, AdEMAMix, Adan, NovoGrad, Prodigy, schedule-free AdamW."""

from tests.mutations.pieces import Rows, drop, put, swap

ROWS: Rows = {
    "adopt.py::AdoptConfig.direction": [
        (swap("self.b1", "self.b2"), "ADOPT: betas swapped", "test_of_optax.py -k AdoptConfig"),
    ],
    "ademamix.py::AdEMAMixConfig.direction": [
        (swap("self.b2", "self.b3"), "AdEMAMix: b2 and b3 swapped", "test_of_optax.py -k AdEMAMixConfig"),
    ],
    "adan.py::AdanConfig.direction": [
        (swap("self.b2", "self.b3"), "Adan: b2 and b3 swapped", "test_of_optax.py -k AdanConfig"),
    ],
    "novograd.py::NovoGradConfig.direction": [
        (drop(", weight_decay=weight_decay"), "NovoGrad: no decay", "test_of_optax.py -k NovoGradConfig"),
        (
            drop('if self.decays(label) else "undecayed"'),
            "NovoGrad: roles that must not decay do",
            'test_table.py -k "decay_is_by_role and novograd"',
        ),
    ],
    "prodigy.py::ProdigyConfig.make": [
        (
            put("-applied * self", "-rate * self"),
            "Prodigy: decay not scaled by the estimated rate",
            "test_of_optax.py -k prodigy",
        ),
        (
            drop("* prodigy_correction(self.b1, self.b2, next_count(before.count), dtype)"),
            "Prodigy: decay without the rate's bias correction",
            "test_of_optax.py -k prodigy",
        ),
        (
            put("-applied * self", "-applied / before.estim_lr * after.estim_lr * self"),
            "Prodigy: decay by the estimate after the update",
            "test_formulas.py -k prodigy",
        ),
        (
            put("self.growth", "1.0"),
            "Prodigy: the estimate grows without its factor",
            "test_formulas.py -k prodigy",
        ),
        (
            put("self.decay_mask(labels)", "None"),
            "Prodigy: roles that must not decay do",
            'test_table.py -k "decay_is_by_role and prodigy"',
        ),
    ],
    "schedule_free.py::scale_by_rms.update": [
        (
            drop("/ bias_correction(decay, count, v.dtype)"),
            "schedule-free: no bias correction",
            "test_of_optax.py -k ScheduleFreeAdamWConfig",
        ),
    ],
    "schedule_free.py::ScheduleFreeAdamWConfig.make": [
        (drop(", self.b1"), "schedule-free: b1 not passed on", "test_formulas.py -k schedule_free"),
    ],
    "schedule_free.py::eval_params": [
        (
            put("(y - (1 - b1) * z) / b1", "(y - b1 * z) / (1 - b1)"),
            "eval_params: b1 and 1 - b1 swapped",
            "test_of_optax.py -k evaluated_parameters",
        ),
        (
            put("((y - (1 - b1) * z) / b1).astype(y.dtype)", "z"),
            "eval_params: the iterate for its average",
            "test_of_optax.py -k evaluated_parameters",
        ),
    ],
}
