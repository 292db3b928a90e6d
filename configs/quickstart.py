"""A small transformer learns English from the State of the Union addresses, on two CPU cores.

1.8 M parameters, 1.2 M tokens; 2 to 3 minutes on 2 cores. Ends 1.9 nats per token below the unigram entropy of the
validation tokens (signum 1.8, lion 1.7, sgdw 1.3: rates tried once, not swept; of the others nothing was tuned). Any
registered optimizer, at its config's default rate unless OPTIMIZERS_HERE has one, any schedule, any preset's size, your
own optimizer: --config=configs/quickstart.py:optimizer=adalayer_star,schedule=linear and
:optimizer=examples/my_optimizer.py:Mine

    python -m jaxopt_lm.train --config=configs/quickstart.py
"""

from typing import Any

from jaxopt_lm.config import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    LoggingConfig,
    TrainConfig,
    choose,
    chosen,
    parse_arg,
)
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import SCHEDULES, AdamWConfig, FrozenConfig, LionConfig, SgdwConfig, SignumConfig

OPTIMIZERS_HERE = (
    AdamWConfig(learning_rate=6e-3, b2=0.99, weight_decay=0.1),
    FrozenConfig(calibration_steps=100),
    LionConfig(learning_rate=1e-3, b2=0.99, weight_decay=0.1),
    SgdwConfig(learning_rate=0.5),
    SignumConfig(learning_rate=1e-3, weight_decay=0.1),
)
"""Those that are not at their defaults."""

SCHEDULE_FIELDS: dict[str, dict[str, Any]] = {"warmup_stable_decay": {"decay_fraction": 0.2}}


def get_config(arg: str = "") -> TrainConfig:
    values = parse_arg(arg, optimizer="adamw", schedule="warmup_cosine", size="quickstart")
    optimizer = choose(values.optimizer, *OPTIMIZERS_HERE)
    schedules = (cls(warmup_fraction=1 / 6, **SCHEDULE_FIELDS.get(name, {})) for name, cls in SCHEDULES.items())
    return TrainConfig(
        workdir="runs/quickstart" + chosen(arg, "optimizer", "schedule", "size"),
        model=preset(values.size, vocab_size=4096),
        data=DataConfig(task="sotu", vocab_size=4096, tokens_dir="tokens/sotu_4096"),
        optimizer=optimizer,
        schedule=choose(values.schedule, *schedules),
        eval=EvalConfig(every_steps=300, batch_size=32, max_batches=None),
        checkpoint=CheckpointConfig(every_steps=300),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100),
        num_train_steps=1200 + optimizer.calibration_steps,
        global_batch_size=8,
        length=128,
    )
