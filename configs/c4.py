"""arXiv 2407.07972's 150m model on C4 with AdamW, the baseline of its Figure 1.

150m: 216.8 M parameters, 25,000 steps of 256 x 512 tokens, 3.3 B tokens: for an accelerator. Needs C4 as TFDS prepares
it (c4/en:3.0.1; 24 of its 1,024 training shards hold enough) and T5's vocabulary cc_all.32000, whose hash is checked.
Prepares the tokens first, 7 GB; `python -m jaxopt_lm.prepare` does only that, in as many processes as you start.
Another optimizer or schedule has its own defaults: --config=configs/c4.py:size=300m,optimizer=lion,schedule=linear

    python -m jaxopt_lm.train --config=configs/c4.py:data_dir=/data/tfds,vocabulary=/data/cc_all.32000.model
    python -m jaxopt_lm.plan --config=configs/c4.py:size=1.2b,chips=64 --devices=64 --chip=H100
"""

from jaxopt_lm.config import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    LoggingConfig,
    MeshConfig,
    TrainConfig,
    choose,
    chosen,
    parse_arg,
)
from jaxopt_lm.data.config import CC_ALL_32000_SHA256
from jaxopt_lm.errors import require
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import SCHEDULES, AdamWConfig
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig

STEPS = {"150m": 25_000, "300m": 50_000, "600m": 100_000, "1.2b": 200_000}
SHARDS = {"150m": 24, "300m": 48, "600m": 96, "1.2b": 192}
"""Training shards of about 150 M tokens each, so that no run sees a token twice."""

CHIPS = {
    1: (MeshConfig(), "none"),
    8: (MeshConfig(data=1, fsdp=8), "dots"),
    64: (MeshConfig(data=1, fsdp=64), "none"),
    512: (MeshConfig(data=4, fsdp=64, tensor=2), "none"),
}
"""Mesh and `model.remat` by number of chips, so that 1.2b fits; docs/plans has what each comes to. 1: what is found."""


def get_config(arg: str = "") -> TrainConfig:
    values = parse_arg(
        arg,
        data_dir="tensorflow_datasets",
        vocabulary="cc_all.32000/sentencepiece.model",
        size="150m",
        chips=1,
        optimizer="adamw",
        schedule="warmup_cosine",
    )
    size = values.size
    require(size in STEPS, f"config argument 'size={size}': must be one of {', '.join(STEPS)}")
    require(
        values.chips in CHIPS, f"config argument 'chips={values.chips}': must be one of {', '.join(map(str, CHIPS))}"
    )
    mesh, remat = CHIPS[values.chips]
    return TrainConfig(
        workdir=f"runs/c4_{size}" + chosen(arg, "optimizer", "schedule"),
        model=preset(size, remat=remat),
        data=DataConfig(
            task="c4",
            files=values.data_dir,
            max_train_files=SHARDS[size],
            vocabulary=values.vocabulary,
            vocabulary_sha256=CC_ALL_32000_SHA256,
            extra_ids=100,
            vocab_size=32_100,
            tokens_dir=f"tokens/c4_{SHARDS[size]}_shards",
        ),
        optimizer=choose(
            values.optimizer, AdamWConfig(learning_rate=3.16e-3, b1=0.9, b2=0.95, eps=1e-15, weight_decay=0.0)
        ),
        schedule=choose(
            values.schedule,
            WarmupCosineConfig(warmup_fraction=0.1, start_fraction=0.1, end_fraction=0.1),
            *(schedule(warmup_fraction=0.1) for schedule in SCHEDULES.values()),
        ),
        eval=EvalConfig(every_steps=1000, batch_size=256, max_batches=125),
        checkpoint=CheckpointConfig(every_steps=1000),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100),
        mesh=mesh,
        num_train_steps=STEPS[size],
        global_batch_size=256,
        length=512,
    )
