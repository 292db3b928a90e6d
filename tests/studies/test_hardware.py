"""Kinds of hardware, told apart by what is recorded and counted in runs."""

from collections import Counter

from jaxopt_lm.studies.hardware import facts, kind

CPU = {"after_step": 0, "device": "cpu", "devices": 1, "jax": "0.10.2"}
GPU = {"after_step": 20, "device": "NVIDIA H100", "devices": 1, "jax": "0.10.2"}


def test_a_kind_is_what_is_recorded_but_for_steps():
    assert kind([CPU]) == (("device", "cpu"), ("devices", "1"), ("jax", "0.10.2"))
    assert kind([CPU]) == kind([CPU | {"after_step": 7}]) != kind([GPU])
    assert kind([]) == (("machine", "not recorded"),)


def test_a_run_that_went_on_elsewhere_names_both():
    assert dict(kind([CPU, GPU])) == {"device": "cpu, then NVIDIA H100", "devices": "1", "jax": "0.10.2"}
    assert dict(kind([CPU, GPU | {"cores": 2}]))["cores"] == "not recorded, then 2"


def test_each_kind_is_named_with_its_number_of_runs():
    one, other = kind([CPU]), kind([GPU])
    assert facts(Counter({one: 44})) == {"Hardware: 44 runs": dict(one)}
    found = facts(Counter({one: 1, other: 3}))
    assert found == {"Hardware 1 of 2: 3 runs": dict(other), "Hardware 2 of 2: 1 run": dict(one)}
    assert len(facts(Counter({one: 3, other: 3, (): 3}))) == 3
    assert facts(Counter()) == {}
