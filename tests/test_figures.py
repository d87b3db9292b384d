"""Rules that every figure of the library keeps, alone and among others, with few lanes and with many."""

import figure_contract
import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_cases import DATES, DRAW, PANELS, RNG, SERIES, make_line, make_parts, make_spectrum

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
    figure_contract.leaves_other_axes_alone(lambda ax: DRAW[name](ax, 1))


@pytest.mark.parametrize("name", NAMES)
def test_makes_one_white_figure_that_is_read_without_colours(name):
    figure_contract.makes_one_white_figure(lambda ax: DRAW[name](ax, 3))
    plt.close("all")
    figure_contract.is_told_apart_without_colours(lambda ax: DRAW[name](ax, 3))


@pytest.mark.parametrize("name", NAMES)
def test_a_title_that_is_set_afterwards_stands_over_the_legend(name):
    ax = DRAW[name](None, 12)
    ax.set_title(f"{name} of 12")
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


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_in_a_small_figure(name):
    figure_contract.fits(lambda ax: DRAW[name](ax, 3), (2.4, 2.2))


@pytest.mark.parametrize("name", PANELS)
def test_figures_of_several_panels_keep_the_rules(name):
    draw, count = PANELS[name]
    figure_contract.nothing_collides(draw(None, 3)[0].figure)
    figure, axes = plt.subplots(1, count, layout="constrained")
    assert list(draw(axes, 12)) == list(axes)
    figure_contract.nothing_collides(figure)


def test_panels_that_share_y_keep_each_other_in_the_picture():
    line, (_, axes) = make_line(), plt.subplots(1, 2, sharey=True)
    for ax, gain in zip(axes, (100.0, 1.0), strict=True):
        plotting.loss_surface(line._replace(loss=gain * line.loss), ax=ax)
    assert axes[0].get_ylim()[1] > 100
    assert axes[0].yaxis.label.get_visible()
    assert not axes[1].yaxis.label.get_visible()  # the first says it


@pytest.mark.parametrize(
    "times",
    [DATES, DATES.astype(object), DATES.astype("datetime64[s]") + np.timedelta64(3, "h")],
    ids=["days", "objects", "seconds"],
)
def test_dates_are_a_time_axis(times):
    ax = plotting.predicted_series(times, SERIES, {}, spans={"test": (times[60], times[89])})
    figure_contract.nothing_collides(ax.figure)
    assert 2 <= len(ax.get_xticks()) <= 12
    both = plotting.loss_curves({"a": (times, SERIES + 2), "b": (times, SERIES + 3)})
    figure_contract.nothing_collides(both.figure)


def test_a_legend_of_given_axes_leaves_room_for_the_curves_and_counts_what_it_leaves_out():
    with plotting.style():
        _, ax = plt.subplots(figsize=(3, 2.4))
    plotting.loss_curves({f"learning rate {rate}, seed 1": [1.0, 0.5] for rate in range(30)}, ax=ax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    (counted,) = (text for text in texts if text.startswith("…"))
    assert counted == f"… {30 - (len(texts) - 1)} more …"
    assert texts[0].startswith("learning rate 0")
    assert texts[-1].startswith("learning rate 29")
    ax.figure.canvas.draw()
    assert ax.get_window_extent().height > 0.3 * ax.figure.bbox.height
    own = plotting.loss_curves({f"learning rate {rate}": [1.0, 0.5] for rate in range(30)})
    assert len(own.get_legend().get_texts()) == 30  # its figure grows
    assert own.figure.get_size_inches()[1] > 3.5


def test_bands_are_explained():
    texts = {
        name: " ".join([ax.get_ylabel(), *ax.get_legend_handles_labels()[1]])
        for name in ("weight_norms", "spectral_paths", "spectral_paths, epochs", "memory_curve")
        for ax in [DRAW[name](None, 3)]
    }
    assert all("± 1 SE" in text or "± 2 sd" in text for text in texts.values()), texts
    single = plotting.weight_norms([0.1, 1.0], {"ρ": [1.0, 2.0]})
    assert "SE" not in single.get_ylabel()


@pytest.mark.parametrize("give", ["figure", "axes", "array"])
def test_save_takes_figures_and_axes_and_the_home_folder(give, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    axes = plotting.path_lengths(make_parts())
    given = {"figure": axes[0].figure, "axes": axes[1], "array": axes}[give]
    paths = plotting.save(given, "~/a/new/folder/norms", close=True)
    assert paths[1] == tmp_path / "a" / "new" / "folder" / "norms.png"
    assert all(path.stat().st_size > 0 for path in paths)
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match=r"figure must be a Figure, .*; got 'norms.png'"):
        plotting.save("norms.png", axes[0])  # pyright: ignore


def test_vector_files_stay_small(tmp_path):
    values = RNG.normal(size=(20_000, 2)) @ [1, 1j]
    cloud = make_spectrum()._replace(eigenvalues=values[None])
    paths = plotting.save(plotting.eigenvalue_cloud(cloud), tmp_path / "cloud")
    assert paths[0].stat().st_size < 500_000
