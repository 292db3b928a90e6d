"""A laboratory for language-model optimizers in JAX: compose, train, study, conclude."""
