"""arXiv 2407.07972, "Deconstructing What Makes a Good Optimizer for Language Models": what its figures share.

All figures of a scale have one base, the 150m model, and one folder, so that a run that several of them want is trained
once. What the text leaves open is as in the code released with the paper. The paper has one seed, so at its scale no
claim about the loss at the best rate is resolved: `--study.seeds=3` adds fresh ones.

Two tolerances of claims. `alike`, how far apart losses are that the paper calls comparable: .05 nats at its scale, for
the text calls .02 small and its curves are read to about .01; .1 nats elsewhere, less than a tenth of what lies between
AdamW and SGD at tiny (5.05 and 6.32 nats). `seed_noise`, how far apart two runs of one seed must be to be told apart:
.01 nats at the paper's scale, an estimate, and .03 elsewhere, twice the deviation over seeds of the difference between
AdamW and Adalayer* at tiny. What is said of tiny is from its calibration, docs/results/README.md.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig
from jaxopt_lm.data.config import CC_ALL_32000_SHA256
from jaxopt_lm.errors import require
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.papers.deconstructing_optimizers import OPTIMIZERS, Known
from jaxopt_lm.papers.scales import SHAPES, grid, parsed, shape_of
from jaxopt_lm.studies import Arm, Claim, LessSensitiveTo, Rules, SmallGain, Study
from jaxopt_lm.studies.study import Values

SIZES = ("150m", "300m", "600m", "1.2b")
STEPS = {"150m": 25_000, "300m": 50_000, "600m": 100_000, "1.2b": 200_000}
SHARDS = {"150m": 24, "300m": 48, "600m": 96, "1.2b": 192}
"""Of C4's training text, about 150 M tokens each, so that no run sees a token twice."""

MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
ADAPTIVE = ("adamw", "adafactor", "lion", "signum")
FIVE = (*ADAPTIVE, "sgdw")
BASELINES = ("adamw", "sgdw", "adalayer_star")
"""The dotted lines of Figures 3 and 9 to 17."""

WITHOUT: Values = {"model.qk_norm": "none", "z_loss": 0.0}
"""The variant without QK norm and z-loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale of the paper's studies.

    Attributes:
      name: its name.
      base: every run's config but for its setting, arm and seeds; the 150m model.
      sizes: what stands for each of `SIZES`, as a setting; two of them may be the same.
      longer: values of fields with which the base trains four times as long.
      grids: rates by kind, see `Kind.grid`.
      known: rates and durations that are fixed.
      rules: of the studies.
      alike: nats per token, see above.
      small_gain: nats per token that the paper calls a small gain, .02; elsewhere `alike`, for .02 is below the noise.
      seed_noise: nats per token, see above.
      most: so many values at most of a number that is not the rate.
      trained: those of `SIZES` that are trained.
    """

    name: str
    base: TrainConfig
    sizes: dict[str, Values]
    longer: Values
    grids: dict[str, tuple[float, ...]]
    known: Known
    rules: Rules
    alike: float
    small_gain: float
    seed_noise: float
    most: int = 9
    trained: tuple[str, ...] = SIZES

    def study(
        self,
        arms: tuple[Arm, ...],
        settings: tuple[Values, ...],
        claims: tuple[Claim, ...] = (),
        *,
        one_seed: bool = False,
    ) -> Study:
        """The study of a figure.

        Args:
          arms: the first is the baseline. Where every arm has one rate, none is added.
          settings: of `settings`, or made from them; those of one name are one.
          claims: about them.
          one_seed: the claims are judged on the tuning seed alone, so no fresh seeds are trained.
        """
        changes = {"seeds": 0, "noise_seeds": 0} if one_seed else {}
        if all(len(arm.learning_rates) == 1 for arm in arms):
            changes["max_extensions"] = 0
        rules = dataclasses.replace(self.rules, **changes)
        return Study(base=self.base, arms=arms, settings=_apart(settings), rules=rules, claims=claims)

    def settings(self, *sizes: str, variants: tuple[Values, ...] = ({},)) -> tuple[Values, ...]:
        """Settings of those of the sizes that are trained, each in every variant; equal ones at this scale are one."""
        here = [size for size in sizes if size in self.trained]
        return _apart(self._setting(size, variant) for variant in variants for size in here)

    def names(self, *sizes: str, variants: tuple[Values, ...] = ({},)) -> tuple[str, ...]:
        """The names of these settings, for claims and arms."""
        return tuple(values["name"] for values in self.settings(*sizes, variants=variants))

    def _setting(self, size: str, variant: Values) -> Values:
        words = {"z_loss": "no QK norm or z-loss", "num_train_steps": "4x steps"}
        parts = [self.sizes[size]["name"], *(text for field, text in words.items() if field in variant)]
        return self.sizes[size] | variant | {"name": ", ".join(parts)}

    def gains_little(self, what: str, arms: tuple[str, ...], own: str = "") -> SmallGain:
        """Figure 7's claim about a number; `own` is the setting of the default where settings are its values."""
        return SmallGain(
            name="small gains",
            text=f"No {what} gains more than .02 nats.",
            arms=arms,
            at_most=self.small_gain,
            noise=self.seed_noise,
            own=own,
        )

    def sgd_is_most_sensitive(self, *, over_settings: bool = False) -> tuple[LessSensitiveTo, ...]:
        """To a number, the arms' nuisance axis, or `over_settings`: a claim for each of the other four."""
        return tuple(
            LessSensitiveTo(
                name=f"{arm} and SGD",
                text=f"SGD is more sensitive than {arm}.",
                arm=arm,
                than="sgdw",
                noise=self.seed_noise,
                over_settings=over_settings,
            )
            for arm in ADAPTIVE
        )

    def values(self, *values: float) -> tuple[float, ...]:
        """Those of the values of a number that are tried at this scale."""
        return values[: self.most]

    def arms(self, *names: str, **fields) -> tuple[Arm, ...]:
        """Several of `arm`."""
        return tuple(self.arm(name, **fields) for name in names)

    def arm(self, name: str, /, *, fixed: bool = False, **fields) -> Arm:
        """An arm of `OPTIMIZERS` on the rates of its kind.

        Args:
          name: of the optimizer, and of the arm unless `fields` have another.
          fixed: at its best rate alone.
          **fields: of `Arm`.
        """
        kind = OPTIMIZERS[name]
        optimizer = kind.make(self.known)
        rates = (optimizer.learning_rate,) if fixed else self.grids[kind.grid]
        given: dict[str, Any] = {"name": name, "optimizer": optimizer, "learning_rates": rates}
        return Arm(**(given | fields))


def _apart(settings: Iterable[Values]) -> tuple[Values, ...]:
    return tuple({values["name"]: values for values in settings}.values())


def scale(arg: str) -> Scale:
    """The scale that a config file's argument asks for: `scale=tiny` by default.

    Args:
      arg: what `get_config` is given. `sizes=150m+300m` trains these alone. For scale=paper, data_dir and vocabulary
        are as for `configs/c4.py`.

    Raises:
      InputError: an unknown scale, size or key.
    """
    values = parsed(
        arg, data_dir="tensorflow_datasets", vocabulary="cc_all.32000/sentencepiece.model", sizes="+".join(SIZES)
    )
    trained = tuple(values.sizes.split("+"))
    unknown = [size for size in trained if size not in SIZES]
    require(not unknown, f"config argument 'sizes={values.sizes}': must be of {', '.join(SIZES)}, joined by +")
    at = _paper(values.data_dir, values.vocabulary) if values.scale == "paper" else _on_sotu(values.scale)
    return dataclasses.replace(at, trained=trained)


_SCHEDULE = WarmupCosineConfig(warmup_fraction=0.1, start_fraction=0.1, end_fraction=0.1)


def _paper(data_dir: str, vocabulary: str) -> Scale:
    base = TrainConfig(
        workdir="runs/deconstructing_paper",
        model=preset("150m"),
        data=DataConfig(
            task="c4",
            files=data_dir,
            max_train_files=SHARDS["150m"],
            vocabulary=vocabulary,
            vocabulary_sha256=CC_ALL_32000_SHA256,
            extra_ids=100,
            vocab_size=32_100,
            tokens_dir="tokens/c4_24_shards",
        ),
        schedule=_SCHEDULE,
        eval=EvalConfig(every_steps=1000, batch_size=32, max_batches=1000),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=1),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=500, tensorboard=False),
        num_train_steps=STEPS["150m"],
        global_batch_size=256,
        length=512,
    )
    return Scale(
        name="paper",
        base=base,
        sizes={
            size: {"name": size}
            | ({} if size == "150m" else shape_of(size) | {"num_train_steps": STEPS[size]} | _shards(SHARDS[size]))
            for size in SIZES
        },
        longer={"num_train_steps": 100_000} | _shards(96),
        grids={"adam": grid(1e-4, 9), "sign": grid(1e-5, 9), "sgd": grid(1e-3, 9), "hybrid": grid(0.1, 10)},
        known=Known(_best(adam=3.16e-3, sign=3.16e-4, sgd=1.0), calibration_steps=1000),
        rules=Rules(seeds=0, noise_seeds=0, max_extensions=0),
        alike=0.05,
        small_gain=0.02,
        seed_noise=0.01,
    )


def _shards(number: int) -> Values:
    return {"data.max_train_files": number, "data.tokens_dir": f"tokens/c4_{number}_shards"}


def _best(adam: float, sign: float, sgd: float) -> dict[str, float]:
    of_adam = dict.fromkeys(("adamw", "adafactor", "adalayer_star"), adam)
    return of_adam | dict.fromkeys(("lion", "signum"), sign) | {"sgdw": sgd, "hybrid": 10.0}


GRIDS = {
    "small": {"adam": grid(1e-4, 7), "sign": grid(3.16e-5, 7), "sgd": grid(3.16e-2, 7), "hybrid": grid(0.316, 7)},
    "tiny": {"adam": grid(3.16e-4, 7), "sign": grid(1e-4, 7), "sgd": grid(1e-2, 7), "hybrid": grid(0.316, 7)},
    "smoke": {"adam": grid(1e-2), "sign": grid(3.16e-3), "sgd": grid(0.316), "hybrid": grid(10.0)},
}
"""On the State of the Union."""


def _on_sotu(name: str) -> Scale:
    shape = SHAPES[name]
    one, two = shape.sizes(longer=True)
    at_tiny = _best(adam=1e-2, sign=3.16e-3, sgd=0.316)
    return Scale(
        name=name,
        base=shape.base(f"runs/deconstructing_{name}", "quickstart", schedule=_SCHEDULE),
        sizes={"150m": one, "300m": two, "600m": two, "1.2b": two},
        longer={"num_train_steps": 4 * shape.steps},
        grids=GRIDS[name],
        known=Known(
            _best(adam=3.16e-3, sign=1e-3, sgd=1.0) if name == "small" else at_tiny,
            calibration_steps=max(shape.steps // 25, 1),
        ),
        rules=shape.rules,
        alike=0.1,
        small_gain=0.1,
        seed_noise=0.03,
        most=2 if name == "smoke" else 9,
    )
