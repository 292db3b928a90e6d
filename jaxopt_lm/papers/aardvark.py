"""What the studies of the four papers by Aardvark share: Qwen3-style models on FineWeb, one learning rate for all arms.

Training text is FineWeb with T5's vocabulary without its extra ids, .05% of the documents held out. The papers give
neither a vocabulary, nor a decay of the rate, nor a z-loss: the rate is constant after the warmup, and there is no
z-loss. Three of them report AdamW at about 4.927 nats under three budgets, so directions and gaps are reproduced, not
losses.

On the State of the Union the rate is 3.16e-3, a third of AdamW's best at tiny (1e-2); the papers' 3e-4 is a tenth of
what arXiv 2407.07972 finds best at 150m, a third of that at 300m and above. Warmups are the same share of the run.
"""

import dataclasses

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig
from jaxopt_lm.data.config import CC_ALL_32000_SHA256
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import AdamWConfig, OptimizerConfig
from jaxopt_lm.optimizers.schedules import ConstantConfig
from jaxopt_lm.papers.scales import SHAPES, Shape, parsed, shape_of
from jaxopt_lm.studies import Arm, Claim, Rules, Study
from jaxopt_lm.studies.study import Values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """What a paper says of its runs.

    Attributes:
      folder: the name of the study's folder.
      model: a preset.
      steps: of a run.
      batch: windows.
      length: tokens in a window.
      files: of FineWeb's, about .7 B tokens each, so that no run sees a token twice.
      warmup_steps: from rate 0.
      num_microbatches: parts of a batch.
      eval_every: steps between evaluations.
      seeds: that every arm is trained on.
      data_seed: the first of the data's.
      model_seed: the first of the initial parameters'.
    """

    folder: str
    model: str
    steps: int
    batch: int
    length: int
    files: int
    warmup_steps: int = 0
    num_microbatches: int = 1
    eval_every: int = 500
    seeds: int = 1
    data_seed: int = 0
    model_seed: int = 0


ALMVR = Runs(
    folder="almvr",
    model="134m",
    steps=399,
    batch=2048,
    length=2048,
    files=3,
    warmup_steps=400,
    num_microbatches=32,
    eval_every=50,
    data_seed=42,
    model_seed=42,
)
"""Windows of a batch, 2,048 of 2,048 tokens, are our choice for 4M tokens."""

LAYER_ADAPTIVE = Runs(folder="layer_adaptive", model="134m", steps=5150, batch=512, length=1024, files=5)
"""Clipping at 1.0 is our choice."""

LAYER_ADAPTIVE_STUDY = Runs(
    folder="layer_adaptive_study", model="134m", steps=10_000, batch=128, length=1024, files=3, seeds=5
)
"""The batch, clipping at 1.0 and no warmup are our choice."""

SVRM = Runs(
    folder="svrm",
    model="134m",
    steps=100_000,
    batch=128,
    length=1024,
    files=20,
    warmup_steps=1000,
    seeds=3,
    data_seed=42,
    model_seed=123,
)

LAYERS = {"small": 8, "tiny": 4, "smoke": 2}
"""Of the smaller model on the State of the Union. On two layers a line from 1 to a half and 1/l are the same."""

ADAMW = AdamWConfig(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1)
"""eps is our choice; "Revisiting Layer-Adaptive Optimization" has b2 = .999 and gives no decay."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale of a paper's studies.

    Attributes:
      name: its name.
      base: every run's config but for its setting, arm and seeds.
      rate: the learning rate of every arm.
      shape: of the models on the State of the Union; None at paper's scale.
      share: of the paper's steps that a run has.
      rules: of the studies.
    """

    name: str
    base: TrainConfig
    rate: float
    shape: Shape | None
    share: float
    rules: Rules

    def arm(self, name: str, optimizer: OptimizerConfig, **fields) -> Arm:
        """An optimizer at the one rate."""
        own = dataclasses.replace(optimizer, learning_rate=self.rate)
        return Arm(name=name, optimizer=own, learning_rates=(self.rate,), **fields)

    def study(self, arms: tuple[Arm, ...], claims: tuple[Claim, ...], settings: tuple[Values, ...] = ({},)) -> Study:
        """The study of a table or figure."""
        return Study(base=self.base, arms=arms, settings=settings, rules=self.rules, claims=claims)

    def steps(self, steps: int) -> int:
        """A duration of the paper's, at least 1."""
        return max(round(steps * self.share), 1) if steps else 0

    def sizes(self, *presets: str) -> tuple[Values, ...]:
        """The paper's models as settings; two elsewhere, or one for one."""
        if self.shape is None:
            return tuple({"name": name} | shape_of(name) for name in presets)
        sizes = {values["name"]: values for values in self.shape.sizes(longer=False)}
        return tuple(sizes.values())[: len(presets)]


def scale(arg: str, runs: Runs) -> Scale:
    """The scale that a config file's argument asks for: `scale=tiny` by default.

    Args:
      arg: what `get_config` is given. For scale=paper, files and vocabulary are as for `configs/fineweb.py`.
      runs: the paper's.

    Raises:
      InputError: an unknown scale or key.
    """
    values = parsed(arg, files="fineweb/sample/100BT", vocabulary="cc_all.32000/sentencepiece.model")
    if values.scale == "paper":
        return _paper(runs, values.files, values.vocabulary)
    shape = dataclasses.replace(SHAPES[values.scale], layers=LAYERS[values.scale])
    share = shape.steps / runs.steps
    schedule, rules = _schedule(runs.warmup_steps, share), dataclasses.replace(shape.rules, max_extensions=0)
    base = shape.base(f"runs/{runs.folder}_{values.scale}", "text", schedule=schedule, z_loss=0.0)
    return Scale(name=values.scale, base=base, rate=3.16e-3, shape=shape, share=share, rules=rules)


def _paper(runs: Runs, files: str, vocabulary: str) -> Scale:
    base = TrainConfig(
        workdir=f"runs/{runs.folder}_paper",
        model=preset(runs.model),
        data=DataConfig(
            task="fineweb",
            files=files,
            max_train_files=runs.files,
            validation_fraction=0.0005,
            vocabulary=vocabulary,
            vocabulary_sha256=CC_ALL_32000_SHA256,
            vocab_size=32_000,
            tokens_dir=f"tokens/fineweb_{runs.files}_files",
            seed=runs.data_seed,
        ),
        schedule=_schedule(runs.warmup_steps, 1.0),
        eval=EvalConfig(every_steps=runs.eval_every, batch_size=32, max_batches=100),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=1),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100, tensorboard=False),
        num_train_steps=runs.steps,
        global_batch_size=runs.batch,
        num_microbatches=runs.num_microbatches,
        length=runs.length,
        z_loss=0.0,
        seed=runs.model_seed,
    )
    rules = Rules(seeds=runs.seeds - 1, noise_seeds=0, max_extensions=0)
    return Scale(name="paper", base=base, rate=3e-4, shape=None, share=1.0, rules=rules)


def _schedule(warmup_steps: int, share: float) -> ConstantConfig:
    return ConstantConfig(warmup_steps=round(warmup_steps * share), start_fraction=0.0)
