"""The experiment on combinations: its arms, its trials, what it chooses, and Holm's correction."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments._harness import holm, paired
from experiments.combinations import __main__ as combinations
from experiments.combinations import runs
from experiments.combinations.methods import METHODS, NONE, NUMBERS, Arm, Method, arms, trials


def test_pairs_set_different_numbers_and_need_no_two_cells():
    names = [arm.name for arm in arms()]
    assert names[: 1 + len(METHODS)] == [NONE, *METHODS]
    assert "dropout + variational" not in names  # both are dropout before the readout
    assert "layer norm + batch norm" not in names  # each is a cell of its own
    assert len(names) == len(set(names)) == 20
    more = METHODS | {"a": Method(cell="one"), "b": Method(cell="other")}
    pairs = [arm.parts for arm in arms(more) if len(arm.parts) == 2]
    assert ("L2", "a") in pairs
    assert ("a", "b") not in pairs


@pytest.mark.parametrize("arm", arms(), ids=lambda arm: arm.name)
def test_every_arm_tries_the_same_learning_rates_inside_its_ranges(arm):
    rates = 1e-3, 1e-1
    found = trials(arm, 5, rates)
    expected = [trial["learning_rate"] for trial in trials(Arm(), 5, rates)]
    assert [trial["learning_rate"] for trial in found] == expected
    # one in each fifth of the range, in logarithms
    places = np.sort(np.log(np.array(expected) / 1e-3) / np.log(100) * 5)
    assert places.astype(int).tolist() == [0, 1, 2, 3, 4]
    on = {name for method in arm.methods for name in method.sets}
    for trial in found:
        assert set(trial) == {"learning_rate", *NUMBERS}
        assert {name for name in NUMBERS if trial[name]} == on
        for method in (one for one in arm.methods if one.sets):
            assert {trial[name] for name in method.sets} == {trial[method.sets[0]]}
            assert method.low <= trial[method.sets[0]] <= method.high


def test_the_trial_with_the_best_mean_is_chosen(monkeypatch):
    class Task:
        rates, search = (1e-3, 1e-1), None

    every, seen = arms(), {}

    def accuracies(task, split, rows, *, seeds, key):
        seen["rows"] = rows
        values = np.zeros((len(rows), len(seeds)))
        for place in range(len(every)):  # of one the third, of the next one the first, …
            values[3 * place + (2 - place) % 3] = [0.2, 0.6]
            values[3 * place + (3 - place) % 3] = [0.7, 0.0]
        return values

    monkeypatch.setattr(runs, "accuracies", accuracies)
    chosen = runs.search(Task, every, num_trials=3, num_seeds=2)
    for place, one in enumerate(chosen):
        assert one.arm == every[place]
        assert one.accuracy == pytest.approx(0.4)
        assert one.numbers == seen["rows"][3 * place + (2 - place) % 3][1]


def test_holm_equals_its_definition():
    """A p value stands if all that are smaller stand, each against its own level α / (m − i + 1)."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        ps = rng.random(7) ** 3
        corrected = holm(ps)
        for level in (0.01, 0.05, 0.2, 0.5):
            rejected = set()
            for i, place in enumerate(np.argsort(ps)):
                if ps[place] > level / (7 - i):
                    break
                rejected.add(place)
            assert {place for place in range(7) if corrected[place] <= level} == rejected


def test_paired_comparisons_equal_scipy():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 12)) + [[0.5], [0.0]]
    (found,) = paired([(one, other)])
    expected = ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert (found.p_better, found.p_worse) == (found.p, 1.0)
    assert paired([(one, one)])[0].p == 1.0
    assert paired([(one + 1, one), (one, one)])[0].p == 0.0


def test_an_arm_is_compared_with_none_and_a_pair_with_its_parts():
    every = arms()
    tested = {arm.name: np.arange(4.0) + len(arm.parts) * np.ones(4) + place % 3 * np.eye(4)[0]
              for place, arm in enumerate(every)}  # fmt: skip
    compared = combinations.compare(every, tested)
    assert sum(other == NONE for _, other in compared) == len(every) - 1
    assert compared["L2 + dropout", "dropout"].mean == pytest.approx(
        np.mean(tested["L2 + dropout"] - tested["dropout"])
    )
    claims = combinations.claims_of("task", 0.5, tested, compared)
    assert claims[0].measured == pytest.approx(combinations.upper_end(tested[NONE]))
    assert len(claims) == 1 + len(combinations.EXPECTED)
    assert all(claim.measured is None for claim in combinations.claims_of("task", 0.5, None, None))
