"""Schedules at named steps, against the recorded multipliers, and traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import SCHEDULES
from tests.conftest import GOLDEN

W, T = 4, 12
COMMON = {"warmup_steps": W, "start_fraction": 0.2}


def values(name, **fields):
    config = SCHEDULES[name](**(COMMON | fields))
    return [float(config.multiplier(count, T)) for count in range(T)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_is_linear_and_the_peak_is_one(name):
    multipliers = values(name)
    np.testing.assert_allclose(multipliers[:W], [0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert max(multipliers) == 1.0
    assert float(SCHEDULES[name](warmup_steps=1).multiplier(0, T)) == 1.0
    assert np.isfinite(float(SCHEDULES[name](warmup_steps=0).multiplier(0, T)))


@pytest.mark.parametrize(
    ("name", "fields", "after_warmup"),
    [
        ("constant", {}, [1.0] * 8),
        ("linear", {"end_fraction": 0.2}, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]),
        ("inverse_sqrt", {}, [(4 / s) ** 0.5 for s in range(5, 13)]),
        ("warmup_stable_decay", {"decay_steps": 4, "end_fraction": 0.2}, [1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]),
        (
            "warmup_cosine",
            {"end_fraction": 0.5},
            [0.5 + 0.25 * (1 + np.cos(np.pi * k / 8)) for k in range(1, 9)],
        ),
    ],
)
def test_after_the_warmup(name, fields, after_warmup):
    np.testing.assert_allclose(values(name, **fields)[W:], after_warmup, rtol=1e-6)


def test_recorded_cosine():
    """The released code's multipliers: 1-based steps, the end held after num_train_steps."""
    recorded = np.load(GOLDEN / "schedules_authors.npz")
    config = SCHEDULES["warmup_cosine"](warmup_steps=10, start_fraction=0.1, end_fraction=0.1)
    mine = [float(config.multiplier(step - 1, 100)) for step in recorded["steps"][1:]]
    np.testing.assert_allclose(mine, recorded["cos_with_warmup"][1:], rtol=1e-6)


DURATIONS = {"warmup_steps": 4, "decay_steps": 3}
FRACTIONS = {"warmup_fraction": 1 / 3, "decay_fraction": 0.27}  # of 12 steps: 4 and 3.24


@pytest.mark.parametrize("lead", [0, 5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_fraction_is_its_steps_of_what_remains_of_the_run(name, lead):
    """Rounded, and bit for bit; traced too."""
    cls = SCHEDULES[name]
    fields = {field.name for field in dataclasses.fields(cls)}
    steps, fractions = (cls(**{k: v for k, v in given.items() if k in fields}) for given in (DURATIONS, FRACTIONS))
    counts = np.arange(T + lead)
    expected = steps.multiplier(counts, T + lead, lead)
    assert len(set(expected[lead:].tolist())) > 3
    np.testing.assert_array_equal(fractions.multiplier(counts, T + lead, lead), expected)
    traced = jax.jit(lambda config, total: config.multiplier(counts, total, lead))
    np.testing.assert_array_equal(traced(fractions, T + lead), traced(steps, T + lead))


def test_a_fraction_of_many_steps_is_exact_in_float32():
    config = SCHEDULES["linear"](warmup_fraction=0.1)
    for total in (25_000, 50_000, 100_000, 200_000):
        steps = SCHEDULES["linear"](warmup_steps=total // 10)
        near = np.arange(-3, 4) + total // 10
        np.testing.assert_array_equal(config.multiplier(near, total), steps.multiplier(near, total))


def test_durations_given_neither_way():
    assert values("constant", warmup_steps=None) == [1.0] * T
    decay = SCHEDULES["warmup_stable_decay"](end_fraction=0.2).multiplier(np.arange(40), 40)  # a tenth
    np.testing.assert_allclose(decay, [1.0] * 36 + [0.8, 0.6, 0.4, 0.2], rtol=1e-6)
    short = SCHEDULES["warmup_stable_decay"](decay_fraction=0.01, end_fraction=0.2)
    assert float(short.multiplier(T - 1, T)) == pytest.approx(0.2)  # .12 steps are one


@pytest.mark.parametrize("name", SCHEDULES)
def test_numbers_are_traceable(name):
    configs = [SCHEDULES[name](warmup_steps=w, start_fraction=f) for w, f in ((2, 0.1), (5, 0.3))]
    stacked = jax.tree.map(lambda *xs: jnp.asarray(xs), *configs)
    together = jax.vmap(lambda config, total: config.multiplier(6, total))(stacked, jnp.asarray([10, 20]))
    apart = [float(config.multiplier(6, total)) for config, total in zip(configs, (10, 20), strict=True)]
    np.testing.assert_allclose(together, apart, rtol=1e-6)


def test_durations_must_fit():
    with pytest.raises(InputError, match=r"schedule.warmup_steps=12: must be less than num_train_steps=12"):
        SCHEDULES["linear"](warmup_steps=12).check_fits(12)
    with pytest.raises(InputError, match=r"schedule.decay_steps=9: with a warmup of 4 steps must be at most"):
        SCHEDULES["warmup_stable_decay"](warmup_steps=4, decay_steps=9).check_fits(12)
    SCHEDULES["warmup_stable_decay"](warmup_steps=4, decay_steps=8).check_fits(12)
    with pytest.raises(InputError, match=r"schedule.warmup_fraction=0.99 \(12 steps\): must be less than num_train_s"):
        SCHEDULES["linear"](warmup_fraction=0.99).check_fits(12)
    with pytest.raises(InputError, match=r"schedule.decay_fraction=0.75 \(9 steps\): with a warmup of 4 steps must be"):
        SCHEDULES["warmup_stable_decay"](warmup_fraction=1 / 3, decay_fraction=0.75).check_fits(12)
    for total in (1, 2, 3, 5, 20):
        SCHEDULES["warmup_stable_decay"](warmup_fraction=1 / 6, decay_fraction=0.2).check_fits(total)


def test_a_constant_may_warm_up_for_longer_than_the_run():
    """ALMVR's: min(1, t/400) over 399 steps."""
    schedule = SCHEDULES["constant"](warmup_steps=400, start_fraction=0.0)
    schedule.check_fits(399)
    found = [float(schedule.multiplier(t - 1, 399)) for t in (1, 200, 399)]
    np.testing.assert_allclose(found, [1 / 400, 0.5, 399 / 400], rtol=1e-6)


def test_recorded_calibration():
    """The released calibrate-then-train form but for the last calibration batch, at which that one steps too."""
    recorded = np.load(GOLDEN / "schedules_authors.npz")
    config = SCHEDULES["warmup_cosine"](warmup_steps=10, start_fraction=0.1, end_fraction=0.1)
    mine = np.asarray([float(config.multiplier(step - 1, 107, 7)) for step in recorded["steps"][1:]])
    theirs = recorded["freeze_cos_with_warmup"][1:]
    different = np.flatnonzero(~np.isclose(mine, theirs, rtol=1e-6, atol=0))
    assert different.tolist() == [6]
    assert mine[6] == 0 < theirs[6]
