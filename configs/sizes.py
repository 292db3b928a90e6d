"""Do the best learning rate and the ranking of optimizers survive scale? Four models, of .6 to 2.9 M parameters.

Width 64 and 128, 2 and 4 layers; in each, every optimizer at its best of at least five rates, then on fresh seeds. All
models see the same tokens. The claims are judged on the page.

    python -m jaxopt_lm.sweep --config=configs/sizes.py
    python -m jaxopt_lm.sweep --config=configs/sizes.py:optimizers=adamw+lion --dry_run=True
"""

import dataclasses
from pathlib import Path

from jaxopt_lm.config import parse_arg
from jaxopt_lm.config_io import load_as
from jaxopt_lm.studies import OptimumMoves, SameRanking, Study, over, prod, zipped


def get_config(arg: str = "") -> Study:
    values = parse_arg(arg, optimizers="adamw+lion+signum", name="sizes", steps=300)
    compare = Path(__file__).with_name("compare.py")
    study = load_as(Study, f"{compare}:optimizers={values.optimizers},name={values.name},steps={values.steps}")
    arms = tuple(arm.name for arm in study.arms)
    widths = zipped(over("model.embed_dim", 64, 128), over("model.mlp_dim", 256, 512))
    moves = (
        OptimumMoves(
            name=f"{arm} keeps its rate",
            text=f"The best learning rate of {arm} is alike in all sizes",
            arm=arm,
            at_most=2.0,
        )
        for arm in arms
    )
    ranking = SameRanking(name="ranking", text="The ranking survives scale", arms=arms)
    settings = tuple(prod(widths, over("model.num_layers", 2, 4)))
    return dataclasses.replace(study, settings=settings, claims=(ranking, *moves))
