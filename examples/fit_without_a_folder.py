"""Trains without a folder: what `fit` needs, and an observer of five lines that collects losses.

python examples/fit_without_a_folder.py    # after make train, which prepares the tokens
"""

import dataclasses

from jaxopt_lm.config_io import load
from jaxopt_lm.training import Due, Observer, Setup, fit


class Losses(Observer):
    def __init__(self):
        self.losses = []

    def metrics(self, step, values):
        self.losses.append((step, float(values["train/loss"])))


def losses(config):
    """(Status, losses) of a run of the config, in memory alone."""
    ready, observer = Setup.of(config), Losses()
    state = ready.program.init(ready.hparams)
    due = Due(config.num_train_steps, log_every_steps=10)
    fitted = fit(ready.program, state, ready.hparams, ready.batches(0), due=due, observer=observer)
    return fitted.status, observer.losses


if __name__ == "__main__":
    quickstart = load("configs/quickstart.py:num_train_steps=100")
    for rate in (3e-3, 1e-2):  # the second run finds the first one's program, and compiles nothing
        optimizer = dataclasses.replace(quickstart.optimizer, learning_rate=rate)
        print(rate, *losses(dataclasses.replace(quickstart, optimizer=optimizer)))
