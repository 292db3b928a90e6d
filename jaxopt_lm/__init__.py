"""A laboratory for language-model optimizers in JAX: compose, train, study, conclude."""

__version__ = "0.1.0"
