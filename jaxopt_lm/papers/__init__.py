"""What the studies of a paper share: models, data, grids and arms at every scale. The studies are `configs/papers/`.

Scales:

- paper: the paper's model, data, tokens and grid, without extension; for accelerators;
- small: the same questions on one GPU;
- tiny: on two CPU cores;
- smoke: one shape, few steps and one rate: that every study trains and is judged.

Small, tiny and smoke read the State of the Union addresses. Durations in steps that a paper gives are there the same
share of the run.

`python -m jaxopt_lm.sweep --config=… --dry_run=True --measure=False` prints what a study trains, at paper's scale too.
"""
