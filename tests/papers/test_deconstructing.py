"""The studies of arXiv 2407.07972 at paper's scale: exactly what the paper ran.

Numbers of runs, grids, steps and hyperparameters are written here as the paper and the code released with it have them;
none is computed from the configs.
"""

import dataclasses
from typing import Any

import pytest

from jaxopt_lm.config_io import load_as
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import num_params
from jaxopt_lm.papers.scales import SCALES
from jaxopt_lm.studies import Study
from tests.papers.costs import FILES, PAPERS, config_of, study, tokens_of_runs

# arXiv 2407.07972, section 2.3 (five optimizers) and 3.2 (SGD in hybrids: "from 0.1 to 3160"): multiples of sqrt(10).
G_A = (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 0.316, 1.0)
G_L = (1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1)
G_S = (1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 0.316, 1.0, 3.16, 10.0)
G_H = (0.1, 0.316, 1.0, 3.16, 10.0, 31.6, 100.0, 316.0, 1000.0, 3160.0)
FIVE = {"adamw": G_A, "adafactor": G_A, "lion": G_L, "signum": G_L, "sgdw": G_S}
DOTTED = {"adamw": G_A, "sgdw": G_S, "adalayer_star": G_A}
# Appendix C.2; its values are read off Figure 6.
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)

# Appendix B: steps, at 256 x 512 tokens. "No QK norm or z-loss" and 4x longer: figures 4 and 5.
BATCH = 256 * 512
STEPS = {"150m": 25_000, "300m": 50_000, "600m": 100_000, "1.2b": 200_000}
TWO = {"150m": 25_000, "300m": 50_000}
WITHOUT = {f"{size}, no QK norm or z-loss": steps for size, steps in TWO.items()}
LONG = {"150m, 4x steps": 100_000, "150m, no QK norm or z-loss, 4x steps": 100_000}
MOMENTUM = TWO | {"150m, no QK norm or z-loss": 25_000}

HEAD, BOTH = "head adaptive", "head and norms adaptive"
ADAFACTOR = "head and norms adafactor"
UNTRAINED, STAR = "frozen but head, norms untrained", "adalayer_star, norms untrained"
LIU = "sophia, Liu et al."

D = "deconstructing/"
# By file: settings with their steps; arms with their grids; runs, each once; steps of all runs, calibration included.
DECONSTRUCTING: dict[str, tuple[dict[str, int], dict[str, tuple[float, ...]], int, int]] = {
    "fig01_learning_rate": (STEPS, FIVE, 180, 45 * 375_000),
    "table1_best_rates": (STEPS, {name: FIVE[name] for name in list(FIVE)[:4]}, 144, 36 * 375_000),
    "fig02_effective_rates": ({"150m": 25_000}, {"adalayer_star": (3.16e-3,)}, 1, 25_000),
    "fig03_hybrids": (TWO, DOTTED | {HEAD: G_H, BOTH: G_H}, 84, 47 * 25_000 + 37 * 50_000),
    "fig04_without_qk_norm": (TWO | WITHOUT, FIVE, 180, 45 * 150_000),
    "fig05_longer": ({"150m": 25_000, "150m, no QK norm or z-loss": 25_000} | LONG, FIVE, 180, 45 * 250_000),
    "fig06_momentum": (MOMENTUM, FIVE, 225, 75 * 100_000),
    "fig07_weight_decay": (
        {"150m": 25_000},
        {"adamw": (3.16e-3,), "adafactor": (3.16e-3,), "lion": (3.16e-4,), "signum": (3.16e-4,), "sgdw": (1.0,)},
        35,
        35 * 25_000,
    ),
    "fig07_warmup": (
        {f"warmup {share}": 25_000 for share in ("0.1", "0.02", "0.05", "0.2", "0.4", "0.6", "0.8")},
        {"adamw": (3.16e-3,), "adafactor": (3.16e-3,), "lion": (3.16e-4,), "signum": (3.16e-4,), "sgdw": (1.0,)},
        35,
        35 * 25_000,
    ),
    "fig07_batch_size": (
        {"batch 256": 25_000, "batch 128": 50_000, "batch 512": 12_500, "batch 1024": 6_250},
        {"adamw": (3.16e-3,), "adafactor": (3.16e-3,), "lion": (3.16e-4,), "signum": (3.16e-4,), "sgdw": (1.0,)},
        20,
        20 * 25_000,
    ),
    "fig07_eps": ({"150m": 25_000}, {"adamw": (3.16e-3,), "adafactor": (3.16e-3,)}, 8, 8 * 25_000),
    "fig07_b2": (
        {"150m": 25_000},
        {"adamw": (3.16e-3,), "adafactor": (3.16e-3,), "lion": (3.16e-4,)},
        15,
        15 * 25_000,
    ),
    # b1 = b2 = .95 is AdamW at b1 = .95.
    "fig08_tied_momenta": (
        MOMENTUM,
        {"adamw": G_A, "adamw, b1 = b2": G_A, "signum": G_L},
        108,
        36 * 100_000,
    ),
    "fig09_adalayer": ({"150m": 25_000}, DOTTED | {"adalayer": G_A}, 36, 36 * 25_000),
    "fig09b_first_layer": (
        {"150m": 25_000},
        {"adalayer_star": G_A, "adalayer_star, first layer": G_A},
        18,
        18 * 25_000,
    ),
    "fig10_hybrid_600m": ({"600m": 100_000}, DOTTED | {BOTH: G_H}, 37, 37 * 100_000),
    "fig11_matrices": ({"150m": 25_000}, DOTTED | {"matrices adaptive": G_H}, 37, 37 * 25_000),
    "fig12_norms_untrained": (
        TWO,
        DOTTED | {f"{HEAD}, norms untrained": G_H, HEAD: G_H},
        84,
        47 * 25_000 + 37 * 50_000,
    ),
    "fig13_adafactor": (
        TWO,
        {"adamw": G_A, "sgdw": G_S, "adafactor": G_A, ADAFACTOR: G_H, f"{ADAFACTOR}, lower": G_H},
        84,
        37 * 25_000 + 47 * 50_000,
    ),
    "fig14_frozen_but_head_and_norms": (
        TWO,
        DOTTED | {"frozen but head and norms": G_A},
        72,
        36 * 75_000 + 18 * 1000,
    ),
    "fig15_frozen": (TWO, DOTTED | {"frozen": G_A}, 72, 36 * 75_000 + 18 * 1000),
    "fig16_frozen_but_one": (
        {"150m": 25_000},
        DOTTED | {"frozen but head": G_A, "frozen but norms": G_A},
        45,
        45 * 25_000 + 18 * 1000,
    ),
    "fig17_frozen_norms_untrained": (
        TWO,
        DOTTED | {UNTRAINED: G_A, STAR: G_A, "frozen but head": G_A},
        90,
        54 * 25_000 + 36 * 50_000 + 27 * 1000,
    ),
    "fig18_sophia": (
        {"150m": 25_000},
        {"signum": G_L, "sophia": G_L, LIU: G_L, f"{LIU}, attention over layer": G_L},
        36,
        36 * 25_000,
    ),
}

# Arms that compete in one setting alone.
ONLY_IN = {
    ("fig03_hybrids", HEAD): "150m",
    ("fig12_norms_untrained", HEAD): "150m",
    ("fig13_adafactor", f"{ADAFACTOR}, lower"): "300m",
    ("fig17_frozen_norms_untrained", STAR): "150m",
    ("fig17_frozen_norms_untrained", "frozen but head"): "150m",
}

# Section 2.3 (b1 .9, SGD's .98), appendix B (b2, eps, decay), captions of Figures 3, 11, 12, 13 (fixed rates), appendix
# F (1,000 batches); the average in the hybrids' SGD and Liu et al.'s numbers are of the code released with the paper.
ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-15, "weight_decay": 0.0}
SGD = {"b1": 0.9, "sgd": "debiased_ema", "weight_decay": 0.0}
STAR_AT = {f"adaptive.{name}": value for name, value in ADAM.items()} | {"adaptive.learning_rate": 3.16e-3}
ROLES = {"embedding", "attention", "mlp", "norm", "head"}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"class": "AdamWConfig"} | ADAM,
    "adamw, b1 = b2": {"class": "AdamWConfig"} | ADAM,
    "adafactor": {"class": "AdafactorConfig", "one_scalar_1d": False} | ADAM,
    "lion": {"class": "LionConfig", "b1": 0.9, "b2": 0.95, "weight_decay": 0.0},
    "signum": {"class": "SignumConfig", "b1": 0.9, "weight_decay": 0.0},
    "sgdw": {"class": "SgdwConfig", "momentum": 0.98, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0},
    "adalayer": {"class": "AdalayerConfig", "normalization": "mean"} | ADAM,
    "adalayer_star": {"class": "AdalayerStarConfig", "first_layer": False} | ADAM,
    "adalayer_star, first layer": {"class": "AdalayerStarConfig", "first_layer": True} | ADAM,
    STAR: {"adaptive_roles": ROLES - {"norm"}, "untrained_roles": {"norm"}, "adaptive.first_layer": False} | SGD,
    HEAD: {"adaptive_roles": {"head"}, "untrained_roles": set()} | SGD | STAR_AT,
    BOTH: {"adaptive_roles": {"head", "norm"}, "untrained_roles": set()} | SGD | STAR_AT,
    "matrices adaptive": {"adaptive_roles": {"embedding", "attention", "mlp"}, "untrained_roles": set()}
    | SGD
    | STAR_AT
    | {"adaptive.learning_rate": 1e-3},
    f"{HEAD}, norms untrained": {"adaptive_roles": {"head"}, "untrained_roles": {"norm"}} | SGD | STAR_AT,
    ADAFACTOR: {"adaptive_roles": {"head", "norm"}, "adaptive.one_scalar_1d": False} | SGD | STAR_AT,
    f"{ADAFACTOR}, lower": {"adaptive_roles": {"head", "norm"}, "adaptive.one_scalar_1d": False}
    | SGD
    | STAR_AT
    | {"adaptive.learning_rate": 1e-3},
    "frozen": {"calibration_steps": 1000, "live_roles": set(), "untrained_roles": set()} | ADAM,
    "frozen but head": {"calibration_steps": 1000, "live_roles": {"head"}, "untrained_roles": set()} | ADAM,
    "frozen but norms": {"calibration_steps": 1000, "live_roles": {"norm"}, "untrained_roles": set()} | ADAM,
    "frozen but head and norms": {"calibration_steps": 1000, "live_roles": {"head", "norm"}, "untrained_roles": set()}
    | ADAM,
    UNTRAINED: {"calibration_steps": 1000, "live_roles": {"head"}, "untrained_roles": {"norm"}} | ADAM,
    "sophia": {"b1": 0.9, "b2": 0.95, "rho": 0.04, "interval": 10, "weight_decay": 0.0},
    LIU: {"b1": 0.965, "b2": 0.99, "rho": 0.04, "interval": 10, "weight_decay": 0.2},
    f"{LIU}, attention over layer": {"b1": 0.965, "b2": 0.99, "rho": 0.04, "interval": 10, "weight_decay": 0.2},
}

# Appendix C.3; the values are those of the released code.
NUISANCE: dict[str, dict[str, tuple[str, tuple[float, ...]]]] = {
    "fig06_momentum": {name: ("momentum" if name == "sgdw" else "b1", MOMENTA) for name in FIVE},
    "fig07_eps": dict.fromkeys(("adamw", "adafactor"), ("eps", (1e-12, 1e-8, 1e-5))),
    "fig07_b2": dict.fromkeys(("adamw", "adafactor", "lion"), ("b2", (0.8, 0.9, 0.98, 0.99))),
    "fig08_tied_momenta": {"adamw": ("b1", MOMENTA), "adamw, b1 = b2": ("b1=b2", MOMENTA), "signum": ("b1", MOMENTA)},
}


def at(config: Any, name: str) -> Any:
    """A field by dotted name; of roles, their set."""
    for part in name.split("."):
        config = getattr(config, part)
    return set(config) if name.endswith("roles") else config


def test_every_figure_and_table_has_a_file():
    assert {f"{D}demo", f"{D}calibration", *(D + name for name in DECONSTRUCTING)} == {
        name for name in FILES if name.startswith(D)
    }


@pytest.mark.parametrize("name", DECONSTRUCTING)
def test_the_runs_of_arxiv_2407_07972(name):
    settings, arms, runs, steps = DECONSTRUCTING[name]
    asked = study(D + name, "paper")
    assert {arm.name: arm.learning_rates for arm in asked.arms} == arms
    found = {setting: config_of(asked, asked.baseline.name, setting).num_train_steps for setting in asked.setting_names}
    assert found == settings
    tokens = tokens_of_runs(D + name, "paper")
    assert (len(tokens), sum(tokens.values())) == (runs, steps * BATCH)
    only = {arm.name: setting for arm in asked.arms for setting in arm.settings}
    assert only == {arm: setting for (file, arm), setting in ONLY_IN.items() if file == name}
    assert (asked.rules.seeds, asked.rules.noise_seeds, asked.rules.max_extensions) == (0, 0, 0)


@pytest.mark.parametrize("name", DECONSTRUCTING)
def test_the_optimizers_of_arxiv_2407_07972(name):
    asked = study(D + name, "paper")
    for arm in asked.arms:
        wanted = OPTIMIZERS[arm.name] | {"decay_roles": ROLES}
        found = {field: at(arm.optimizer, field) for field in wanted if field != "class"}
        assert found | {"class": type(arm.optimizer).__name__} == {"class": type(arm.optimizer).__name__} | wanted
        nuisance = NUISANCE.get(name, {}).get(arm.name)
        if name == "fig07_weight_decay":
            decays = [decay / arm.learning_rates[0] for decay in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)]
            ((field, values),) = arm.nuisance
            assert field == "weight_decay"
            assert values == pytest.approx(decays)
        else:
            assert arm.nuisance == (() if nuisance is None else (nuisance,))


# Appendix B, and the released code: whole parameter counts, heads of 64, warmup from a tenth of the peak, clipping.
PARAMETERS = {"150m": 216_843_264, "300m": 367_887_360, "600m": 661_558_656, "1.2b": 1_339_754_496}


@pytest.mark.parametrize("size", PARAMETERS)
def test_the_setup_of_arxiv_2407_07972(size):
    config = config_of(study(f"{D}fig01_learning_rate", "paper"), "adamw", size)
    model, schedule = config.model, config.schedule
    assert num_params(model) == PARAMETERS[size]
    assert (model.head_width, model.mlp_dim) == (64, 4 * model.embed_dim)
    assert (model.qk_norm, model.vocab_size, model.compute_dtype) == ("full", 32_128, "bfloat16")
    assert (config.global_batch_size, config.length, config.z_loss, config.max_grad_norm) == (256, 512, 1e-4, 1.0)
    assert (config.data.task, config.data.vocab_size, config.eval.batch_size, config.eval.max_batches) == (
        *("c4", 32_100),
        *(32, 1000),
    )
    assert dataclasses.asdict(schedule) == {
        "warmup_steps": None,
        "warmup_fraction": 0.1,
        "start_fraction": 0.1,
        "end_fraction": 0.1,
    }
    assert (config.data.max_train_files or 0) * 148_000_000 > config.num_train_tokens  # no token twice


def test_the_variants_of_arxiv_2407_07972():
    asked = study(f"{D}fig05_longer", "paper")
    without = config_of(asked, "adamw", "150m, no QK norm or z-loss, 4x steps")
    assert (without.model.qk_norm, without.z_loss, num_params(without.model)) == ("none", 0.0, 216_843_264 - 12 * 2048)
    sophia = study(f"{D}fig18_sophia", "paper")
    scaled = {arm.name: config_of(sophia, arm.name).model.attention_inverse_layer_scale for arm in sophia.arms}
    assert [name for name, is_scaled in scaled.items() if is_scaled] == [f"{LIU}, attention over layer"]
    warmups = study(f"{D}fig07_warmup", "paper")
    shares = [config_of(warmups, "sgdw", name).schedule.warmup_fraction for name in warmups.setting_names]
    assert [(share or 0.0) * 25_000 for share in shares] == [2_500, 500, 1_250, 5_000, 10_000, 15_000, 20_000]
    batches = study(f"{D}fig07_batch_size", "paper")
    assert [config_of(batches, "sgdw", name).global_batch_size for name in batches.setting_names] == [
        256,
        128,
        512,
        1024,
    ]


def test_runs_that_figures_share_are_trained_once():
    """180 of Figure 1, 90 and 90 of 4 and 5, 90 and 18 of 6 and 8, 93 of 7, 45 of 9 and the dotted lines, 100 hybrids,
    81 frozen, 27 of Sophia."""
    together = set().union(*(tokens_of_runs(D + name, "paper") for name in DECONSTRUCTING))
    assert len(together) == 180 + 90 + 90 + 90 + 18 + 93 + 45 + 100 + 81 + 27
    assert sum(len(tokens_of_runs(D + name, "paper")) for name in DECONSTRUCTING) > 2 * len(together)


def test_demo_has_arms_and_rates_of_figures_1_and_9_and_half_their_steps():
    demo, *figures = (study(D + name, "tiny") for name in ("demo", "fig01_learning_rate", "fig09_adalayer"))
    known = {(arm.optimizer, rate) for figure in figures for arm in figure.arms for rate in arm.learning_rates}
    assert {(arm.optimizer, rate) for arm in demo.arms for rate in arm.learning_rates} <= known
    assert len(tokens_of_runs(f"{D}demo", "tiny")) == 25
    assert all(2 * demo.base.num_train_steps == figure.base.num_train_steps for figure in figures)


def test_calibration_is_of_quarter_half_and_all_of_the_steps():
    calibration = study(f"{D}calibration", "tiny")
    assert [setting["num_train_steps"] for setting in calibration.settings] == [100, 200, 400]
    assert calibration.settings[-1]["num_train_steps"] == calibration.base.num_train_steps


def test_sizes_may_be_chosen():
    one = load_as(Study, f"{PAPERS}/{D}fig01_learning_rate.py:scale=paper,sizes=150m")
    assert [setting["name"] for setting in one.settings] == ["150m"]
    with pytest.raises(InputError, match=r"sizes=150m\+2b.*must be of 150m, 300m, 600m, 1.2b"):
        load_as(Study, f"{PAPERS}/{D}fig01_learning_rate.py:sizes=150m+2b")


# A prototype of tiny's shape, one seed, has its least losses at 1e-2 (adamw, adalayer_star), between 3.16e-3 and 1e-2
# (signum), at .316 (sgdw) and at 10 (SGD in hybrids).
@pytest.mark.parametrize(
    ("arm", "rates"),
    [
        ("adamw", (3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 0.1, 0.316)),
        ("adalayer_star", (3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 0.1, 0.316)),
        ("sgdw", (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0)),
        (HEAD, (0.316, 1.0, 3.16, 10.0, 31.6, 100.0, 316.0)),
    ],
)
def test_tiny_has_rates_on_both_sides_of_the_best(arm, rates):
    asked = study(f"{D}fig03_hybrids", "tiny").arm(arm)
    assert asked.learning_rates == rates
    assert asked.optimizer.learning_rate == rates[3]


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_known_beforehand_is_on_the_grid(scale):
    for name in ("fig01_learning_rate", "fig09_adalayer", "fig03_hybrids"):
        for arm in study(D + name, scale).arms:
            assert arm.optimizer.learning_rate in arm.learning_rates
    adaptive = [
        study(f"{D}fig13_adafactor", scale).arm(name).optimizer.adaptive for name in (ADAFACTOR, f"{ADAFACTOR}, lower")
    ]
    grid = study(f"{D}fig13_adafactor", "paper").arm("adafactor").learning_rates
    best, lower = (grid.index(optimizer.learning_rate) for optimizer in adaptive)
    assert lower == best - 1


def test_the_calibration_scales_with_the_run():
    frozen = study(f"{D}fig15_frozen", "tiny").arm("frozen").optimizer
    assert frozen.calibration_steps / 400 == 1000 / 25_000
