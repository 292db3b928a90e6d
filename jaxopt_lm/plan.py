"""Says what a training run would cost on a mesh that this machine does not have.

    python -m jaxopt_lm.plan --config=configs/c4.py:size=1.2b,chips=64 --devices=64 --chip=H100
    python -m jaxopt_lm.plan --config=configs/quickstart.py --devices=8 --chip=v5e --config.mesh.fsdp=8
    python -m jaxopt_lm.plan --config=RUN/config.json --devices=16 --chip=H100 --config.model.remat=full

Lowers and compiles the real step for so many fake devices, on the CPU, and prints what each device holds, computes and
exchanges. No array of the model is allocated, and no accelerator is touched.
"""

import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Literal

from jaxopt_lm.config_io import WithConfig, from_command_line
from jaxopt_lm.errors import let_interrupts_kill, report_input_errors, require

if TYPE_CHECKING:
    from jaxopt_lm.planning.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanArguments(WithConfig):
    """What to plan."""

    devices: int = 8
    """How many devices the mesh has."""
    chip: Literal["A100-80", "H100", "H200", "v4", "v5e", "v5p", "v6e"] = "H100"
    """What they are; v4 to v6e are TPUs."""

    def __post_init__(self):
        require(1 <= self.devices <= 8192, f"devices={self.devices}: must be at least 1 and at most 8192")


def report(plan: "Plan", arguments: PlanArguments) -> str:
    """The plan in words."""
    from jaxopt_lm.chips import CHIPS

    config, chip = arguments.config, CHIPS[arguments.chip]
    by_shape = plan.params + plan.grads + plan.opt_state + plan.batch + plan.activations[config.model.remat]
    by_compiler = plan.arguments + plan.temporaries
    fits = "DOES NOT FIT", "may not fit", "fits"
    seconds = plan.seconds(chip)
    longest = max(seconds, key=seconds.__getitem__)
    least, most = (flops * math.prod(plan.mesh) for flops in (plan.program.flops, plan.program.most_flops))
    lines = [
        f"parameters                {plan.num_params:,}",
        f"mesh                      data {plan.mesh[0]} x fsdp {plan.mesh[1]} x tensor {plan.mesh[2]}",
        f"tokens per step           {config.tokens_per_step:,} in {config.num_microbatches} parts",
        "",
        "bytes per device",
        *(
            f"  {name:<24}{_gib(size)}"
            for name, size in (
                ("parameters", plan.params),
                ("gradients", plan.grads),
                ("optimizer state", plan.opt_state),
                ("batch", plan.batch),
            )
        ),
        *(
            f"  activations, remat={name:<5}{_gib(size)}{'  (this config)' if name == config.model.remat else ''}"
            for name, size in plan.activations.items()
        ),
        f"  arguments of the program{_gib(plan.arguments)}  (CPU compiler)",
        f"  its temporaries         {_gib(plan.temporaries)}  (CPU compiler: bfloat16 widened, gradients included)",
        "",
        "floating-point operations per step, all devices",
        f"  6 N T + attention       {plan.model_flops:.4e}",
        *(
            f"  matrix products         {flops:.4e}  ({flops / plan.model_flops:.3f} of the former){when}"
            for flops, when in ((least, ""), (most, ", in steps that estimate curvature"))[: 1 + (most > least)]
        ),
        "",
        "exchanged per device and step (bytes of the results)",
        *(
            f"  {f'{what.kind} {what.dtype} over {what.group}':<34}{_gib(size)}"
            for what, size in sorted(plan.program.collectives.items(), key=lambda item: -item[1])
        ),
        "",
        "largest arrays that every device holds whole",
        *(f"  {name:<44}{size:>12,} bytes" for name, size in plan.replicated),
        "",
        f"involuntary full rematerialisations: {len(plan.rematerialized)}",
        *(f"  {line}" for line in plan.rematerialized),
        "",
        f"{arguments.chip}, {_gib(chip.memory).strip()}: "
        f"{fits[(by_shape <= chip.memory) + (by_compiler <= chip.memory)]}; "
        f"needs {_gib(by_shape).strip()} by shapes, {_gib(by_compiler).strip()} by the CPU compiler",
        f"a step takes at least {seconds[longest]:.3g} s ({longest}); "
        + ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items()),
    ]
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:10.3f} GiB"


@report_input_errors
def main() -> None:
    """The command line."""
    arguments = from_command_line(PlanArguments, __doc__ or "")
    let_interrupts_kill()
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    jax.config.update("jax_enable_compilation_cache", False)  # what is not compiled is not dumped
    from jaxopt_lm.planning.plan import make_plan

    print(report(make_plan(arguments.config), arguments))


if __name__ == "__main__":
    sys.exit(main())
