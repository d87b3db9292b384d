"""Estimators of scikit-learn: one sweep inside, and everything around it as scikit-learn has it."""

import importlib
import pickle
import re
import sys
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from conftest import tolerance
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from small import make, sine

import rnnreg as rr
from rnnreg.estimators import RNNClassifierCV, RNNRegressorCV
from rnnreg.estimators._base import _warn_of_edge
from rnnreg.estimators._run import Architecture, network_of
from rnnreg.selection import choose, cv_results, refit

pytestmark = pytest.mark.filterwarnings("ignore:lambda_ =")  # grids here are of two values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
Y = X[:, -1] - 0.5 * X[:, 0] + 10
LABELS = np.where(X[:, -1] > 0, "up", "down")
TINY = {
    "cell": "elman",
    "hidden_size": 2,
    "lambdas": [0.0, 0.1],
    "cv": 2,
    "num_epochs": 4,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def regressor():
    return RNNRegressorCV(**TINY).fit(X, Y)


# ---- scikit-learn's own checks ----------------------------------------------------------------------

FAILED = {
    "check_sample_weight_equivalence_on_dense_data": "scaling goes by rows, whatever they weigh; without it both are "
    "equal in float64 (test_weights_are_repeated_rows), and in float32 up to more than the 1e-7 of the check",
}
# asked for to 1e-7, and in float32 a product rounds with the number of its rows
ROUNDED = {"check_methods_sample_order_invariance", "check_methods_subset_invariance"}
LEARNING = {"cell": "elman", "hidden_size": 8, "lambdas": [0.0], "cv": 2}
LEARNING |= {"num_epochs": 100, "learning_rate": 0.05}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [RNNRegressorCV(**LEARNING), RNNClassifierCV(**LEARNING)],
    expected_failed_checks=lambda estimator: FAILED,
)
def test_the_checks_of_scikit_learn(estimator, check):
    if check.func.__name__ in ROUNDED and not jax.config.jax_enable_x64:
        pytest.skip("needs JAX_ENABLE_X64=1; in float32: test_a_row_has_one_prediction")
    check(estimator)


def test_a_row_has_one_prediction(regressor):
    """Whatever rows are with it."""
    order = np.arange(len(X))[::-1]
    np.testing.assert_allclose(
        regressor.predict(X[order]), regressor.predict(X)[order], **tolerance()
    )
    np.testing.assert_allclose(regressor.predict(X[:3]), regressor.predict(X)[:3], **tolerance())


# ---- what a fit is ----------------------------------------------------------------------------------


def test_a_fit_is_one_sweep_the_choice_and_the_refit(regressor):
    train = rr.make_train(
        rr.network([rr.cells.elman(2)], 1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        penalties={"lam": rr.penalties.l2()},
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        num_epochs=4,
    )
    data = rr.data.standardize(rr.Split(rr.Batch(X[..., None], Y[:, None])))
    key = jax.random.key(np.random.RandomState(0).randint(2**31 - 1))
    pairs = [(np.arange(6, 12), np.arange(6)), (np.arange(6), np.arange(6, 12))]
    grid = {"lam": [0.0, 0.1], "learning_rate": 0.01}
    result = rr.sweep(train, grid, data, key=key, folds=pairs, refit=True, progress=False)
    choice = choose(result, axis="lam")
    final = refit(train, result, choice, data, key=key)
    expected = final.predict(X[..., None], inputs="original", outputs="original").values
    np.testing.assert_allclose(regressor.predict(X), expected[:, 0], **tolerance())
    assert regressor.lambda_ == choice.lam
    assert (regressor.lambda_min_, regressor.lambda_1se_) == (choice.lam_min, choice.lam_1se)
    np.testing.assert_allclose(
        regressor.cv_results_["mean_test_score"], -choice.curve.mean, **tolerance()
    )
    assert regressor.cv_results_["params"][regressor.best_index_] == choice.values
    assert regressor.cv_results_["rank_test_score"][regressor.best_index_] == 1
    assert regressor.best_score_ == regressor.cv_results_["mean_test_score"].max()
    assert abs(regressor.predict(X).mean() - 10) < 1  # in the units of the targets


def test_equal_settings_share_what_was_compiled(regressor):
    again = clone(regressor).set_params(learning_rate=0.02, lambdas=[0.0, 0.2]).fit(X, Y)
    assert again.result_.config["compilations"] == 0
    np.testing.assert_array_equal(clone(regressor).fit(X, Y).predict(X), regressor.predict(X))


def test_the_rule_and_auto(regressor):
    model = clone(regressor).set_params(lambdas="auto", rule="1se").fit(X, Y)
    assert model.lambda_ == model.lambda_1se_ >= model.lambda_min_
    measured = model.result_.metrics.lam.values
    assert (measured[0], len(measured)) == (0, 11)
    np.testing.assert_allclose(measured[2:] / measured[1:-1], measured[2] / measured[1], rtol=1e-5)
    assert measured[-1] > 100 * measured[1]


def test_several_seeds_predict_several_targets_by_their_mean(regressor):
    both = np.stack([Y, -Y], axis=1)
    model = clone(regressor).set_params(seeds=[4, 7], standardize=False).fit(X, both)
    outputs = [model.network_.apply(params, X[..., None]).outputs for params in model.params_]
    np.testing.assert_allclose(model.predict(X), np.mean(outputs, axis=0), **tolerance())
    assert np.isfinite(model.score(X, both))
    ensemble = model.result_.metrics["ensemble_val_loss"].sel(fold=["0", "1"]).mean("fold")
    np.testing.assert_allclose(-model.cv_results_["mean_test_score"], ensemble, **tolerance())


# ---- sequences --------------------------------------------------------------------------------------


def test_two_axes_are_the_steps_of_one_feature_or_of_several(regressor):
    three = clone(regressor).fit(X[..., None], Y)
    np.testing.assert_array_equal(three.predict(X[..., None]), regressor.predict(X))
    assert (regressor.n_features_in_, three.n_features_in_) == (4, 1)
    pairs = clone(regressor).set_params(input_size=2).fit(X, Y)
    steps = clone(regressor).fit(X.reshape(12, 2, 2), Y)
    np.testing.assert_array_equal(pairs.predict(X), steps.predict(X.reshape(12, 2, 2)))
    assert three.predict(X[:, :2, None]).shape == (12,)  # fewer steps


@pytest.mark.parametrize(
    "kind", [RNNRegressorCV, pytest.param(RNNClassifierCV, marks=pytest.mark.slow)]
)
def test_padding_of_unequal_lengths_is_not_read(kind):
    lengths = RNG.integers(1, 5, size=12)
    rows = [X[n, :length, None] for n, length in enumerate(lengths)]
    targets = Y if kind is RNNRegressorCV else LABELS
    model = kind(**TINY).fit(rows, targets)
    outputs = (lambda x: model.predict(x)) if kind is RNNRegressorCV else model.predict_proba
    alone = [outputs(row[None])[0] for row in rows[:3]]
    np.testing.assert_allclose(outputs(rows)[:3], alone, **tolerance())
    flat = [row[:, 0] for row in rows]  # of one feature
    np.testing.assert_array_equal(outputs(flat), outputs(rows))
    held = np.empty(12, object)
    held[:] = rows
    np.testing.assert_array_equal(outputs(held), outputs(rows))


def test_a_list_of_rows_is_read_as_sequences_whatever_their_lengths():
    flat = [X[n, : 1 + n % 4] for n in range(12)]
    model = RNNRegressorCV(**TINY).fit(flat, Y)
    found = model.predict(flat)
    np.testing.assert_allclose(model.predict(flat[2:3]), found[2:3], **tolerance())
    np.testing.assert_allclose(model.predict(flat[2::4]), found[2::4], **tolerance())
    np.testing.assert_allclose(model.predict(tuple(flat[3:4])), found[3:4], **tolerance())
    held = np.empty(12, object)
    held[:] = flat
    np.testing.assert_allclose(model.predict(held[2::4]), found[2::4], **tolerance())
    with pytest.raises(ValueError, match="at least one step"):
        model.predict([[]])


def test_a_list_whose_rows_are_of_one_length_may_be_part_of_a_ragged_one(regressor):
    model = clone(regressor).fit(list(X), Y)
    np.testing.assert_array_equal(model.predict(X), regressor.predict(X))
    np.testing.assert_array_equal(model.predict(list(X)), regressor.predict(X))
    folds = [X[n, : 4 if n < 6 else 2] for n in range(12)]  # one length in each fold
    options = {"cv": 2, "error_score": "raise"}
    assert np.isfinite(cross_val_score(clone(regressor), folds, Y, **options)).all()


def test_a_table_has_the_columns_of_training_as_a_list_too(regressor):
    np.testing.assert_array_equal(regressor.predict(X.tolist()), regressor.predict(X))
    with pytest.raises(ValueError, match="expecting 4 features"):
        regressor.predict(X[:, :3].tolist())


@pytest.mark.slow
def test_lists_are_searched_too():
    rows, labels = [X[n, : 2 + n % 3, None] for n in range(12)], np.arange(12) % 2
    assert np.isfinite(cross_val_score(RNNClassifierCV(**TINY), rows, labels, cv=2)).all()


WRONG = {
    "four axes": (X[..., None, None], {}, "dim"),
    "a part of a step": (X, {"input_size": 3}, "input_size=3"),
    "an empty sequence": ([X[0, :n, None] for n in range(12)], {}, "at least one step"),
    "features that differ": ([X[:, :n] for n in range(1, 13)], {}, "same features"),
    "a rule": (X, {"rule": "best"}, "rule"),
    "a cell": (X, {"cell": "rnn"}, "cell"),
    "a penalty": (X, {"penalty": "l3"}, "penalty"),
    "an optimiser": (X, {"optimizer": "adamw"}, "optimizer"),
    "an optimiser that was made": (X, {"optimizer": optax.adam(0.1)}, "optimizer"),
    "no values of λ": (X, {"lambdas": []}, "lam"),
    "a word for λ": (X, {"lambdas": "many"}, "lam"),
    "a negative λ": (X, {"lambdas": [-1.0]}, "lam"),
    "a readout": (X, {"readout": "all"}, "readout"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case, monkeypatch):
    monkeypatch.setattr(sys.modules["rnnreg.sweeps._compute"], "Program", None)  # nothing compiles
    given, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        RNNRegressorCV(**TINY | options).fit(given, Y)


def test_other_features_than_in_training_are_refused(regressor):
    three = clone(regressor).fit(X[..., None], Y)
    with pytest.raises(ValueError, match="expecting 1 features"):
        three.predict(np.ones((2, 4, 3)))


@pytest.mark.parametrize("kind", [RNNRegressorCV, RNNClassifierCV])
def test_weights_and_groups_go_by_name(kind):
    with pytest.raises(TypeError, match="positional"):
        kind(**TINY).fit(X, Y, np.ones(12))


EDGES = {  # λ, the mean score by λ -> what is said
    "largest": ([0.0, 1e-3, 1e-2], [3.0, 2.0, 1.0], "0.01 is the largest .* try larger ones"),
    "smallest": ([1e-3, 1e-2], [1.0, 2.0], "0.001 is the smallest .* or 0"),
    "zero": ([0.0, 1e-2], [1.0, 2.0], None),
    "inside": ([0.0, 1e-3, 1e-2], [2.0, 1.0, 2.0], None),
    "only one": ([1e-2], [1.0], None),
}


@pytest.mark.parametrize("case", EDGES)
def test_a_chosen_λ_on_an_edge_of_the_grid_is_said(case, recwarn):
    lam, mean, message = EDGES[case]
    curve = SimpleNamespace(lam=np.array(lam))
    _warn_of_edge(SimpleNamespace(lam=lam[int(np.argmin(mean))], curve=curve))
    said = [str(one.message) for one in recwarn]
    assert len(said) == (message is not None)
    assert message is None or re.search(message, said[0])


def test_fit_says_that_its_λ_lies_on_an_edge(regressor):
    noise = np.random.default_rng(1).normal(
        size=12
    )  # nothing to learn: equal scores, the largest λ
    model = clone(regressor).set_params(lambdas=[1e3, 1e4])
    with pytest.warns(RuntimeWarning, match=r"lambda_ = 1e\+0[34] is the (larg|small)est") as said:
        model.fit(X, noise)
    assert said[0].filename == __file__


# ---- around it --------------------------------------------------------------------------------------


def test_pipelines_searches_and_scores(regressor):
    piped = make_pipeline(StandardScaler(), clone(regressor))
    search = GridSearchCV(piped, {"rnnregressorcv__learning_rate": [0.01, 0.05]}, cv=2).fit(X, Y)
    assert search.best_estimator_[-1].learning_rate in (0.01, 0.05)
    assert search.predict(X).shape == (12,)


def test_groups_stay_together(regressor):
    groups = np.array([0, 1] * 6)
    model = clone(regressor).set_params(cv=LeaveOneGroupOut()).fit(X, Y, groups=groups)
    pairs = [(np.flatnonzero(groups != one), np.flatnonzero(groups == one)) for one in (0, 1)]
    apart = clone(regressor).set_params(cv=pairs).fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), apart.predict(X))
    assert model.best_score_ == apart.best_score_ != regressor.best_score_


@pytest.mark.parametrize(
    "kind", [RNNRegressorCV, pytest.param(RNNClassifierCV, marks=pytest.mark.slow)]
)
def test_rows_of_weight_zero_count_for_nothing(kind):
    targets = Y if kind is RNNRegressorCV else LABELS
    pairs = [(np.arange(2, 7), np.arange(7, 11)), (np.arange(7, 11), np.arange(2, 7))]
    model = kind(**TINY | {"cv": pairs})
    weights = np.r_[0.0, 0.0, np.ones(10)]
    first = np.r_[[[100.0] * 4] * 2, X[2:]]
    one, two = (clone(model).fit(x, targets, sample_weight=weights) for x in (X, first))
    np.testing.assert_allclose(one.result_.metrics.val_loss, two.result_.metrics.val_loss)
    assert (one.predict(X) == two.predict(X)).all()


@pytest.mark.float64_only
@pytest.mark.numerics
def test_weights_are_repeated_rows():
    weights = np.array([2, 1, 3, 1, 1, 2, 1, 1, 2, 1, 1, 1])
    rows = np.repeat(np.arange(12), weights)
    halves = [np.flatnonzero(rows < 6), np.flatnonzero(rows >= 6)]
    options = TINY | {"standardize": False}
    one = RNNRegressorCV(**options).fit(X, Y, sample_weight=weights)
    two = RNNRegressorCV(**options | {"cv": [halves[::-1], halves]}).fit(X[rows], Y[rows])
    np.testing.assert_allclose(one.predict(X), two.predict(X), rtol=1e-9)
    scores = [model.cv_results_["mean_test_score"] for model in (one, two)]
    np.testing.assert_allclose(*scores, rtol=1e-9)


def test_classes_are_found_and_their_probabilities_add_up():
    model = RNNClassifierCV(**TINY | {"num_epochs": 60, "learning_rate": 0.1}).fit(X, LABELS)
    assert model.score(X, LABELS) > 0.9
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.classes_.tolist() == ["down", "up"]
    assert (model.classes_[model.predict_proba(X).argmax(1)] == model.predict(X)).all()


def test_own_cells_penalties_and_optimisers(regressor):
    own = {"cell": [rr.cells.irnn(2), rr.cells.elman(3)], "penalty": rr.penalties.l1("W_xh")}
    model = clone(regressor).set_params(**own, optimizer=optax.rmsprop, readout="flatten").fit(X, Y)
    assert model.params_[0]["layer_1"]["W_hh"].shape == (3, 3)
    assert model.params_[0]["readout"]["W_hy"].shape == (4 * 3, 1)
    assert model.result_.config["penalties"][0]["lam"]["name"] == "l1"
    assert clone(model).fit(X, Y).result_.config["compilations"] == 0


def test_a_model_with_a_penalty_of_weights_can_be_pickled(regressor):
    for made in (rr.penalties.l2("W_hh"), rr.penalties.l1(), rr.penalties.elastic_net(0.3)):
        again = pickle.loads(pickle.dumps(made))
        params = {"layer_0": {"W_hh": np.ones((2, 2), np.float32)}}
        assert again(params) == made(params)
        assert (
            again.prox(params, 0.1)["layer_0"]["W_hh"] == made.prox(params, 0.1)["layer_0"]["W_hh"]
        ).all()
    model = (
        clone(regressor).set_params(penalty=rr.penalties.l2("W_hh"), cell=rr.cells.irnn).fit(X, Y)
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):  # as the class says
        pickle.dumps(clone(model).set_params(penalty=rr.penalties.nuclear()))


def test_a_cell_may_be_a_function_of_the_hidden_size():
    made = Architecture(rr.cells.irnn, 3, 1, "last", None)
    assert network_of(made) is network_of(made)
    assert network_of(made).layers[0].cell.hidden_size == 3


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    module = importlib.import_module("rnnreg.estimators._sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"rnnreg\[sklearn\]"):
        importlib.reload(module)


# ---- the record -------------------------------------------------------------------------------------


def test_the_record_has_the_scores_of_scikit_learn():
    train = make(metrics={"r2": rr.metrics.r2()})
    grid = {"pair": rr.zipped(l2=[0.0, 0.1, 0.1], learning_rate=[0.01, 0.01, 1e30])}
    with pytest.warns(RuntimeWarning, match="diverged"):
        result = rr.sweep(
            train,
            grid,
            sine(24),
            key=jax.random.key(0),
            folds=rr.selection.blocked_folds(3),
            progress=False,
        )
    table = cv_results(result)
    folds = result.metrics.val_loss.isel(seed=0).values
    sizes = result.metrics.fold_size.values
    np.testing.assert_allclose(table["split1_test_score"], -folds[:, 1])
    means = -np.average(folds[:2], axis=1, weights=sizes)
    np.testing.assert_allclose(table["mean_test_score"], [*means, np.nan])
    spread = np.average((-folds[:2] - means[:, None]) ** 2, axis=1, weights=sizes)
    np.testing.assert_allclose(table["std_test_score"], [*np.sqrt(spread), np.nan])
    np.testing.assert_allclose(table["se_test_score"], table["std_test_score"] / np.sqrt(2))
    assert sorted(table["rank_test_score"]) == [1, 2, 3]
    assert table["rank_test_score"][2] == 3
    assert table["param_learning_rate"].tolist() == [0.01, 0.01, 1e30]
    best = choose(result, axis="l2").values
    assert table["params"].index(best) == table["rank_test_score"].argmin()
    frame = pd.DataFrame(table)
    assert len(frame) == 3
    assert frame.mean_test_score.notna().sum() == 2
    scores = cv_results(result, metric="val_r2")["mean_test_score"]
    own = result.metrics.val_r2.isel(seed=0).values[:2]
    np.testing.assert_allclose(scores[:2], np.average(own, axis=1, weights=sizes))
