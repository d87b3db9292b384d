"""Rules that every figure of the library keeps, alone and among others, with few lanes and with many."""

import figure_contract
import matplotlib.pyplot as plt
import pytest
from figure_cases import DRAW, PANELS

from rnnreg import plotting

pytestmark = pytest.mark.usefixtures("no_figures_left")
NAMES = list(DRAW)


def test_the_table_holds_every_figure():
    helpers = {"COLORS", "lambda_axis", "legend_above", "log_y", "save", "style", "whole_steps"}
    assert {name.split(",")[0] for name in (*DRAW, *PANELS)} == set(plotting.__all__) - helpers


@pytest.mark.parametrize("name", NAMES)
def test_draws_on_the_given_axes_and_leaves_all_else_alone(name):
    figure_contract.draws_on_the_given_axes(lambda ax: DRAW[name](ax, 3))
    plt.close("all")
    figure_contract.leaves_other_axes_alone(lambda ax: DRAW[name](ax, 3))


@pytest.mark.parametrize("name", NAMES)
def test_makes_one_white_figure_that_is_read_without_colours(name):
    figure_contract.makes_one_white_figure(lambda ax: DRAW[name](ax, 3))
    plt.close("all")
    figure_contract.is_told_apart_without_colours(lambda ax: DRAW[name](ax, 3))


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("name", NAMES)
def test_a_title_stands_over_the_legend_whenever_it_is_set(name, count):
    ax = DRAW[name](None, count)
    ax.set_title(f"{name} of {count}")
    figure_contract.nothing_collides(ax.figure)


@pytest.mark.parametrize("name", NAMES)
def test_panels_that_share_y_need_no_layout(name):
    figure, axes = plt.subplots(1, 3, sharey=True)
    for letter, ax in zip("abc", axes, strict=True):
        ax.set_title(f"({letter})", loc="left")
        DRAW[name](ax, 3)
    figure_contract.nothing_collides(figure)


@pytest.mark.parametrize("first", range(0, len(NAMES), 4))
def test_figures_share_a_narrow_page(first):
    with plotting.style():
        figure, axes = plt.subplots(2, 2, figsize=(6.5, 5))
    for name, ax in zip(NAMES[first : first + 4], axes.flat, strict=False):
        DRAW[name](ax, 12)
        ax.set_title(name)
    figure_contract.nothing_collides(figure)


@pytest.mark.parametrize("size", [(2.4, 2.2), (3.3, 2.4), (7.0, 4.0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_at_any_size(name, size):
    figure_contract.fits(lambda ax: DRAW[name](ax, 3), size)


@pytest.mark.parametrize("name", PANELS)
def test_figures_of_several_panels_keep_the_rules(name):
    draw, count = PANELS[name]
    figure_contract.nothing_collides(draw(None, 3)[0].figure)
    figure, axes = plt.subplots(1, count, layout="constrained")
    assert list(draw(axes, 12)) == list(axes)
    figure_contract.nothing_collides(figure)
