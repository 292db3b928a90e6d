"""Which optimizer, at which learning rate, and is the difference real? Small transformers on the State of the Union.

Each optimizer at five rates and more until the best is inside, then on fresh seeds, beside the first, the baseline.
`optimizers` are registered names, your own as FILE.py:CLASS, or functions that return an optax transformation,
MODULE:FUNCTION; rates are those of RATES, of any other five around its default.

    python -m jaxopt_lm.sweep --config=configs/compare.py
    python -m jaxopt_lm.sweep --config=configs/compare.py:optimizers=adamw+lion+muon+mine.py:Mine
    python -m jaxopt_lm.sweep --config=configs/compare.py:optimizers=adamw+lion,files=my_texts --study.seeds=5
"""

import dataclasses

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig, choose, parse_arg
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import AdamWConfig, LionConfig, SignumConfig
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.studies import Arm, Study

OPTIMIZERS_HERE = (
    AdamWConfig(learning_rate=6e-3, b2=0.99, weight_decay=0.1),
    LionConfig(learning_rate=1e-3, b2=0.99, weight_decay=0.1),
    SignumConfig(learning_rate=1e-3, weight_decay=0.1),
)
"""Those that are not at their defaults."""

RATIOS = (0.1, 0.316, 1.0, 3.16, 10.0)
"""Of the first grid's rates to the default."""


def get_config(arg: str = "") -> Study:
    values = parse_arg(arg, optimizers="adamw+lion+signum+muon", name="compare", files="", steps=300)
    base = TrainConfig(
        workdir=f"runs/{values.name}",
        model=dataclasses.replace(preset("quickstart", vocab_size=4096), num_layers=2, embed_dim=64, mlp_dim=256),
        data=DataConfig(
            task="text" if values.files else "sotu",
            files=values.files or None,
            vocab_size=4096,
            tokens_dir=f"tokens/{values.name if values.files else 'sotu'}_4096",
        ),
        schedule=WarmupCosineConfig(warmup_fraction=0.1),
        eval=EvalConfig(every_steps=100, batch_size=32, max_batches=16),
        checkpoint=CheckpointConfig(every_steps=200, keep_last=1),
        logging=LoggingConfig(every_steps=10, tensorboard=False),
        num_train_steps=values.steps,
        global_batch_size=32,
        length=64,
    )
    return Study(base=base, arms=tuple(_arm(spec) for spec in values.optimizers.split("+")))


def _arm(spec: str) -> Arm:
    optimizer = choose(spec, *OPTIMIZERS_HERE)
    rates = tuple(float(f"{optimizer.learning_rate * ratio:.3g}") for ratio in RATIOS)
    return Arm(name=spec.rpartition(":")[2], optimizer=optimizer, learning_rates=rates)
