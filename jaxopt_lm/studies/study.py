"""What a study asks: which optimizers, at which learning rates, in which settings, on how many seeds.

Words. An *arm* is an optimizer with its range of learning rates. A *setting* is what the arms compete in: values of any
fields, a model's width say; one without values where a study has no other. Rates are chosen on the *tuning seed*, 0;
the verdict is of *fresh seeds*, 1, 2, …, which choose nothing. Arms are compared with the *baseline*.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import from_dict, replaced, sources, to_dict
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import sha256_of
from jaxopt_lm.optimizers import OptimizerConfig

if TYPE_CHECKING:
    from jaxopt_lm.studies.claims import Claim

Values = dict[str, Any]
"""Values of fields by dotted name."""

_OPTIMIZER = "optimizer."
_NAME = "name"


def over(name: str, *values: Any) -> list[Values]:
    """An axis: a field of the config, by dotted name, and the values it takes."""
    return [{name: value} for value in values]


def prod(*axes: Sequence[Values]) -> list[Values]:
    """Every combination of the axes' points."""
    return [_together(points) for points in itertools.product(*axes)]


def chain(*axes: Sequence[Values]) -> list[Values]:
    """The axes' points one after another."""
    return [*itertools.chain(*axes)]


def zipped(*axes: Sequence[Values]) -> list[Values]:
    """The axes' first points together, their second ones, and so on; all have as many."""
    require(
        len({len(axis) for axis in axes}) < 2,
        f"zipped: its axes have {', '.join(str(len(axis)) for axis in axes)} points; give them as many",
    )
    return [_together(points) for points in zip(*axes, strict=True)]


def _together(points: Iterable[Values]) -> Values:
    joined: Values = {}
    for point in points:
        for name in point:
            require(name not in joined, f"{name}: is in two axes; leave one out")
        joined |= point
    return joined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """An optimizer and what is tried of it.

    Attributes:
      name: in tables and figures.
      optimizer: its numbers; its learning rate is the default, at which the noise of the baseline is measured.
      learning_rates: the first grid, lowest first; it is extended until the best is inside.
      nuisance: further fields of the optimizer, by name, and their values: tried one after another at the best rate,
        each at the best value of those before it; they count among the arm's trials. `b1=b2` are two fields of the
        same value.
      rate: the field of the optimizer, by dotted name, that learning_rates are values of: `adaptive.learning_rate` of a
        hybrid without SGD, say.
      values: of other fields of the config, by dotted name, in this arm's runs.
      settings: the names of the settings in which it competes; none: all.
    """

    name: str
    optimizer: OptimizerConfig
    learning_rates: tuple[float, ...]
    nuisance: tuple[tuple[str, tuple[float, ...]], ...] = ()
    rate: str = "learning_rate"
    values: Values = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def __post_init__(self):
        rates = self.learning_rates
        require(bool(self.name), "arm.name: is empty; give it a name")
        require(bool(rates), f"arm {self.name}: learning_rates is empty; give one at least")
        for rate in rates:
            number = isinstance(rate, int | float) and math.isfinite(rate) and rate > 0
            require(number, f"arm {self.name}: learning_rates={rate}: must be finite and above 0")
        require(list(rates) == sorted(set(rates)), f"arm {self.name}: learning_rates={rates}: must grow")
        for name, values in self.nuisance:
            require(bool(values), f"arm {self.name}: nuisance axis {name} is empty; give it values or leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """How many runs are spent on what."""

    seeds: int = 3
    """Fresh seeds on which an arm is judged, at its best rate and its neighbours."""
    noise_seeds: int = 3
    """Seeds of the baseline at its default rate, trained before all else: how far apart equal runs are."""
    max_extensions: int = 3
    """How often two rates are added where the best of an arm is not inside its grid."""
    level: float = 0.95
    """Of intervals; differences count below a p value of 1 - level."""

    def __post_init__(self):
        for name, low in (("seeds", 0), ("noise_seeds", 0), ("max_extensions", 0)):
            value = getattr(self, name)
            require(value >= low, f"study.{name}={value}: must be at least {low}")
        require(0.5 <= self.level < 1, f"study.level={self.level}: must be in [0.5, 1)")


class Run(NamedTuple):
    """One run of a study.

    Attributes:
      setting: its name.
      arm: its name.
      changed: other numbers of the optimizer that are not the arm's own, by name.
      learning_rate: the peak.
      seed: 0 the tuning seed, else a fresh one.
    """

    setting: str
    arm: str
    changed: tuple[tuple[str, float], ...]
    learning_rate: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
      base: every run is this config but for its optimizer, setting, seeds and workdir, and for the calibration steps of
        an optimizer that has them, which are added to its length.
      arms: the first is the baseline.
      settings: values of fields, by dotted name; those of an optimizer (`optimizer.b1`) too. `name` is no field: it is
        what the setting is called where its values do not say it well.
      rules: how many runs are spent on what.
      claims: judged once there is something to judge them by.
    """

    base: TrainConfig
    arms: tuple[Arm, ...]
    settings: tuple[Values, ...] = ({},)
    rules: Rules = Rules()
    claims: tuple["Claim", ...] = ()

    def __post_init__(self):
        require(bool(self.arms), "study: has no arms; give two at least")
        for what, names in (("arms", [arm.name for arm in self.arms]), ("settings", self.setting_names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            require(not twice, f"study: two {what} are called {', '.join(twice)}; name them apart")
        require(bool(self.settings), "study: settings is empty; give an axis values, or leave it out")
        self.sources()
        arms, settings = {arm.name for arm in self.arms}, set(self.setting_names)
        for claim in self.claims:
            for what, named, known in (
                ("arm", claim.named_arms(), arms),
                ("setting", claim.named_settings(), settings),
            ):
                _check_known(f"claim {claim.name}", what, named, known)
        for arm in self.arms:
            _check_known(f"arm {arm.name}", "setting", set(arm.settings), settings)
        require(not self.baseline.settings, f"arm {self.baseline.name}: is the baseline; leave out its settings")
        for setting, arm in self.contests:
            for rate in arm.learning_rates:
                self.config(Run(setting, arm.name, (), rate, 0))
            for name, values in arm.nuisance:
                for value in values:
                    self.config(Run(setting, arm.name, ((name, value),), arm.learning_rates[0], 0))

    @property
    def baseline(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def setting_names(self) -> list[str]:
        """`embed_dim=64, num_heads=2`: the last parts of the fields' names; or the name that a setting gives itself."""
        return [
            values[_NAME]
            if _NAME in values
            else ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in values.items())
            for values in self.settings
        ]

    @property
    def contests(self) -> list[tuple[str, Arm]]:
        """Every setting with each arm that competes in it."""
        pairs = itertools.product(self.setting_names, self.arms)
        return [(setting, arm) for setting, arm in pairs if not arm.settings or setting in arm.settings]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def config(self, run: Run) -> TrainConfig:
        """The config of one run, but for its `workdir`.

        Raises:
          InputError: a setting or a nuisance axis names no field, or its value does not fit.
        """
        arm = self.arm(run.arm)
        setting = self.settings[self.setting_names.index(run.setting)]
        values = {name: x for name, x in setting.items() if name != _NAME} | arm.values
        of_optimizer = {name.removeprefix(_OPTIMIZER): x for name, x in values.items() if name.startswith(_OPTIMIZER)}
        changed = {name: value for names, value in run.changed for name in names.split("=")}
        numbers = of_optimizer | changed | {arm.rate: run.learning_rate}
        try:
            optimizer = replaced(arm.optimizer, numbers)
            base = replaced(self.base, {name: x for name, x in values.items() if not name.startswith(_OPTIMIZER)})
            return dataclasses.replace(
                base,
                optimizer=optimizer,
                num_train_steps=base.num_train_steps + optimizer.calibration_steps,
                seed=base.seed + run.seed,
                data=dataclasses.replace(base.data, seed=base.data.seed + run.seed),
            )
        except InputError as error:
            where = f"arm {run.arm}" + (f", {run.setting}" if run.setting else "")
            raise InputError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON values; `from_dict` is its inverse. Sources of a user's own optimizers are `sources`."""
        arms = [
            {
                "name": arm.name,
                "config": to_dict(dataclasses.replace(self.base, optimizer=arm.optimizer)),
                "learning_rates": list(arm.learning_rates),
                "nuisance": [[name, list(values)] for name, values in arm.nuisance],
                "rate": arm.rate,
                "values": arm.values,
                "settings": list(arm.settings),
            }
            for arm in self.arms
        ]
        rules = dataclasses.asdict(self.rules)
        claims = [{"kind": type(claim).__name__} | dataclasses.asdict(claim) for claim in self.claims]
        dump = {"base": to_dict(self.base), "arms": arms, "settings": list(self.settings), "rules": rules}
        return dump | {"claims": claims}

    @classmethod
    def from_dict(cls, dump: Mapping[str, Any], folder: Path) -> "Study":
        """The study of a dump; `folder` has the sources of a user's own optimizers, which are executed.

        Raises:
          InputError: the dump is not one, or a source is missing or changed.
        """
        try:
            arms = tuple(
                Arm(
                    name=arm["name"],
                    optimizer=from_dict(TrainConfig, arm["config"], folder).optimizer,
                    learning_rates=tuple(arm["learning_rates"]),
                    nuisance=tuple((name, tuple(values)) for name, values in arm["nuisance"]),
                    **_of_arm(arm),
                )
                for arm in dump["arms"]
            )
            base, rules = from_dict(TrainConfig, dump["base"], folder), Rules(**dump["rules"])
            claims = tuple(map(_claim, dump["claims"]))
            return cls(base=base, arms=arms, settings=tuple(dump["settings"]), rules=rules, claims=claims)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{folder}: its study.json is not that of a study: {error}; give another folder") from None

    def sources(self) -> dict[str, bytes]:
        """The sources of a user's own optimizers by file name.

        Raises:
          InputError: two of them have the same name.
        """
        found: dict[str, bytes] = {}
        for arm in self.arms:
            for name, content in sources(dataclasses.replace(self.base, optimizer=arm.optimizer)).items():
                same = found.setdefault(name, content) == content
                require(same, f"arm {arm.name}: another arm has another source named {name}; rename one")
        return found


def _check_known(where: str, what: str, named: set[str], known: set[str]) -> None:
    unknown = sorted(named - known)
    require(not unknown, f"{where}: there is no {what} {', '.join(unknown)}; name one of {sorted(known)}")


def _of_arm(dump: Mapping[str, Any]) -> dict[str, Any]:
    """What a dump says of an arm since there are such fields."""
    found = {name: dump[name] for name in ("rate", "values", "settings") if name in dump}
    return found | ({"settings": tuple(found["settings"])} if "settings" in found else {})


def _claim(dump: Mapping[str, Any]) -> "Claim":
    from jaxopt_lm.studies.kinds import KINDS  # statistics, which those who train do without

    fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in dump.items()}
    return KINDS[fields.pop("kind")](**fields)


def run_id(config: TrainConfig) -> str:
    """The name of a run, the same for every config of the same run: 16 digits of its identity's SHA-256."""
    return sha256_of(json.dumps(config.identity(), sort_keys=True).encode())[:16]
