"""A small transformer on your own text: .txt, .jsonl or .parquet, from about a megabyte on.

1.8 M parameters, 1,200 steps of 8 x 128 tokens; 2 to 3 minutes on 2 cores. Qwen3-style, so that the run can be exported
to transformers. A vocabulary is trained on the text unless one is given; two documents in a hundred are held out.
`size` is any preset; an optimizer other than AdamW has its own defaults.

    python -m jaxopt_lm.train --config=configs/text.py:files=my_texts
    python -m jaxopt_lm.train --config=configs/text.py:files=my.jsonl,vocabulary=my.model,vocab_size=8000
    python -m jaxopt_lm.train --config=configs/text.py:files=my_texts,optimizer=lion,schedule=linear,size=83m
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
from jaxopt_lm.errors import require
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import SCHEDULES, AdamWConfig


def get_config(arg: str = "") -> TrainConfig:
    values = parse_arg(
        arg,
        files="",
        vocabulary="",
        vocab_size=4096,
        name="text",
        size="text",
        optimizer="adamw",
        schedule="warmup_cosine",
    )
    require(bool(values.files), "config argument files is missing: give configs/text.py:files=FOLDER_OR_PATTERN")
    optimizer = choose(values.optimizer, AdamWConfig(learning_rate=6e-3, b2=0.99, weight_decay=0.1))
    return TrainConfig(
        workdir=f"runs/{values.name}" + chosen(arg, "size", "optimizer", "schedule"),
        model=preset(values.size, vocab_size=values.vocab_size),
        data=DataConfig(
            task="text",
            files=values.files,
            validation_fraction=0.02,
            vocabulary=values.vocabulary or None,
            vocab_size=values.vocab_size,
            tokens_dir=f"tokens/{values.name}_{values.vocab_size}",
        ),
        optimizer=optimizer,
        schedule=choose(values.schedule, *(schedule(warmup_fraction=1 / 6) for schedule in SCHEDULES.values())),
        eval=EvalConfig(every_steps=300, batch_size=32, max_batches=20),
        checkpoint=CheckpointConfig(every_steps=300),
        logging=LoggingConfig(every_steps=10, telemetry_every_steps=100),
        num_train_steps=1200 + optimizer.calibration_steps,
        global_batch_size=8,
        length=128,
    )
