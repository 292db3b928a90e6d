"""The studies of five papers: each loads at every scale, shares its store with the others, and says what it costs."""

import itertools
from typing import Any

import pytest

from jaxopt_lm.config_io import load_as
from jaxopt_lm.errors import InputError
from jaxopt_lm.papers.scales import SCALES
from jaxopt_lm.studies import Study, estimate
from tests.papers.costs import FILES, PAPERS, cost_line, docstring_line, study


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FILES)
def test_every_study_loads_at_every_scale(name, scale):
    asked = study(name, scale)
    assert asked.base.data.task == (
        {"deconstructing": "c4"}.get(name.partition("/")[0], "fineweb") if scale == "paper" else "sotu"
    )
    assert asked.base.workdir.endswith(f"_{scale}")
    assert len({claim.name for claim in asked.claims}) == len(asked.claims)
    claimed = {arm for claim in asked.claims for arm in claim.named_arms()}
    assert claimed <= {arm.name for arm in asked.arms}
    if scale != "paper":
        full = study(name, "paper")
        assert [arm.name for arm in asked.arms] == [arm.name for arm in full.arms]
        assert {claim.name for claim in asked.claims if not claim.named_settings()} <= {
            claim.name for claim in full.claims
        }


@pytest.mark.parametrize("scale", SCALES)
def test_studies_of_one_folder_are_of_one_base_and_name_an_optimizer_alike(scale):
    """So they can share a store, see `Store.begin`."""
    for _, group in itertools.groupby(sorted(FILES, key=folder(scale)), key=folder(scale)):
        asked = [study(name, scale) for name in group]
        assert len({repr(each.base) for each in asked}) == 1
        arms: dict[str, Any] = {}
        for arm in (arm for each in asked for arm in each.arms):
            own = arm.optimizer, arm.values, arm.rate
            assert arms.setdefault(arm.name, own) == own, arm.name


def folder(scale: str):
    return lambda name: study(name, scale).base.workdir


@pytest.mark.parametrize("name", FILES)
def test_docstrings_have_the_cost_at_every_scale(name):
    assert docstring_line(PAPERS / f"{name}.py") == cost_line(name), "python -m tests.papers.costs"


def test_a_dry_run_at_papers_scale_has_its_grids_and_numbers():
    first, *lines = estimate.text(study("svrm/gamma", "paper"), 1, as_json=False, measure=False).splitlines()
    assert first.startswith("9 runs (more where an optimum is not inside its grid), 117,964,800,000 tokens, ")
    runs = "3 runs of 100,000 steps of 128 x 1024 tokens at 0.0003; name=svrm weight_decay=0.1 "
    numbers = "b1=0.85 b2=0.98 eps=1e-08 gamma={} attention_multiplier=1.1 mlp_multiplier=1.0"
    assert [line.replace("decay_roles=['embedding', 'attention', 'mlp', 'norm', 'head'] ", "") for line in lines] == [
        f"{arm}: {runs}{numbers.format(gamma)}"
        for arm, gamma in (("svrm", 0.3), ("svrm, gamma .1", 0.1), ("svrm, gamma .5", 0.5))
    ]


def test_an_unknown_scale_is_one_line():
    with pytest.raises(InputError, match="'scale=huge': must be one of paper, small, tiny, smoke"):
        load_as(Study, f"{PAPERS}/deconstructing/demo.py:scale=huge")
    with pytest.raises(InputError, match="'sale=tiny': must be KEY=VALUE"):
        load_as(Study, f"{PAPERS}/deconstructing/fig09_adalayer.py:sale=tiny")
