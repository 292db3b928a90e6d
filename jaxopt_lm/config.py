"""The config of a training run: what can be set and what fits together.

Frozen dataclasses, checked when they are built. Reading, overriding and writing them is `jaxopt_lm.config_io`.
"""

import dataclasses
import re
import types
import typing
from typing import Any, TypeVar

from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.dumps import has_type, join_path, to_dict, type_name, without
from jaxopt_lm.errors import InputError, check_path, require
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES, AdamWConfig, OptimizerConfig, ScheduleConfig
from jaxopt_lm.optimizers.config import FLOAT32_MAX
from jaxopt_lm.optimizers.own import check_class, class_named
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig

_T = TypeVar("_T")


def _at_least(section: str, config: Any, low: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:
            raise InputError(f"{join_path(section, name)}={value}: must be at least {low}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(TokensConfig):
    """Which tokens, and in which order."""

    seed: int = 0
    """Seed of the order of the training windows."""
    verify: bool = True
    """Read every shard once before training and compare its checksum, about 1 GB/s; False: compare sizes alone."""

    def __post_init__(self):
        super().__post_init__()
        _at_least("data", self, 0, "seed")
        require(self.seed < 2**32, f"data.seed={self.seed}: must be less than 2^32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation on the first windows of the validation split, always the same."""

    every_steps: int = 1000
    """Evaluate after every so many steps, and after the last."""
    batch_size: int = 32
    """Windows in an evaluation batch."""
    max_batches: int | None = 1000
    """At most so many batches; None: the whole split."""

    def __post_init__(self):
        _at_least("eval", self, 1, "every_steps", "batch_size", "max_batches")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved and which saves stay. The last step is always saved."""

    every_steps: int = 1000
    """Save after every so many steps."""
    keep_last: int = 2
    """Keep the newest so many."""
    keep_every_steps: int | None = None
    """Keep, besides, every save at a multiple of this; None: no others."""

    def __post_init__(self):
        _at_least("checkpoint", self, 1, "every_steps", "keep_last", "keep_every_steps")
        every, keep = self.every_steps, self.keep_every_steps
        require(
            keep is None or keep % every == 0,
            f"checkpoint.keep_every_steps={keep}: must be a multiple of checkpoint.every_steps={every}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written about the run while it trains."""

    every_steps: int = 10
    """A line of metrics.jsonl every so many steps, and at every evaluation and checkpoint."""
    telemetry_every_steps: int | None = None
    """The optimizer's telemetry (effective rates, update sizes, gradient norms) every so many steps; None: never."""
    tensorboard: bool = True
    """Write TensorBoard events too."""
    wandb_project: str | None = None
    """Send metrics to this Weights & Biases project too; None: no. WANDB_MODE=offline keeps them below workdir."""

    def __post_init__(self):
        _at_least("logging", self, 1, "every_steps", "telemetry_every_steps")


MAY_DIFFER_ON_RESUME = (
    *("version", "workdir", "mesh", "distributed", "logging", "checkpoint"),
    *("data.tokens_dir", "data.files", "data.vocabulary", "data.vocabulary_sha256", "data.verify"),
    *("model.remat", "num_microbatches"),
)
"""What may change in a run that goes on, see `TrainConfig.identity`: fields and whole sections, by dotted name."""

MESH_AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices are arranged: data x fsdp x tensor of them. One of the three may be -1: the rest."""

    data: int = -1
    """Devices over which the batch is divided and parameters are copied."""
    fsdp: int = 1
    """Devices over which the batch is divided and so are parameters and optimizer state, gathered for their use."""
    tensor: int = 1
    """Devices over which heads, hidden units and the vocabulary are divided."""

    def __post_init__(self):
        for name in MESH_AXES:
            value = getattr(self, name)
            require(value == -1 or value >= 1, f"mesh.{name}={value}: must be -1 or at least 1")
        rest = [f"mesh.{name}" for name in MESH_AXES if getattr(self, name) == -1]
        require(len(rest) < 2, f"{' and '.join(rest)} are -1: only one may take the rest; give the others a number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes that train together, one on each host. Slurm and TPU pods need none of these."""

    coordinator: str | None = None
    """HOST:PORT of process 0, any free port; None: found by itself on Slurm and TPU pods, elsewhere one process."""
    num_processes: int | None = None
    """How many there are; given with coordinator."""
    process_id: int | None = None
    """Which one this is, from 0; given with coordinator."""
    timeout_seconds: int = 300
    """How long to wait for the others at the start."""

    def __post_init__(self):
        given = [name for name in ("coordinator", "num_processes", "process_id") if getattr(self, name) is not None]
        require(len(given) in (0, 3), f"distributed: only {', '.join(given)} is given; give all three, or none")
        _at_least("distributed", self, 1, "num_processes", "timeout_seconds")
        _at_least("distributed", self, 0, "process_id")
        require(
            not given or (self.process_id or 0) < (self.num_processes or 0),
            f"distributed.process_id={self.process_id}: must be below num_processes={self.num_processes}",
        )
        address = re.fullmatch(r"[^:\s]+:([0-9]{1,5})", self.coordinator or "")
        require(
            not given or (address is not None and 1 <= int(address[1]) < 2**16),
            f"distributed.coordinator={self.coordinator!r}: must be HOST:PORT, PORT in [1, 65535]",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    workdir: str
    """Folder of the run: config, metrics, checkpoints, result. Running again in it resumes."""
    init_from: str | None = None
    """Hugging Face folder (config.json, safetensors) with the initial parameters, whose vocabulary, where it holds one,
    must be the tokens'; None: drawn from seed."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = WarmupCosineConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    mesh: MeshConfig = MeshConfig()
    distributed: DistributedConfig = DistributedConfig()
    num_train_steps: int = 10_000
    """Updates in the whole run."""
    global_batch_size: int = 256
    """Windows in a batch, over all devices."""
    num_microbatches: int = 1
    """Parts of a batch computed one after another; gradients are those of the whole batch."""
    length: int = 512
    """Tokens in a window; each predicts the next, so length - 1 are targets."""
    z_loss: float = 1e-4
    """Coefficient of mean((log Z)^2) in the loss; not part of the reported cross-entropy."""
    max_grad_norm: float | None = 1.0
    """Bound of the gradients' global norm; None: no clipping."""
    seed: int = 0
    """Seed of the initial parameters, and of the draws of Sophia's estimators."""

    def __post_init__(self):
        _check_types(self, "")
        _at_least("", self, 1, "num_train_steps", "global_batch_size", "num_microbatches")
        _at_least("", self, 2, "length")
        _at_least("", self, 0, "seed")
        require(self.seed < 2**32, f"seed={self.seed}: must be less than 2^32")
        require(self.num_train_steps < 2**31, f"num_train_steps={self.num_train_steps}: must be less than 2^31")
        check_path("workdir", self.workdir)
        check_path("init_from", self.init_from)
        require(0 <= self.z_loss <= FLOAT32_MAX, f"z_loss={self.z_loss}: must be finite and in [0, inf)")
        norm = self.max_grad_norm
        require(norm is None or 0 < norm <= FLOAT32_MAX, f"max_grad_norm={norm}: must be finite and in (0, inf)")
        require(
            self.global_batch_size % self.num_microbatches == 0,
            f"num_microbatches={self.num_microbatches}: must divide global_batch_size={self.global_batch_size}",
        )
        self.check_batch_divides(max(self.mesh.data, 1), max(self.mesh.fsdp, 1))
        for name, size in (("global_batch_size", self.global_batch_size), ("eval.batch_size", self.eval.batch_size)):
            tokens = size * self.length
            require(tokens < 2**31, f"{name} * length={tokens}: must be less than 2^31 tokens; make either smaller")
        require(
            self.data.vocab_size <= self.model.vocab_size,
            f"model.vocab_size={self.model.vocab_size}: must be at least data.vocab_size={self.data.vocab_size}",
        )
        lead, where = self.optimizer.calibration_steps, _calibration_field(self.optimizer, "optimizer")
        require(
            lead < self.num_train_steps,
            f"{where}={lead}: must be less than num_train_steps={self.num_train_steps}",
        )
        self.schedule.check_fits(self.num_train_steps - lead)

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch."""
        return self.global_batch_size * self.length

    @property
    def num_train_tokens(self) -> int:
        """Tokens in all batches of the run."""
        return self.num_train_steps * self.tokens_per_step

    def identity(self) -> dict[str, Any]:
        """What decides the run's numbers, as a dump with nested sections: two runs with equal ones are the same run.

        Left out is what moves none, but for rounding: where files and devices are, what is logged and kept, and how the
        step is cut into parts. The tokens themselves are compared by the digest of their manifest, wherever their text
        and vocabulary are.
        """
        return without(to_dict(self), *MAY_DIFFER_ON_RESUME)

    def check_batch_divides(self, data: int, fsdp: int) -> None:
        """Raises `InputError` unless training microbatches and evaluation batches divide over a mesh's devices."""
        for name, size in (
            ("global_batch_size / num_microbatches", self.global_batch_size // self.num_microbatches),
            ("eval.batch_size", self.eval.batch_size),
        ):
            require(
                size % (data * fsdp) == 0,
                f"{name}={size}: must be a multiple of the mesh's data * fsdp = {data * fsdp}; or change the mesh",
            )


def _calibration_field(config: OptimizerConfig, path: str) -> str:
    """The dotted name of the field that `config.calibration_steps` comes from: its own, or of a config inside it."""
    inside = {name: value for name, value in vars(config).items() if isinstance(value, OptimizerConfig)}
    for name, value in inside.items():
        if value.calibration_steps:
            return _calibration_field(value, join_path(path, name))
    return join_path(path, "calibration_steps")


def _check_types(config: Any, path: str) -> None:
    if isinstance(config, OptimizerConfig | ScheduleConfig):
        check_class(type(config))
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        value, where = getattr(config, name), join_path(path, name)
        if not has_type(value, hint):
            raise InputError(f"{where}={value!r}: must be {type_name(hint)}")
        if isinstance(value, int) and abs(value) > 2**32:
            raise InputError(f"{where}={value}: must be at most 2^32")
        if dataclasses.is_dataclass(value):
            _check_types(value, where)


def choose(spec: str, *offered: _T) -> _T:
    """The optimizer or the schedule that a config file's argument asks for.

    Args:
      spec: a registered name, or `FILE.py:CLASS` or `MODULE:CLASS` of one's own; of an optimizer `MODULE:FUNCTION` too.
      *offered: configs; the one of the class that `spec` names is taken, or if none is, the class with its defaults.

    Raises:
      InputError: there is no such class, or its fields have no defaults.
    """
    optimizer = isinstance(offered[0], OptimizerConfig)
    base, registry = (OptimizerConfig, OPTIMIZERS) if optimizer else (ScheduleConfig, SCHEDULES)
    section = "optimizer" if optimizer else "schedule"
    try:
        cls: Any = class_named(base, registry, spec)
    except InputError as error:
        raise InputError(f"config argument {section}={error}") from None
    found = next((config for config in offered if type(config) is cls), None)
    lacking = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    require(
        found is not None or not lacking,
        f"config argument {section}={spec}: has no default for {', '.join(lacking)}; leave it out and give "
        f"--config.{section}={spec} " + " ".join(f"--config.{section}.{name}=…" for name in lacking),
    )
    return cls() if found is None else found


def chosen(arg: str, *keys: str) -> str:
    """`_VALUE` for each of the keys that an argument gives, for the name of a run; of FILE.py:CLASS the class."""
    items = [item.partition("=") for item in arg.split(",")]
    return "".join(f"_{value.rpartition(':')[2]}" for key, _, value in items if key in keys)


def parse_arg(arg: str, **defaults: Any) -> types.SimpleNamespace:
    """The values of `key=value,key=value`, each of its default's type, for a config file's `get_config(arg)`.

    Raises:
      InputError: a key that is not among `defaults`, or a value that its default's type does not take.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        key, equals, text = item.partition("=")
        require(
            key in defaults and bool(equals), f"config argument '{item}': must be KEY=VALUE, KEY of {list(defaults)}"
        )
        kind = type(defaults[key])
        try:
            values[key] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise InputError(f"config argument '{item}': must be of type {kind.__name__}") from None
    return types.SimpleNamespace(**values)
