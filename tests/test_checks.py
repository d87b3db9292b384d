"""Counts are whole numbers of Python or NumPy, wherever one is asked for."""

import re

import jax
import numpy as np
import optax
import pytest

import rnnreg as rr
from rnnreg._checks import check_choice, check_count, check_share, is_count
from rnnreg.lanes import make_plan


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint8])
def test_numpy_counts_are_taken_where_python_ones_are(kind):
    net = rr.network(
        [rr.layer(rr.cells.elman(kind(4)), repeat=kind(1))], 1, remat=kind(2), truncate=kind(3)
    )
    train = rr.make_train(
        net,
        loss=rr.losses.squared_error(),
        optimizer=optax.sgd(0.1),
        num_epochs=kind(4),
        record_every=kind(2),
        batch_size=kind(2),
        segment_steps=kind(3),
    )
    settings = train.settings
    assert [type(n) for n in (settings.num_epochs, settings.record_every, settings.batch_size)] == [
        int
    ] * 3
    assert make_plan(kind(6), plan="chunks", chunk=kind(2)).num_lanes == 6
    assert callable(rr.selection.blocked_folds(kind(2)))


@pytest.mark.parametrize("value", [0, -1, True, 2.0, np.float64(2), "2", None, np.bool_(True)])
def test_anything_else_is_no_count(value):
    assert not is_count(value)
    with pytest.raises(ValueError, match=r"num_epochs must be a (positive int|whole number); got"):
        rr.make_train(
            rr.network([rr.cells.elman(2)], 1),
            loss=rr.losses.squared_error(),
            optimizer=optax.sgd(0.1),
            num_epochs=value,
        )


def test_the_least_may_be_set():
    assert is_count(0, least=0)
    assert not is_count(1, least=2)


@pytest.mark.parametrize(
    ("value", "ends", "inside"),
    [
        (0, "[]", True),
        (0, "()", False),
        (1.0, "[)", False),
        (1.0, "(]", True),
        (-0.1, "[]", False),
        (float("nan"), "[]", False),
        (np.float32(0.5), "()", True),
        ("0.5", "[]", False),
        (None, "[]", False),
    ],
)
def test_a_share_lies_between_its_ends(value, ends, inside):
    if inside:
        check_share(value, "rate", ends=ends)
        return
    with pytest.raises(
        ValueError, match=re.escape(f"rate must lie in {ends[0]}0, 1{ends[1]}; got")
    ):
        check_share(value, "rate", ends=ends)


def test_a_traced_share_is_not_looked_at():
    def run(rate):
        check_share(rate, "rate")
        return rate

    assert float(jax.jit(run)(2.0)) == 2.0


def test_refusals_say_what_was_expected_and_what_to_do():
    with pytest.raises(
        ValueError, match=r"lags must lie in 0 … 4, a whole number; got 5\. Fewer\."
    ):
        check_count(5, "lags", least=0, most=4, hint="Fewer.")
    with pytest.raises(ValueError, match=r"kind must be None, 'a' or 'b'; got 'c'\. See there\."):
        check_choice("c", "kind", (None, "a", "b"), hint="See there.")
