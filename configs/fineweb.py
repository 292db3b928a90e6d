"""The Qwen3-style 134m model on FineWeb with AdamW, the data of the layer-adaptive papers.

134.1 M parameters, 10,000 steps of 256 x 512 tokens, 1.3 B tokens: for an accelerator; steps, batch and rate are our
choice. Needs FineWeb's parquet files, from a disk or any address that fsspec opens (hf:// with huggingface_hub
installed), and T5's vocabulary cc_all.32000, whose hash is checked; of the files max_files are read, about .7 B tokens
each. FineWeb has no validation split: .05% of the documents are held out by a hash of their text. `size` is any preset;
another optimizer or schedule has its own defaults: --config=configs/fineweb.py:size=83m,optimizer=lion,schedule=linear

    python -m jaxopt_lm.train --config=configs/fineweb.py:files=/data/10BT,vocabulary=/data/cc_all.32000.model
"""

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
from jaxopt_lm.data.config import CC_ALL_32000_SHA256
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import SCHEDULES, AdamWConfig
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig


def get_config(arg: str = "") -> TrainConfig:
    values = parse_arg(
        arg,
        files="fineweb/sample/10BT",
        max_files=3,
        vocabulary="cc_all.32000/sentencepiece.model",
        size="134m",
        optimizer="adamw",
        schedule="warmup_cosine",
    )
    return TrainConfig(
        workdir=f"runs/fineweb_{values.size}" + chosen(arg, "optimizer", "schedule"),
        model=preset(values.size, vocab_size=32_000),
        data=DataConfig(
            task="fineweb",
            files=values.files,
            max_train_files=values.max_files,
            validation_fraction=0.0005,
            vocabulary=values.vocabulary,
            vocabulary_sha256=CC_ALL_32000_SHA256,
            vocab_size=32_000,
            tokens_dir=f"tokens/fineweb_{values.max_files}_files",
        ),
        optimizer=choose(values.optimizer, AdamWConfig(learning_rate=1e-3, b1=0.9, b2=0.95, weight_decay=0.1)),
        schedule=choose(
            values.schedule,
            WarmupCosineConfig(warmup_fraction=0.1, end_fraction=0.1),
            *(schedule(warmup_fraction=0.1) for schedule in SCHEDULES.values()),
        ),
        eval=EvalConfig(every_steps=1000, batch_size=32, max_batches=100),
        checkpoint=CheckpointConfig(every_steps=1000),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100),
        num_train_steps=10_000,
        global_batch_size=256,
        length=512,
    )
