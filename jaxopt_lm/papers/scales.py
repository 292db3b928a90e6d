"""What studies of different papers share: models of two sizes on the State of the Union, rules, grids."""

import dataclasses
import math
import types
from typing import Any

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig, parse_arg
from jaxopt_lm.errors import require
from jaxopt_lm.model import ModelConfig, preset
from jaxopt_lm.model.config import DType
from jaxopt_lm.studies import Rules
from jaxopt_lm.studies.study import Values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and its runs on the State of the Union.

    Attributes:
      layers: of the smaller model; the larger one has twice as many.
      width: of the residual stream; heads are 64 wide, or there are two.
      steps: of a run.
      batch: windows.
      length: tokens in a window.
      eval_every: steps between evaluations.
      eval_batches: of as many windows as a batch; None: the whole split.
      rules: of the studies.
      compute_dtype: of the model.
      two_sizes: whether there is a larger model; without, it is the smaller one again.
    """

    layers: int
    width: int
    steps: int
    batch: int
    length: int
    eval_every: int
    eval_batches: int | None
    rules: Rules
    compute_dtype: DType = "float32"
    two_sizes: bool = True

    def model(self, family: str) -> ModelConfig:
        """A model of the family of a preset for CPUs: quickstart (OLMo-style) or text (Qwen3-style)."""
        like, heads = preset(family), max(self.width // 64, 2)
        return dataclasses.replace(
            like,
            num_layers=self.layers,
            embed_dim=self.width,
            num_heads=heads,
            num_kv_heads=heads,
            mlp_dim=like.mlp_dim * self.width // like.embed_dim,
            compute_dtype=self.compute_dtype,
        )

    def base(self, workdir: str, family: str, **fields: Any) -> TrainConfig:
        """A run; `fields` are others of its config."""
        given: dict[str, Any] = {
            "workdir": workdir,
            "model": self.model(family),
            "data": DataConfig(task="sotu", vocab_size=4096, tokens_dir="tokens/sotu_4096"),
            "eval": EvalConfig(every_steps=self.eval_every, batch_size=self.batch, max_batches=self.eval_batches),
            "checkpoint": CheckpointConfig(every_steps=self.steps, keep_last=1),
            "logging": LoggingConfig(every_steps=10, telemetry_every_steps=self.eval_every, tensorboard=False),
            "num_train_steps": self.steps,
            "global_batch_size": self.batch,
            "length": self.length,
        }
        return TrainConfig(**(given | fields))

    def sizes(self, longer: bool) -> tuple[Values, Values]:
        """Both models as settings; with `longer` the larger one is trained for twice the steps."""
        one: Values = {"name": f"{self.layers} layers"}
        if not self.two_sizes:
            return one, one
        two: Values = {"name": f"{2 * self.layers} layers", "model.num_layers": 2 * self.layers}
        return one, two | ({"num_train_steps": 2 * self.steps} if longer else {})


_JUDGED = Rules(seeds=3, noise_seeds=3, max_extensions=1)

SHAPES = {
    "small": Shape(
        layers=8,
        width=512,
        steps=320,
        batch=64,
        length=256,
        eval_every=80,
        eval_batches=None,
        rules=_JUDGED,
        compute_dtype="bfloat16",
    ),
    "tiny": Shape(
        layers=2,
        width=64,
        steps=400,
        batch=32,
        length=64,
        eval_every=100,
        eval_batches=16,
        rules=_JUDGED,
    ),
    "smoke": Shape(
        layers=2,
        width=16,
        steps=10,
        batch=8,
        length=32,
        eval_every=10,
        eval_batches=2,
        rules=Rules(seeds=2, noise_seeds=0, max_extensions=0),
        two_sizes=False,
    ),
}
"""By the name of a scale."""

SCALES = ("paper", *SHAPES)


def parsed(arg: str, **defaults: Any) -> types.SimpleNamespace:
    """The values of a config file's argument, `scale` (tiny by default) among them.

    Raises:
      InputError: an unknown key or scale.
    """
    values = parse_arg(arg, scale="tiny", **defaults)
    require(values.scale in SCALES, f"config argument 'scale={values.scale}': must be one of {', '.join(SCALES)}")
    return values


def grid(low: float, number: int = 1) -> tuple[float, ...]:
    """So many rates from the one nearest to `low` on, of 1, 3.16, 10, 31.6, … and their like below 1."""
    first = round(2 * math.log10(low))
    return tuple(float(f"{10 ** ((first + i) / 2):.3g}") for i in range(number))


def shape_of(name: str) -> Values:
    """The fields in which the models of a family differ, of a preset, as a setting has them."""
    model = preset(name)
    fields = ("num_layers", "embed_dim", "num_heads", "num_kv_heads", "mlp_dim")
    return {f"model.{field}": getattr(model, field) for field in fields}
