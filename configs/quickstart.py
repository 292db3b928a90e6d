"""A small transformer learns English from the State of the Union addresses, on two CPU cores.

1.8 M parameters, 1.2 M tokens; 2 to 3 minutes on 2 cores. Ends 1.9 nats per token below the unigram entropy of the
validation tokens (signum 1.8, lion 1.7, sgdw 1.3: rates tried once, not swept; of the others nothing was tuned). Any
registered optimizer, at its config's default rate unless OPTIMIZER_FIELDS has one, and any schedule:
--config=configs/quickstart.py:optimizer=adalayer_star,schedule=linear

    python -m jaxopt_lm.train --config=configs/quickstart.py
"""

from typing import Any

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig, parse_arg
from jaxopt_lm.errors import require
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES

OPTIMIZER_FIELDS: dict[str, dict[str, Any]] = {
    "adamw": {"learning_rate": 6e-3, "b2": 0.99, "weight_decay": 0.1},
    "frozen": {"calibration_steps": 100},
    "lion": {"learning_rate": 1e-3, "b2": 0.99, "weight_decay": 0.1},
    "sgdw": {"learning_rate": 0.5},
    "signum": {"learning_rate": 1e-3, "weight_decay": 0.1},
}
"""What differs from an optimizer's defaults."""

SCHEDULE_FIELDS: dict[str, dict[str, Any]] = {"warmup_stable_decay": {"decay_fraction": 0.2}}


def get_config(arg: str = "") -> TrainConfig:
    values = parse_arg(arg, optimizer="adamw", schedule="warmup_cosine")
    name, schedule = values.optimizer, values.schedule
    require(name in OPTIMIZERS, f"config argument 'optimizer={name}': must be one of {', '.join(OPTIMIZERS)}")
    require(schedule in SCHEDULES, f"config argument 'schedule={schedule}': must be one of {', '.join(SCHEDULES)}")
    optimizer = OPTIMIZERS[name](**OPTIMIZER_FIELDS.get(name, {}))
    return TrainConfig(
        workdir="runs/" + "_".join(["quickstart", *(item.partition("=")[2] for item in arg.split(",") if item)]),
        model=preset(
            "150m",
            vocab_size=4096,
            num_layers=4,
            embed_dim=128,
            num_heads=2,
            num_kv_heads=2,
            mlp_dim=512,
            scan_layers=False,
            compute_dtype="float32",
        ),
        data=DataConfig(task="sotu", vocab_size=4096, tokens_dir="tokens/sotu_4096"),
        optimizer=optimizer,
        schedule=SCHEDULES[schedule](warmup_fraction=1 / 6, **SCHEDULE_FIELDS.get(schedule, {})),
        eval=EvalConfig(every_steps=300, batch_size=32, max_batches=None),
        checkpoint=CheckpointConfig(every_steps=300),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100),
        num_train_steps=1200 + optimizer.calibration_steps,
        global_batch_size=8,
        length=128,
    )
