"""Small trees of parameters to try optimizers on, with their labels."""

from jaxopt_lm.labels import Label

LABELS = {
    "embed": Label(("vocab", "embed"), "embedding"),
    "query": Label(("embed", "heads", "head_dim"), "attention"),
    "mlp": Label(("embed", "mlp"), "mlp"),
    "norm": Label(("embed",), "norm"),
    "head": Label(("embed", "vocab"), "head"),
}
"""Of the recorded leaves."""
