"""Batches: pure in (seed, step), exact epochs, fixed evaluation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_lm.data.batches import EvalBatches, TrainBatches
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.errors import InputError


@pytest.fixture(scope="module")
def store(tokens_dir):
    return TokenStore(tokens_dir, "train")


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), batch_size=st.integers(1, 7), length=st.sampled_from([100, 128, 333, 1000]))
def test_each_epoch_is_an_exact_permutation(store, seed, batch_size, length):
    windows = {store.read(i * length, length).tobytes(): i for i in range(len(store) // length)}
    batches = TrainBatches(store, seed=seed, batch_size=batch_size, length=length)
    steps = -(-3 * len(windows) // batch_size)
    drawn = [windows[row.tobytes()] for step in range(steps) for row in batches[step]]
    for epoch in range(3):
        part = drawn[epoch * len(windows) : (epoch + 1) * len(windows)]
        assert sorted(part) == list(range(len(windows)))


def test_epochs_and_seeds_have_different_orders(store):
    def order(seed, first):
        batches = TrainBatches(store, seed=seed, batch_size=40, length=100)
        return batches[first].tobytes()

    assert len({order(seed, first) for seed in range(3) for first in range(3)}) == 9


def test_a_batch_depends_on_seed_and_step_alone(store):
    def make():
        return TrainBatches(store, seed=5, batch_size=3, length=64)

    forward = [make()[step] for step in range(60)]
    shared = make()
    for step in (59, 0, 31, 31, 7):
        np.testing.assert_array_equal(shared[step], forward[step])
    for first in (0, 17):
        ahead = list(itertools.islice(make().from_step(first), 5))
        np.testing.assert_array_equal(ahead, forward[first : first + 5])
    assert forward[0].dtype == np.int32
    assert forward[0].shape == (3, 64)


@pytest.mark.parametrize("max_batches", [None, 1, 3])
def test_evaluation_reads_every_window_once(tokens_dir, max_batches):
    store = TokenStore(tokens_dir, "validation")
    batches = list(EvalBatches(store, batch_size=4, length=64, max_batches=max_batches))
    windows = min(len(store) // 64, 4 * (max_batches or 100))
    rows = [row for tokens, _ in batches for row in tokens]
    real = [mask.any() for _, is_target in batches for mask in is_target]
    np.testing.assert_array_equal(np.concatenate(rows[:windows]), store.read(0, windows * 64))
    assert sum(real) == windows
    assert all(real[:windows])
    assert all(tokens.shape == is_target.shape == (4, 64) for tokens, is_target in batches)


def test_a_window_longer_than_the_split_is_refused(store, tokens_dir):
    with pytest.raises(InputError, match="length=4001: must be at most the 4000 tokens"):
        TrainBatches(store, seed=0, batch_size=1, length=4001)
    with pytest.raises(InputError, match="length=701: must be at most the 700 tokens of the validation split"):
        EvalBatches(TokenStore(tokens_dir, "validation"), batch_size=1, length=701, max_batches=None)
