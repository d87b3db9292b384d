"""Figures: what is drawn is what was given, where it was asked for, and nothing is left behind."""

import dataclasses
import types
import warnings

import figure_cases
import figure_contract
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from diagnostic_records import flow_of
from figure_cases import (
    DRAW,
    PANELS,
    make_choice,
    make_flow,
    make_parts,
    make_result,
    make_spectrum,
)

from rnnreg import diagnostics, plotting
from rnnreg._tree import leaf_paths
from rnnreg.diagnostics import horizon

pytestmark = pytest.mark.usefixtures("no_figures_left")

LAMS = np.array([1e-2, 0.0, 1e-4, 1e-3, 1e-1])  # in no order, on purpose
RNG = np.random.default_rng(20240229)


TIMES = np.arange(1900, 1930)
SERIES = np.sin(TIMES / 2.0)

# Of each figure of a record: the call, and what makes the record.
OF_RECORDS = {
    "bifurcation": (lambda given: plotting.bifurcation([0.0], [given]), "distinct_points"),
    "cv_curve": (lambda given: plotting.cv_curve(given, make_choice(LAMS)), "rr.sweep"),
    "cv_curve, choice": (
        lambda given: plotting.cv_curve(make_result(LAMS), given),
        "selection.choose",
    ),
    "cv_map": (lambda given: plotting.cv_map(given, make_choice(LAMS)), "rr.sweep"),
    "cv_seeds": (lambda given: plotting.cv_seeds(given, make_choice(LAMS)), "rr.sweep"),
    "eigenvalue_cloud": (plotting.eigenvalue_cloud, "spectra"),
    "fisher_memory": (plotting.fisher_memory, "fisher_memory"),
    "fixed_points": (plotting.fixed_points, "distinct_points"),
    "gate_openings": (plotting.gate_openings, "saturation"),
    "gradient_flow": (plotting.gradient_flow, "gradient_flow"),
    "gradient_heat_map": (plotting.gradient_heat_map, "rr.sweep"),
    "gradient_signal": (plotting.gradient_signal, "gradient_signal"),
    "halving_brackets": (plotting.halving_brackets, "halving"),
    "hessian_spectrum": (plotting.hessian_spectrum, "hessian_directions"),
    "history": (plotting.history, "rr.sweep"),
    "horizons": (lambda given: plotting.horizons([0.1], given), "horizon"),
    "jacobian_products": (plotting.jacobian_products, "jacobian_products"),
    "loss_surface": (plotting.loss_surface, "loss_surface"),
    "lyapunov_spectrum": (plotting.lyapunov_spectrum, "lyapunov"),
    "lyapunov_trace": (plotting.lyapunov_trace, "lyapunov"),
    "memory_curve": (plotting.memory_curve, "memory_curve"),
    "parameter_sensitivity": (plotting.parameter_sensitivity, "parameter_sensitivity"),
    "path_lengths": (plotting.path_lengths, "path_lengths"),
    "saturation": (plotting.saturation, "saturation"),
    "singular_value_histogram": (plotting.singular_value_histogram, "jacobian_products"),
    "spectral_paths": (lambda given: plotting.spectral_paths([0.1], given), "spectra"),
    "sufficient_window": (plotting.sufficient_window, "sufficient_window"),
}


@pytest.mark.parametrize("name", OF_RECORDS)
def test_another_record_is_named_with_the_function_that_makes_the_right_one(name):
    draw, maker = OF_RECORDS[name]
    wrong = types.SimpleNamespace()
    with pytest.raises(
        ValueError, match=rf"must be a.* \(.*{maker}.*; got namespace|{maker} returns"
    ):
        draw(wrong)
    assert plt.get_fignums() == []


def test_a_dict_of_records_in_the_place_of_one_is_told_to_take_an_entry():
    with pytest.raises(ValueError, match=r"got a dict.*Take one of its entries \['layer_0'\]"):
        plotting.saturation({"layer_0": figure_cases.make_saturation()})


def test_every_figure_refuses_what_it_cannot_draw():
    drawn_from_arrays = {"loss_curves", "predicted_series", "regret", "weight_norms"}
    names = {name.split(",")[0] for name in (*DRAW, *PANELS)}
    assert {name.split(",")[0] for name in OF_RECORDS} == names - drawn_from_arrays


def test_no_record_of_a_diagnostic_has_a_field_that_may_be_left_out():
    records = [getattr(diagnostics, name) for name in diagnostics.__all__]
    records = [record for record in records if hasattr(record, "_fields")]
    assert {
        record.__name__: record._field_defaults for record in records if record._field_defaults
    } == {}


def test_curves_keep_the_order_of_the_palette():
    ax = plotting.loss_curves({str(place): [1.0, 0.5] for place in range(7)})
    assert [line.get_color() for line in ax.lines] == [*plotting.COLORS, plotting.COLORS.blue]


def test_what_is_black_is_white_on_dark_axes():
    for look, ink in (("default", "black"), ("dark_background", "white")):
        with plt.style.context(look):
            _, (left, right) = plt.subplots(1, 2)
            plotting.predicted_series(TIMES, SERIES, {}, ax=left)
            plotting.gradient_flow([make_flow(1 - lam) for lam in LAMS], lams=LAMS, ax=right)
        assert left.lines[0].get_color() == ink
        assert {line.get_color() for line in right.lines if line.get_linestyle() == "--"} == {ink}


def test_a_failure_leaves_no_figure():
    with pytest.raises(ValueError, match="finite number ≥ 0"):
        plotting.weight_norms([-1.0, 1.0], {"ρ": [1.0, 2.0]})
    assert plt.get_fignums() == []


def test_save_writes_both_files_and_closes(tmp_path):
    figure = plotting.loss_curves({"a": [1.0, 0.5]}).figure
    paths = plotting.save(figure, tmp_path / "new" / "curve.png", close=True)
    assert [path.name for path in paths] == ["curve.pdf", "curve.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in paths[0].read_bytes()
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    width = int.from_bytes(paths[1].read_bytes()[16:20], "big")
    assert width == round(200 * 4.8)
    assert plt.get_fignums() == []


def test_save_keeps_a_dot_in_the_name(tmp_path):
    figure = plotting.loss_curves({"a": [1.0, 0.5]}).figure
    assert plotting.save(figure, tmp_path / "l2_0.5")[1].name == "l2_0.5.png"


def test_zero_stands_apart_on_the_left_with_its_label():
    _, ax = plt.subplots()
    x = plotting.lambda_axis(ax, LAMS)
    np.testing.assert_array_equal(x[LAMS > 0], LAMS[LAMS > 0])
    zero = x[LAMS == 0].item()
    assert ax.get_xlim()[0] < zero < LAMS[LAMS > 0].min()
    ax.figure.canvas.draw()
    labels = {
        tick: label.get_text()
        for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    }
    assert labels[zero] == "0"
    assert all(zero == tick or tick >= 1e-4 * (1 - 1e-9) for tick in labels)


def test_without_zero_nothing_is_broken():
    _, ax = plt.subplots()
    children = len(ax.get_children())
    np.testing.assert_array_equal(plotting.lambda_axis(ax, [1e-3, 1e-1]), [1e-3, 1e-1])
    assert len(ax.get_children()) == children
    assert "0" not in [label.get_text() for label in ax.get_xticklabels()]


def test_a_second_call_replaces_the_break():
    _, ax = plt.subplots()
    plotting.lambda_axis(ax, LAMS)
    children = len(ax.get_children())
    plotting.lambda_axis(ax, LAMS)
    assert len(ax.get_children()) == children


@pytest.mark.parametrize("lams", [[0.0], [0.1], [0.0, 0.1], [0.0, 0.1, 0.2, 0.3], [0.5, 0.6]])
def test_short_axes_still_have_ticks(lams):
    _, ax = plt.subplots()
    x = plotting.lambda_axis(ax, lams)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert ((x >= low) & (x <= high)).all()
    assert any(label.get_text() for label in ax.get_xticklabels())


@pytest.mark.parametrize("lams", [[], [-1.0, 1.0], [np.nan]])
def test_what_is_no_lambda_is_refused(lams):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="Give λ, not log λ"):
        plotting.lambda_axis(ax, lams)


def drawn(line):
    """The points of a line without the break at λ = 0."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    return x[~np.isnan(x)], y[~np.isnan(x)]


def test_cv_curve_draws_the_curve_it_was_given():
    choice = make_choice(LAMS)
    ax = plotting.cv_curve(make_result(LAMS), choice, scale=2.0, ylabel="ARV")
    mean, _, (bars,) = ax.containers[0].lines
    order = np.argsort(LAMS)
    x, y = drawn(mean)
    np.testing.assert_allclose(x[1:], LAMS[order][1:])
    np.testing.assert_allclose(y, 2 * choice.curve.mean[order])
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments() if len(segment)]
    np.testing.assert_allclose([h for h in heights if h > 0], 4 * choice.curve.se[order])
    folds = [line for line in ax.lines if line.get_color() == "0.72"]
    np.testing.assert_allclose(
        np.stack([drawn(line)[1] for line in folds], axis=1), 2 * choice.curve.folds[order]
    )
    assert ax.get_ylabel() == "ARV"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["CV mean ± 1 SE", "4 folds, 3 seeds"]


def test_cv_curve_marks_every_rule_once_also_at_zero():
    choice = dataclasses.replace(make_choice(LAMS), lam_min=0.0, lam_paired_1se=0.0, lam_1se=1e-2)
    ax = plotting.cv_curve(make_result(LAMS), choice)
    lines = {
        line.get_label(): line.get_xdata()[0] for line in ax.lines if "lambda" in line.get_label()
    }
    assert len(lines) == 2
    (both, place), (_, other) = lines.items()
    assert "min" in both
    assert "paired" in both
    assert both.endswith("=\u00a00")
    assert 0 < place < 1e-4
    assert other == 1e-2


def test_cv_curve_names_its_metric_in_words_and_its_lambdas_in_one_format():
    choice = make_choice([0.0, 6.3e-3, 2.51e-2, 1.0])
    choice = dataclasses.replace(choice, metric="val_accuracy", lam_min=6.3e-3, lam_1se=2.51e-2)
    ax = plotting.cv_curve(make_result(LAMS), dataclasses.replace(choice, lam_paired_1se=2.51e-2))
    assert ax.get_ylabel() == "validation accuracy"
    labels = [line.get_label() for line in ax.lines if "lambda" in line.get_label()]
    assert len(labels) == 2
    assert all("times10" in label for label in labels)


def test_cv_curve_of_a_validation_set_has_no_bars():
    ax = plotting.cv_curve(make_result(LAMS), make_choice(LAMS, num_folds=1))
    assert ax.get_legend().get_texts()[0].get_text() == "validation set (3 seeds)"
    assert not ax.containers[0].has_yerr


def test_cv_seeds_draws_each_seed_and_their_quartiles():
    lams = figure_cases.lams_of(5)
    result, choice = figure_cases.make_scores(lams), figure_cases.make_place(lams)
    ax = plotting.cv_seeds(result, choice, scale=2.0)
    scores = result.metrics.val_loss.sel(learning_rate=0.01)
    means = 2 * (scores.sel(fold="0") + 2 * scores.sel(fold="1")) / 3
    seeds = [line for line in ax.lines if line.get_color() == "0.72"]
    found = np.stack([drawn(line)[1] for line in seeds], axis=1)
    np.testing.assert_allclose(found, means.transpose("l2", "seed").values)
    (median,) = (line for line in ax.lines if line.get_label() == "median of 8 seeds")
    np.testing.assert_allclose(drawn(median)[1], np.median(found, axis=1))
    with pytest.raises(ValueError, match="needs several; sweep with seeds=10"):
        plotting.cv_seeds(figure_cases.make_scores(lams, num_seeds=1), choice)


def test_cv_map_shows_every_mean_and_leaves_what_diverged_grey():
    lams = figure_cases.lams_of(5)
    result = figure_cases.make_scores(lams[::-1])  # in no rising order
    ax = plotting.cv_map(result, figure_cases.make_place(lams))
    (mesh,) = ax.collections
    scores = result.metrics.val_loss.where(result.metrics.diverged_at < 0).mean(
        "seed", skipna=False
    )
    means = ((scores.sel(fold="0") + 2 * scores.sel(fold="1")) / 3).sortby("l2")
    values = means.transpose("learning_rate", "l2").values
    assert np.isnan(values[-1, 0]) or np.isnan(values).sum() == 1
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan), values)
    assert [text.get_text() for text in ax.get_yticklabels()][-1] == "$10^{-1}$"
    with pytest.raises(ValueError, match=r"one of \['learning_rate'\]; got 'rate'"):
        plotting.cv_map(result, figure_cases.make_place(lams), other="rate")


def test_weight_norms_draws_means_and_says_what_it_left_out():
    values = RNG.random((5, 3))
    values[0, 1] = np.nan
    ax = plotting.weight_norms(LAMS, {"ρ": values})
    (line,) = (line for line in ax.lines if line.get_label().startswith("ρ"))
    _, y = drawn(line)
    np.testing.assert_allclose(y, np.nanmean(values, axis=1)[np.argsort(LAMS)])
    assert ax.get_legend().get_texts()[0].get_text() == "ρ (1 of 15 diverged, left out)"
    assert any(np.allclose(line.get_ydata(), 1) for line in ax.lines)
    with pytest.raises(ValueError, match=r"shape \[5\] or \[5, S\]"):
        plotting.weight_norms(LAMS, {"ρ": np.ones((3, 5))})


def test_gradient_flow_of_one_flow_and_of_its_layers():
    flow = make_flow(0.5)
    ax = plotting.gradient_flow(flow)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), flow.ratio["layer_0"])
    assert ax.get_yscale() == "log"
    ax = plotting.gradient_flow(make_flow(0.5, layers=("layer_0", "layer_1")))
    assert [line.get_label() for line in ax.lines] == ["layer_0", "layer_1"]
    two_ways = flow_of({"layer_0": {"forward": np.ones((1, 3)), "backward": np.ones((1, 3))}})
    assert len(plotting.gradient_flow(two_ways).lines) == 2
    assert len(plotting.gradient_flow(two_ways, layer="layer_0/forward").lines) == 1


def test_gradient_flow_colours_by_lambda_with_zero_in_black():
    flows = [make_flow(0.9 - lam) for lam in LAMS]
    ax = plotting.gradient_flow(flows, lams=LAMS, chosen=1e-2, legend=False)
    lines = {line.get_label().removeprefix("_"): line for line in ax.lines}
    assert lines["λ = 0"].get_color() == "black"
    np.testing.assert_allclose(lines["λ = 0"].get_ydata(), flows[1].ratio["layer_0"])
    assert len({str(line.get_color()) for line in ax.lines}) == len(LAMS)
    assert len(ax.figure.axes) == 1
    assert len(ax.child_axes) == 2  # the colour bar, and what lifts titles over the legend
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "λ = 0",
        "λ = 0.01 (chosen)",
    ]


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("count", [3, 6, 7])
def test_up_to_six_lambdas_are_named_in_the_legend_and_more_have_a_colour_bar(count):
    lams = np.array([0.0, *10.0 ** np.arange(1 - count, 0)])
    flows = [make_flow(0.9 - lam) for lam in lams]
    parts = [make_parts() for _ in lams]
    draws = {
        "gradient_flow": lambda **o: plotting.gradient_flow(flows, lams=lams, **o),
        "history": lambda **o: plotting.history(make_result(lams), **o),
        "path_lengths": lambda **o: plotting.path_lengths(parts, lams=lams, **o)[1],
    }
    for draw in draws.values():
        assert len(legend_texts(draw())) == (count if count <= 6 else 1)
        assert len(legend_texts(draw(legend=True))) == count
        assert legend_texts(draw(legend=False)) == ["λ = 0"]
        plt.close("all")
    few = plotting.gradient_flow(flows[:2], lams=lams[:2], legend=False)
    assert len(legend_texts(few)) == 2  # one colour is no bar


def test_titles_of_a_row_are_level_whatever_the_legends():
    for layout in ("constrained", None):
        figure, (top, bottom) = plt.subplots(2, 2, layout=layout, figsize=(8, 7))
        DRAW["history"](top[0], 6)
        top[1].plot([1, 2])
        DRAW["history"](bottom[0], 2)
        DRAW["history"](bottom[1], 6)
        for ax in (*top, *bottom):
            ax.set_title("title")
        figure.canvas.draw()
        heights = [[ax.title.get_window_extent().y0 for ax in row] for row in (top, bottom)]
        np.testing.assert_allclose(*np.transpose(heights), atol=1)
        assert heights[0][0] > heights[1][0] + 10
        plt.close(figure)


def test_what_is_given_as_axes_and_is_none_is_named():
    _, axes = plt.subplots(1, 2)
    for name, draw in DRAW.items():
        with pytest.raises(
            ValueError, match=r"ax must be an Axes or None; got an array.*Take one of them"
        ):
            draw(axes, 3)
        assert not any(ax.has_data() for ax in axes), name
    with pytest.raises(ValueError, match=r"ax must be an Axes or None; got <Figure"):
        DRAW["history"](axes[0].figure, 3)
    with pytest.raises(ValueError, match=r"axes must be one matplotlib Axes"):
        plotting.path_lengths([make_parts()], axes=["a", "b"])


def test_arguments_that_no_figure_can_use_are_named():
    points, result = figure_cases.make_points(), make_result(LAMS)
    lyapunov = figure_cases.make_lyapunov([0.1, -0.2], unconverged=False)
    for call, message in (
        (lambda: plotting.loss_curves(None), "curves must be a dict; got None"),
        (lambda: plotting.weight_norms([0.1], lyapunov), "values must be a dict; got a Lyapunov"),
        (lambda: plotting.predicted_series(TIMES, SERIES, [SERIES]), "predictions must be a dict"),
        (lambda: plotting.lambda_axis(None, [0.1]), "ax must be an Axes; got None"),
        (lambda: plotting.lyapunov_trace(lyapunov, row=9), "row must lie in 0 … 0"),
        (lambda: plotting.bifurcation([0.1], [points], component=9), "component must lie in 0 … 2"),
        (lambda: plotting.history(result, chosen=7.0), "chosen must be one of the λ.*got 7.0"),
        (lambda: plotting.save(plt.figure(), ""), "needs the name of a file"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        plt.close("all")


def mapped(record, lams, *, seeds=3):
    """What `SweepResult.map` gives for a function that returns the record, the same for all lanes but for λ."""
    leaves = {path.replace("/", "."): leaf for path, leaf in leaf_paths(record).items()}
    dims = ["l2", "seed", "fold"]
    shape = (len(lams), seeds, 2)
    arrays = {
        name: (
            [*dims, *(f"{name}.{axis}" for axis in range(np.ndim(leaf)))],
            np.broadcast_to(leaf, (*shape, *np.shape(leaf))),
        )
        for name, leaf in leaves.items()
    }
    coords = {"l2": lams, "seed": np.arange(seeds), "fold": ["0", "all"]}
    return xr.Dataset({**arrays, "finished": (dims, np.ones(shape, bool))}, coords)


def test_what_map_returns_is_drawn_with_a_curve_for_each_lambda():
    lams = np.array([0.0, 0.1])
    found = mapped(make_flow(0.5, layers=("layer_0", "layer_1")), lams)
    ax = plotting.gradient_flow(found, layer="layer_1")
    assert legend_texts(ax)[:2] == ["λ = 0", "λ = 0.1"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.5 ** np.arange(8))
    cloud = mapped(make_spectrum(), lams).sel(seed=0, fold="0")
    texts = legend_texts(plotting.eigenvalue_cloud(cloud))
    assert [text.split(",")[0] for text in texts] == ["λ = 0", "λ = 0.1"]
    parts = mapped(make_parts(), lams)
    with pytest.raises(ValueError, match=r"one PathLengths per λ.*found\.sel\(seed=0\)"):
        plotting.path_lengths(parts)
    assert len(plotting.path_lengths(parts.sel(seed=0))[0].lines) == 2
    with pytest.raises(ValueError, match=r"no 'shares'.*rr\.diagnostics\.path_lengths returns"):
        plotting.path_lengths(found.sel(seed=0))


INF = np.inf
ALIVE = -0.5 * np.arange(6.0)


@pytest.mark.parametrize(
    ("logs", "marker", "place", "text"),
    [
        ([ALIVE, [0, -1, -2, -INF, -INF, -INF]], "x", 3, "up to 50 % of gradients exactly 0"),
        ([[0, -1, -INF, -INF, -INF, -INF]] * 2, "x", 1, "up to 100 % of gradients exactly 0"),
        ([[0, *[-INF] * 5]] * 2, "x", 0, "up to 100 % of gradients exactly 0"),
        ([ALIVE, [0, 9, INF, INF, INF, INF]], "+", 2, "up to 50 % of gradients not finite"),
    ],
)
def test_gradient_flow_says_which_gradients_are_left_out(logs, marker, place, text):
    flow = flow_of(logs)
    for given in ({}, {"lams": [0.1]}):
        ax = plotting.gradient_flow(flow, **given)
        (mark,) = (line for line in ax.lines if line.get_marker() == marker)
        assert mark.get_xdata().tolist() == [place]
        np.testing.assert_allclose(mark.get_ydata(), flow.ratio["layer_0"][place])
        printed = [entry.get_text().replace("\n", " ") for entry in ax.get_legend().get_texts()]
        assert any(text in entry for entry in printed)
    whole = plotting.gradient_flow(flow_of([ALIVE] * 2))
    assert not [line for line in whole.lines if line.get_marker() in ("x", "+")]


@pytest.mark.parametrize(
    ("value", "text"), [(-INF, "every gradient is exactly 0"), (INF, "no gradient is finite")]
)
def test_a_dead_flow_says_so(value, text):
    ax = plotting.gradient_flow(flow_of(np.full((2, 6), value)))
    assert [found.get_text() for found in ax.texts] == [text]
    figure_contract.fits(
        lambda ax: plotting.gradient_flow(flow_of(np.full((2, 6), value)), ax=ax), (2.4, 2.2)
    )


def test_the_rate_of_a_flow_is_drawn():
    flow = flow_of([-0.5 * np.arange(9), -0.7 * np.arange(9)])
    ax = plotting.gradient_flow(flow, fit=True)
    (line,) = (line for line in ax.lines if line.get_linestyle() == ":")
    np.testing.assert_allclose(line.get_ydata(), np.exp(-0.6 * np.arange(9)), rtol=1e-5)
    assert line.get_label() == "rate -0.6 ± 0.1 per step"
    bent = flow_of([[0, -2, -2, -3, -4, -5, -6, -7, -8]])
    ax = plotting.gradient_flow([bent] * 2, lams=[0.0, 0.1], fit=(2, 8))
    for line in (line for line in ax.lines if line.get_linestyle() == ":"):
        assert line.get_xdata().tolist() == [2, 3, 4, 5, 6, 7, 8]
        np.testing.assert_allclose(line.get_ydata(), np.exp(-np.arange(2.0, 9)), rtol=1e-5)
        assert line.get_label() == "rate -1 per step"
    with pytest.raises(ValueError, match="two lags between 0 and 8"):
        plotting.gradient_flow(flow, fit=(3, 9))
    with pytest.raises(ValueError, match="fit must be True or False or a pair of whole numbers"):
        plotting.gradient_flow(flow, fit=3)


def test_horizons_leave_out_runs_without_one():
    logs = -np.array([0.5, 0.5, 1.0, 1.0])[:, None, None] * np.arange(8) * np.ones((2, 1, 1, 1))
    logs[0, 0] = -INF  # no gradient at lag 0
    logs[1] = -INF
    ax = plotting.horizons([0.1, 1.0], horizon(logs))
    median = next(line for line in ax.lines if line.get_label().startswith("horizon"))
    assert median.get_label() == "horizon (5 of 8 runs without one left out)"
    np.testing.assert_allclose(median.get_ydata(), [1, np.nan])
    assert ax.get_ylim()[1] > 7
    dead = plotting.horizons([0.1, 1.0], horizon(np.full((2, 3, 1, 4), -INF)))
    assert dead.get_ylim()[1] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dead.figure.canvas.draw()


def test_gradient_flow_ends_at_the_floor_and_says_what_is_missing():
    low, _ = plotting.gradient_flow(make_flow(1e-9)).get_ylim()
    assert low > 1e-9
    assert (
        plotting.gradient_flow(make_flow(0.0)).get_ylim()[0] > 0
    )  # ReLU states can be exactly zero
    several = [make_flow(0.5, layers=("layer_0", "layer_1"))] * 2
    with pytest.raises(ValueError, match="give layer"):
        plotting.gradient_flow(several)
    with pytest.raises(ValueError, match="which has"):
        plotting.gradient_flow(several, layer="layer_7")
    with pytest.raises(ValueError, match="lams needs one entry per GradientFlow; got 1 for 2"):
        plotting.gradient_flow(several, lams=[0.1])
    with pytest.raises(ValueError, match="layer_0', 'layer_1"):
        plotting.gradient_flow(several[0], lams=[0.1])
    with pytest.raises(ValueError, match="give at least one GradientFlow"):
        plotting.gradient_flow([])


def test_predicted_series_draws_what_it_was_given():
    free = (np.arange(1925, 1935), np.zeros(10))
    ax = plotting.predicted_series(
        TIMES,
        SERIES[:, None],
        {"one step": SERIES + 0.1, "free-running": free},
        bands={"one step": (SERIES, SERIES + 0.2)},
        spans={"1910-1920": (1910, 1920), "1921-1940": (1921, 1940)},
    )
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["data"].get_ydata(), SERIES)
    np.testing.assert_array_equal(lines["one step"].get_ydata(), SERIES + 0.1)
    np.testing.assert_array_equal(lines["free-running"].get_xdata(), free[0])
    assert {"1910-1920", "1921-1940"} <= {text.get_text() for text in ax.texts}
    assert ax.get_xlim()[1] >= 1940
    with pytest.raises(ValueError, match="one value per time"):
        plotting.predicted_series(TIMES, SERIES, {"short": SERIES[:-1]})
    with pytest.raises(ValueError, match="not among the predictions"):
        plotting.predicted_series(TIMES, SERIES, {}, bands={"x": (SERIES, SERIES)})


def test_history_averages_seeds_and_folds_but_not_the_refit():
    result = make_result(LAMS)
    values = result.metrics["history_train_loss"]
    lines = {line.get_label(): line for line in plotting.history(result).lines}
    expected = values.sel(l2=0.0, fold=["0", "1"]).mean(["seed", "fold"]).values
    np.testing.assert_allclose(lines["λ = 0"].get_ydata(), expected)
    ax = plotting.history(result, at={"fold": "all"})
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(
        lines["λ = 0"].get_ydata(), values.sel(l2=0.0, fold="all").mean("seed").values
    )
    np.testing.assert_array_equal(lines["λ = 0"].get_xdata(), values.epoch)


def test_history_has_ticks_at_whole_epochs_and_one_format_of_lambda():
    result = make_result([0.0, 2.51e-2, 0.1])
    recorded = result.metrics.rename(history_train_loss="history_val_accuracy")
    metrics = recorded.assign_coords(l2=[0.0, 6.3e-3, 2.51e-2])
    ax = plotting.history(dataclasses.replace(result, metrics=metrics), name="val_accuracy")
    assert ax.get_ylabel() == "validation accuracy"
    for last in (3, 20, 50):
        ax.set_xlim(0, last)
        assert all(tick == round(tick) for tick in ax.get_xticks())
    labels = {line.get_label() for line in ax.lines}
    assert labels == {"λ = 0", r"λ = $6.3\times10^{-3}$", r"λ = $2.5\times10^{-2}$"}


def test_history_says_what_is_missing():
    result = make_result(LAMS)
    with pytest.raises(ValueError, match="nothing was recorded as 'accuracy'"):
        plotting.history(result, name="accuracy")
    with pytest.raises(ValueError, match="needs the dimension 'dropout'"):
        plotting.history(result, axis="dropout")


def test_loss_curves_draws_what_it_was_given():
    ax = plotting.loss_curves({"a": [1.0, 0.5], "b": ([10, 20], [2.0, 1.0])})
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [10, 20])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [2.0, 1.0])


@pytest.mark.parametrize("most", [16, 0])
def test_cv_curve_shows_the_weights_that_are_left_of_a_proximal_penalty(most):
    """Or the rank, where no weight becomes 0, as with the nuclear norm."""
    choice, result = make_choice(LAMS), make_result(LAMS)
    zeros, ranks = np.linspace(0, most, len(LAMS)), np.arange(len(LAMS))
    for name, values in (("zeros_l2", zeros), ("rank.layer_0.W_hh", ranks)):
        counted = np.broadcast_to(values[:, None, None], (len(LAMS), 3, 3))
        result.metrics[name] = (["l2", "seed", "fold"], counted)
    told = {"covers": ["layer_0/W_hh"], "num_weights": 16}
    config = result.config | {"penalties": [{"l2": told}]}
    groups = (types.SimpleNamespace(static={}),)
    ax = plotting.cv_curve(dataclasses.replace(result, config=config, groups=groups), choice)
    (top,) = [child for child in ax.child_axes if child.get_xlabel()]
    assert top.get_xlabel() == ("weights that are not 0" if most else "rank")
    left = (16 - zeros if most else ranks)[np.argsort(LAMS)]
    assert [text.get_text() for text in top.get_xticklabels()] == [f"{count:.0f}" for count in left]
    np.testing.assert_allclose(
        top.get_xticks()[1:], np.sort(LAMS)[1:]
    )  # λ = 0 has a place of its own
