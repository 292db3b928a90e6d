"""`plan`: what is read from XLA's text, and what the command says of real steps on devices that are not there."""

import dataclasses
import re
import subprocess

import pytest
from jax.sharding import AbstractMesh

from jaxopt_lm.config import MESH_AXES, DataConfig, TrainConfig
from jaxopt_lm.planning import hlo
from jaxopt_lm.planning.hlo import Collective
from jaxopt_lm.planning.plan import activations, make_plan
from tests.conftest import TINY_MODEL
from tests.test_command_lines import assert_one_line, run
from tests.write_config_dumps import ROOT

MODULE = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%condition (arg: (s32[], f32[4,8])) -> pred[] {
  %arg = (s32[], f32[4,8]{1,0}) parameter(0)
  %limit = s32[] constant(12)
  %i = s32[] get-tuple-element(%arg), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %arg = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%arg), index=1
  %w = bf16[8,8]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %y = f32[4,8]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%i, %y)
}

%called (x: f32[3,4,8]) -> f32[3,4,4] {
  %x = f32[3,4,8]{2,1,0} parameter(0)
  ROOT %z = f32[3,4,4]{2,1,0} dot(%x, %x), lhs_batch_dims={0}, rhs_batch_dims={0}, \
lhs_contracting_dims={2}, rhs_contracting_dims={2}
}

ENTRY %main (p: f32[4,8]) -> f32[3,4,4] {
  %p = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[4,8]{1,0}) tuple(%zero, %p)
  %loop = (s32[], f32[4,8]{1,0}) while(%t), condition=%condition, body=%body
  %q = f32[3,4,8]{2,1,0} broadcast(%p), dimensions={1,2}
  %c = f32[3,4,4]{2,1,0} call(%q), to_apply=%called
  %r = f32[3,4,4]{2,1,0} all-reduce(%c), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %s = (f32[2]{0}, bf16[6]{0}) all-reduce(%p, %p), replica_groups=mesh['data'=4,'fsdp'=2] {'fsdp'}, to_apply=%add
  %h = f32[2]{0} reduce-scatter(%p), replica_groups=mesh['data'=4,'fsdp'=2] {'data':(1)2,'fsdp'}, to_apply=%add
  %m = f32[5]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  ROOT %copy = f32[3,4,4]{2,1,0} copy(%r)
}
"""


def test_loops_count_as_often_as_they_run_and_calls_once():
    """dot [4,8] x [8,8], 12 times; batched dot [3,4,8] x [3,8,4], once."""
    assert hlo.cost(MODULE).flops == 12 * 2 * 4 * 8 * 8 + 2 * 3 * 4 * 4 * 8


def test_names_with_and_without_a_sign_are_read():
    """XLA writes both forms."""
    assert hlo.cost(MODULE.replace("%", "")) == hlo.cost(MODULE)
    typed = MODULE.replace("dot(%x, %w)", "dot(f32[4,8]{1,0} %x, bf16[8,8]{1,0} %w)")
    assert hlo.cost(re.sub(r"(?m)^(\S+|ENTRY \S+) \(.*\{$", r"\1 {", typed)) == hlo.cost(MODULE)


@pytest.mark.parametrize(
    "form", ["branch_computations={%empty, %called}", "true_computation=%called, false_computation=%empty"]
)
def test_of_a_condition_one_branch_counts(form):
    """The cheaper one, in a step at least; the dearer one in `most_flops`."""
    empty = "%empty (x: f32[3,4,8]) -> f32[3,4,4] {\n  ROOT %x = f32[3,4,4]{2,1,0} parameter(0)\n}\n\nENTRY "
    branches = MODULE.replace("ENTRY ", empty).replace("call(%q), to_apply=%called", f"conditional(%p, %q, %q), {form}")
    found, whole = hlo.cost(branches), hlo.cost(MODULE)
    assert (found.most_flops, found.collectives) == (whole.flops, whole.collectives)
    assert found.flops == whole.flops - 2 * 3 * 4 * 4 * 8


def test_collectives_with_the_size_of_their_groups_in_each_way_of_writing_them():
    assert hlo.cost(MODULE).collectives == {
        Collective("all-gather", "bf16", 4): 12 * 8 * 8 * 2,
        Collective("all-reduce", "f32", 2): 3 * 4 * 4 * 4 + 2 * 4,
        Collective("all-reduce", "bf16", 2): 6 * 2,
        Collective("reduce-scatter", "f32", 4): 2 * 4,
        Collective("collective-permute", "f32", 2): 5 * 4,
    }


def test_what_each_device_sends_at_least():
    cost = hlo.cost(MODULE)
    gathered, reduced, scattered, permuted = 12 * 128 * 3 / 4, (200 + 12) / 2, 8 * 3, 20
    assert cost.sent() == gathered + reduced + scattered + permuted


def test_a_loop_without_one_constant_bound_is_not_guessed():
    with pytest.raises(AssertionError, match="does not count"):
        hlo.cost(MODULE.replace("s32[] constant(12)", "s32[] parameter(1)"))


def plan(*arguments: str) -> subprocess.CompletedProcess:
    return run("-m", "jaxopt_lm.plan", *arguments)


def number(text: str, name: str) -> float:
    found = re.search(rf"^ *{re.escape(name)} +([\d.,e+]+)", text, re.MULTILINE)
    assert found, (name, text)
    return float(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def large() -> str:
    done = plan(f"--config={ROOT}/configs/c4.py:size=1.2b,chips=512", "--devices=512", "--chip=v5e")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_1_2b_on_512_devices_computes_what_the_formula_says(large):
    assert number(large, "parameters") == 1_339_754_496
    tokens, body, head = 256 * 512, 1_208_158_208, 32_128 * 2048
    norms = 24 * (4 * 2048) + 2048  # the norms of blocks, queries and keys, and the last
    expected = tokens * (6 * (body - norms + head) + 12 * 24 * 2048 * 512)
    assert number(large, "6 N T + attention") == pytest.approx(expected, rel=1e-4)
    assert number(large, "matrix products") == pytest.approx(expected, rel=0.02)


def test_1_2b_on_512_devices_moves_weights_in_bf16_and_rematerialises_nothing_against_its_will(large):
    assert "involuntary full rematerialisations: 0" in large
    weights, of_64 = 2 * 1_339_754_496 / 2 / 2**30, r"over 64 +([\d.]+) GiB"
    gathered = {dtype: float(size) for dtype, size in re.findall(rf"all-gather (\w+) {of_64}", large)}
    assert gathered["bf16"] >= 0.9 * weights, "forward at least once: half of them, for tensor=2"
    assert gathered.get("f32", 0) < 0.01 * weights


def test_bytes_are_those_of_shapes_and_shardings(large):
    """AdamW in float32: 4 bytes of parameters and gradients each, 8 of state, over fsdp=64 x tensor=2."""
    share = 4 * 1_339_754_496 / 128 / 2**30
    assert number(large, "parameters") > 0
    for name, times in (("gradients", 1), ("optimizer state", 2)):
        assert number(large, name) == pytest.approx(times * share, rel=0.02)
    assert number(large, "arguments of the program") == pytest.approx(3 * share, rel=0.02)
    activations = [number(large, f"activations, remat={name}") for name in ("none", "dots", "full")]
    assert activations == sorted(activations, reverse=True)


def test_a_plan_says_what_does_not_fit():
    done = plan(f"--config={ROOT}/configs/c4.py:size=1.2b", "--devices=1", "--chip=v5e", "--config.model.num_layers=1")
    assert done.returncode == 0, done.stderr
    assert "v5e, 16.000 GiB: DOES NOT FIT; needs " in done.stdout
    assert "a step takes at least" in done.stdout


MESH_OF_8 = ("--devices=8", "--config.mesh.data=1", "--config.mesh.fsdp=8", "--config.global_batch_size=32")
FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("remat", "flags", "least"),
    [
        pytest.param("none", ("--devices=1", "--config.global_batch_size=4"), 0.95, marks=FULL),
        pytest.param("dots", ("--devices=1", "--config.global_batch_size=4"), 0.95, marks=FULL),
        pytest.param("full", ("--devices=1", "--config.global_batch_size=4"), 0.95, marks=FULL),
        ("none", ("--devices=1", "--config.global_batch_size=16", "--config.num_microbatches=4"), 0.95),
        pytest.param("none", MESH_OF_8, 0.95, marks=FULL),
        # Gradients are whole before they are reduced.
        pytest.param("none", (*MESH_OF_8, "--config.num_microbatches=4"), 0.85, marks=FULL),
    ],
)
def test_activations_by_shapes_are_near_what_the_compiler_finds(remat, flags, least):
    """In float32, which no compiler widens. Gradients are temporaries too, but come while activations go."""
    small = ("--config.model.compute_dtype=float32", "--config.logging.telemetry_every_steps=None")
    done = plan(f"--config={ROOT}/configs/c4.py", *small, *flags, f"--config.model.remat={remat}")
    assert done.returncode == 0, done.stderr
    by_shapes = number(done.stdout, "gradients") + number(done.stdout, f"activations, remat={remat}")
    assert least <= by_shapes / number(done.stdout, "its temporaries") <= 1.25


def test_activations_count_gathered_weights_that_are_kept():
    """Of equal rows a device. In float32 only gathering makes copies, but of attention's, which are reshaped."""
    decoder = dataclasses.replace(TINY_MODEL, compute_dtype="float32")
    layers, mlp, head = TINY_MODEL.num_layers, 2 * 16 * 32, 16 * 64

    def kept(data: int, fsdp: int) -> dict[str, int]:
        data_config, batch = DataConfig(vocab_size=64), 2 * data * fsdp
        config = TrainConfig(workdir="-", model=decoder, data=data_config, global_batch_size=batch, length=4)
        return activations(config, AbstractMesh((data, fsdp, 1), MESH_AXES))

    assert kept(2, 1) == kept(1, 1)
    more = {remat: size - kept(1, 1)[remat] for remat, size in kept(1, 2).items()}
    again = 4 * (mlp + head)  # one block's, for its recomputation
    assert more == {"none": 4 * (layers * mlp + head), "dots": again, "full": again}


@pytest.mark.usefixtures("standard_promotion")
def test_parts_of_bfloat16_parameters_have_a_sum_in_float32(tiny):
    """4 bytes a parameter, and 2 for the gradient of a part."""
    decoder = dataclasses.replace(TINY_MODEL, num_layers=1, param_dtype="bfloat16")
    plan = make_plan(dataclasses.replace(tiny, model=decoder, num_microbatches=2))
    assert plan.params == 2 * plan.num_params
    assert plan.grads == 6 * plan.num_params


C4 = f"--config={ROOT}/configs/c4.py:size=1.2b,chips=64"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--config is missing",)),
        ((C4, "--devices=0"), ("devices=0", "at least 1")),
        ((C4, "--chip=Z80"), ("--chip", "Z80", "H100")),
        ((C4, "--devices=8"), ("mesh.fsdp=64", "needs 64 devices, there are 8")),
        ((C4, "--devices=65"), ("devices=65: the mesh has 64; give as many",)),
        ((C4, "--devices=3", "--config.mesh.fsdp=3"), ("global_batch_size", "256", "data * fsdp = 3")),
        ((C4, "--devices=64", "--config.mesh.fsdp=1", "--config.mesh.tensor=64"), ("heads=32", "mesh.tensor=64")),
        ((f"--config={ROOT}/configs/c4.py:chips=7",), ("chips=7", "1, 8, 64, 512")),
    ],
)
def test_bad_arguments(arguments, parts):
    assert_one_line(plan(*arguments), *parts)


def test_printed_plans_are_those_of_the_code(large, full):
    """But for what the CPU's compiler makes of them, which may depend on the CPU."""

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if "CPU" not in line]

    found = {512: large}
    for chips in (8, 64) if full else ():
        config = f"--config={ROOT}/configs/c4.py:size=1.2b,chips={chips}"
        found[chips] = plan(config, f"--devices={chips}", "--chip=H100").stdout
    for chips, text in found.items():
        assert lines(text) == lines((ROOT / "docs" / "plans" / f"c4_1.2b_{chips}.txt").read_text())
