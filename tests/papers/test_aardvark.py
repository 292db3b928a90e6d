"""The studies of the four papers by Aardvark at paper's scale: exactly what the papers say that they ran.

Numbers of runs, steps, tokens and hyperparameters are written here as the papers have them; none is computed from the
configs.
"""

import itertools
from typing import Any

import pytest

from jaxopt_lm.model import num_params
from tests.papers.costs import FILES, config_of, study, tokens_of_runs

# Settings, arms, seeds, steps, windows, tokens in a window.
AARDVARK: dict[str, tuple[int, int, int, int, int, int]] = {
    "almvr/table1_losses": (1, 3, 1, 399, 2048, 2048),
    "layer_adaptive/table1_losses": (1, 2, 1, 5150, 512, 1024),
    "layer_adaptive/ablations": (2, 5, 3, 5150, 512, 1024),
    "layer_adaptive_study/table1_losses": (3, 13, 5, 10_000, 128, 1024),
    "svrm/fig01_training_dynamics": (1, 2, 3, 100_000, 128, 1024),
    "svrm/gamma": (1, 3, 3, 100_000, 128, 1024),
    "svrm/scaling": (1, 4, 3, 100_000, 128, 1024),
}

RULES = ("linear", "sqrt", "inverse")


def test_every_table_and_figure_has_a_file():
    assert set(AARDVARK) == {name for name in FILES if not name.startswith("deconstructing/")}


@pytest.mark.parametrize("name", AARDVARK)
def test_the_runs_of_the_papers_by_aardvark(name):
    settings, arms, seeds, steps, windows, length = AARDVARK[name]
    asked = study(name, "paper")
    runs = settings * arms * seeds
    assert (len(asked.settings), len(asked.arms), 1 + asked.rules.seeds) == (settings, arms, seeds)
    tokens = tokens_of_runs(name, "paper")
    assert (len(tokens), sum(tokens.values())) == (runs, runs * steps * windows * length)
    assert {arm.learning_rates for arm in asked.arms} == {(3e-4,)}
    assert asked.rules.max_extensions == 0
    for arm in asked.arms:
        config = config_of(asked, arm.name)
        assert (config.optimizer.weight_decay, config.data.task, config.z_loss) == (0.1, "fineweb", 0.0)
        assert config.model.mlp == "swiglu"
        assert (config.data.max_train_files or 0) * 690_000_000 > config.num_train_tokens  # no token twice


def test_the_optimizers_of_the_papers_by_aardvark():
    def fields(name: str, arm: str, *wanted: str) -> list[Any]:
        return [getattr(study(name, "paper").arm(arm).optimizer, field) for field in wanted]

    adam = ("b1", "b2", "eps")
    assert fields("almvr/table1_losses", "almvr", *adam, "granularity") == [0.9, 0.95, 1e-8, "element"]
    assert "norm" not in study("almvr/table1_losses", "paper").arm("almvr").optimizer.decay_roles
    assert fields("almvr/table1_losses", "almvr, a tensor", *adam, "granularity") == [0.9, 0.95, 1e-8, "tensor"]
    for name in ("almvr/table1_losses", "layer_adaptive/table1_losses", "svrm/fig01_training_dynamics"):
        assert fields(name, "adamw", *adam) == [0.9, 0.95, 1e-8]
    eps = ("eps_min", "eps_warmup_steps", "eps_decay_steps", "eps_decay_power", "eps_continuous")
    multipliers = ("depth_rule", "first_multiplier", "last_multiplier", "mean_one")
    equation = [1e-9, 200, 200, 0.1, False]
    ablations = "layer_adaptive/ablations"
    for name in ("layer_adaptive/table1_losses", ablations):
        found = fields(name, "layer adaptive", *adam, *eps, *multipliers)
        assert found == [0.9, 0.95, 1e-8, *equation, "linear", 1.0, 1.2, False]
    assert fields(ablations, "no multipliers", *eps, *multipliers) == [*equation, "linear", 1.0, 1.0, False]
    assert fields(ablations, "half the eps warmup", *eps) == [1e-9, 100, 200, 0.1, False]
    assert fields(ablations, "eps fixed", "eps", "eps_min", "last_multiplier") == [1e-8, 1e-8, 1.2]
    svrm = ("b1", "b2", "gamma", "attention_multiplier", "mlp_multiplier")
    assert fields("svrm/gamma", "svrm", *svrm) == [0.85, 0.98, 0.3, 1.1, 1.0]
    gammas = [fields("svrm/gamma", f"svrm, gamma .{i}", *svrm) for i in (1, 5)]
    assert gammas == [[0.85, 0.98, gamma, 1.1, 1.0] for gamma in (0.1, 0.5)]
    scales = [fields("svrm/scaling", name, *svrm[2:]) for name in ("svrm", "svrm, neither", "svrm, mlp", "svrm, both")]
    assert scales == [[0.3, 1.1, 1.0], [0.3, 1.0, 1.0], [0.3, 1.0, 1.1], [0.3, 1.1, 1.1]]


def test_the_twelve_variants():
    asked = study("layer_adaptive_study/table1_losses", "paper")
    adamw, *variants = asked.arms
    assert [getattr(adamw.optimizer, name) for name in ("b1", "b2", "eps")] == [0.9, 0.999, 1e-8]
    found = set()
    for arm in variants:
        own, config = arm.optimizer, config_of(asked, arm.name)
        assert (own.b1, own.b2, own.eps, own.eps_min, own.mean_one) == (0.9, 0.999, 1e-8, 1e-8, True)
        if own.depth_rule == "linear":
            assert (own.first_multiplier, own.last_multiplier) == (1.0, 0.5)
        assert (own.b1_first, own.b1_last) in ((None, None), (0.85, 0.95))
        assert (config.max_grad_norm, own.max_layer_norm) in ((1.0, None), (None, 1.0))
        found.add((own.depth_rule, own.b1_first, own.max_layer_norm))
    rules = ("linear", "inverse_sqrt", "inverse")
    assert found == set(itertools.product(rules, (None, 0.85), (None, 1.0)))
    counts = [num_params(config_of(asked, "adamw", size).model) for size in ("134m", "500m", "1b")]
    assert counts == [134_107_392, 498_295_168, 991_240_320]
    assert config_of(asked, "adamw").max_grad_norm == 1.0


def test_the_depth_rules_are_three_on_tinys_models_too():
    asked = study("layer_adaptive_study/table1_losses", "tiny")
    for setting in asked.setting_names:
        layers = config_of(asked, "adamw", setting).model.num_layers
        rules = [asked.arm(f"{name}, one b1").optimizer.depth_multipliers(layers).tolist() for name in RULES]
        assert len({tuple(rule) for rule in rules}) == 3
        assert [sum(rule) / layers for rule in rules] == pytest.approx([1.0] * 3)


def test_seeds_and_schedules_of_the_papers_by_aardvark():
    svrm = study("svrm/fig01_training_dynamics", "paper")
    seeds = [(config.data.seed, config.seed) for config in (config_of(svrm, "svrm", seed=seed) for seed in range(3))]
    assert seeds == [(42, 123), (43, 124), (44, 125)]
    assert config_of(svrm, "svrm").eval.every_steps == 500
    almvr = config_of(study("almvr/table1_losses", "paper"), "almvr")
    assert (almvr.seed, almvr.data.seed, almvr.num_microbatches) == (42, 42, 32)
    rates = [almvr.optimizer.learning_rate * float(almvr.schedule.multiplier(t - 1, 399)) for t in (1, 200, 399)]
    assert rates == pytest.approx([3e-4 * t / 400 for t in (1, 200, 399)])
    rates = [float(config_of(svrm, "svrm").schedule.multiplier(t - 1, 100_000)) for t in (500, 1000, 100_000)]
    assert rates == pytest.approx([0.5, 1.0, 1.0])
    constant = config_of(study("layer_adaptive/table1_losses", "paper"), "adamw").schedule
    assert [float(constant.multiplier(t - 1, 5150)) for t in (1, 5150)] == [1.0, 1.0]


def test_durations_scale_with_the_run():
    almvr = study("almvr/table1_losses", "tiny")
    assert (almvr.base.schedule.warmup_steps or 0) > almvr.base.num_train_steps == 400
    layer = study("layer_adaptive/table1_losses", "tiny").arm("layer adaptive").optimizer
    assert layer.eps_warmup_steps == layer.eps_decay_steps == 16  # 200 of 5,150
