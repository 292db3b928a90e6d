"""Figures hold what they are said to hold: lines, labels, colours, and no diverged run as a number."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

from jaxopt_lm.studies import figures, inner_figures, points
from jaxopt_lm.studies.curves import best_after
from jaxopt_lm.studies.drawing import COLUMN, INK, PAPER, WIDE, styles, top_of
from jaxopt_lm.studies.frames import only
from tests.studies import made_up

SIZES = {"embed_dim=64": 100_000, "embed_dim=128": 800_000}
RUNS = made_up.table()
CHOICES = made_up.choices(RUNS)
LOOKS = styles(made_up.BEST, made_up.BASELINE)
FITS = points.fit_points(RUNS)


def lines(axes, label: str) -> list:
    return [line for line in axes.get_lines() if line.get_label() == label]


def texts(drawing) -> list[str]:
    return [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]


def every_figure(width: float):
    """(name, drawing) of each."""
    large = made_up.table(SIZES)
    chosen = made_up.choices(large)
    judged = only(made_up.verdicts(RUNS), kind=("better", "worse", "not resolved"))
    curves = points.curve_points(RUNS, CHOICES, made_up.history)
    sizes = points.size_points(large, chosen)
    gradients = points.gradient_points(RUNS, CHOICES, made_up.history)
    effective = points.effective_rate_points(RUNS, CHOICES, made_up.history)
    yield "differences", figures.differences(judged, LOOKS, made_up.BASELINE, width=width)
    yield "rates", figures.rates(RUNS, CHOICES, FITS, LOOKS, width=width)
    yield "curves", figures.curves(curves, LOOKS, width=width)
    yield "sizes", figures.sizes(sizes, LOOKS, width=width)
    yield "tuning", figures.tuning(points.tuning_points(RUNS), LOOKS, width=width)
    yield "heat_maps", inner_figures.heat_maps(points.grid_points(large), LOOKS, width=width)
    yield "gradient_norms", inner_figures.gradient_norms(gradients, LOOKS, width=width)
    yield "effective_rates", inner_figures.effective_rates(effective, LOOKS, width=width)


def test_arms_have_the_same_colour_everywhere_whatever_their_order():
    assert styles(reversed(list(made_up.BEST)), made_up.BASELINE) == LOOKS
    for name, drawing in every_figure(WIDE):
        labelled = [line for axes in drawing.figure.axes for line in axes.get_lines() if line.get_label() in LOOKS]
        assert labelled or name in ("heat_maps", "gradient_norms"), name
        assert all(to_hex(line.get_color()) == to_hex(LOOKS[line.get_label()].color) for line in labelled), name


def test_no_two_of_40_arms_look_the_same():
    found = styles([f"arm {i}" for i in range(40)], "arm 0")
    assert len({(look.color, look.marker) for look in found.values()}) == 40
    assert found["arm 0"].color == INK


def test_all_that_is_drawn_is_inside_the_figure_at_either_width():
    for width in (WIDE, COLUMN):
        for name, drawing in every_figure(width):
            drawing.figure.draw_without_rendering()
            box = drawing.figure.get_tightbbox()
            assert drawing.figure.get_figwidth() == width
            least, most = min(box.x0, box.y0), max(box.x1 - width, box.y1 - drawing.figure.get_figheight())
            assert (least >= -0.02, most <= 0.02) == (True, True), (name, width, box)


def test_panels_stand_one_below_another_where_it_is_narrow():
    rows = {width: dict(every_figure(width))["curves"].figure.axes for width in (WIDE, COLUMN)}
    assert rows[WIDE][0].get_position().y0 == rows[WIDE][1].get_position().y0
    assert rows[COLUMN][0].get_position().y0 > rows[COLUMN][1].get_position().y1


def test_rates_join_the_tuning_seed_alone():
    axes = figures.rates(RUNS, CHOICES, FITS, LOOKS).figure.axes[0]
    for arm in LOOKS:
        (line,) = lines(axes, arm)
        runs = only(RUNS, arm=arm, seed=0, status="completed").sort_values("learning_rate")
        np.testing.assert_array_equal(line.get_xdata(), runs.learning_rate)
        np.testing.assert_array_equal(line.get_ydata(), runs.loss)
    assert axes.get_xscale() == "log"


def test_rates_mark_what_was_chosen_and_the_fitted_optimum():
    drawing = figures.rates(RUNS, CHOICES, FITS, LOOKS)
    axes = drawing.figure.axes[0]
    rings = {to_hex(line.get_color()): line.get_xydata().tolist() for line in lines(axes, "_chosen")}
    for choice in CHOICES.itertuples():
        assert rings[to_hex(LOOKS[choice.arm].color)] == [[choice.learning_rate, choice.loss]]
    fitted = [x for line in lines(axes, "_fitted") for x in line.get_xdata()]
    assert sorted(fitted) == sorted(FITS.learning_rate)
    assert len(FITS) == 3  # lion has too few rates that completed
    assert texts(drawing)[-4:] == ["chosen", "fitted optimum", "fresh seeds", "diverged"]


def test_a_parabola_has_its_optimum_where_the_losses_have_theirs():
    fits = FITS.set_index("arm").learning_rate
    for arm in ("adamw", "muon"):  # log10(0.003) is not midway between its neighbours, but the losses are a parabola
        assert fits[arm] == pytest.approx(made_up.BEST[arm], rel=0.15)


def test_diverged_runs_are_crosses_at_the_top_and_no_numbers():
    drawing = figures.rates(RUNS, CHOICES, FITS, LOOKS)
    axes = drawing.figure.axes[0]
    crosses = lines(axes, "_diverged")
    drawn = sorted((to_hex(line.get_color()), x) for line in crosses for x in line.get_xdata())
    diverged = only(RUNS, status="diverged")
    right = {(to_hex(LOOKS[run.arm].color), run.learning_rate) for run in diverged.itertuples()}
    assert drawn == sorted(right)
    assert all(line.get_marker() == "x" and min(line.get_ydata()) > 0.8 for line in crosses)
    assert all(line.get_transform() == axes.get_xaxis_transform() for line in crosses)
    ys = [line.get_ydata()[0] for line in crosses]
    assert len(set(ys)) == len(crosses)  # crosses of two arms at one rate are apart
    assert all(np.isfinite(line.get_ydata()).all() for line in axes.get_lines())
    finished = only(RUNS, status="completed").loss
    low, high = axes.get_ylim()
    assert low < finished.min()
    assert low + (high - low) * min(ys) > top_of(finished)  # no loss is drawn where the crosses are


def test_bands_are_the_range_of_fresh_seeds():
    axes = figures.rates(RUNS, CHOICES, FITS, LOOKS).figure.axes[0]
    bands = [bar for bar in axes.collections if bar.get_label() == "_band"]
    fresh = RUNS[(RUNS.seed > 0) & (RUNS.status == "completed")].groupby(["arm", "learning_rate"]).loss
    right = {
        (rate, low, high) for (_, rate), low, high in zip(fresh.min().index, fresh.min(), fresh.max(), strict=True)
    }
    found = {(*path[0], path[1][1]) for bar in bands for path in (bar.get_segments()[0].tolist(),)}
    assert found == right


def test_numbers_of_others_are_left_out_of_rates_unless_chosen():
    other = made_up.row("", "adamw", 0, 0.003, size=100_000, changed="b2=0.99") | {"loss": 3.0}
    fresh = [made_up.row("", "adamw", seed, 0.003, size=100_000, changed="b2=0.99") for seed in (1, 2)]
    runs = pd.concat([RUNS, pd.DataFrame([other, *fresh])], ignore_index=True)
    plain = figures.rates(runs, CHOICES, FITS, LOOKS).data
    assert not (plain.changed == "b2=0.99").any()
    chosen = CHOICES.assign(changed=["b2=0.99" if arm == "adamw" else "" for arm in CHOICES.arm])
    drawn = figures.rates(runs, chosen, FITS, LOOKS).data
    assert sorted(drawn[(drawn.changed == "b2=0.99") & (drawn.status == "completed")].seed) == [1, 2]


def test_a_loss_far_above_the_others_does_not_flatten_them():
    assert top_of([4.0, 4.1, 4.2, 9.0]) == pytest.approx(4.6)
    assert top_of([4.0, 4.1, 4.2, math.nan]) == 4.2
    assert top_of([4.0, 4.0, 9.0]) == 9.0


def test_differences_are_points_on_intervals_the_best_on_top():
    judged = only(made_up.verdicts(RUNS), kind=("better", "worse", "not resolved"))
    drawing = figures.differences(judged, LOOKS, made_up.BASELINE)
    axes = drawing.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["muon", "lion", "<b>sgd & co"]
    assert axes.yaxis_inverted()
    for y, arm in enumerate(["muon", "lion", "<b>sgd & co"]):
        (point,) = lines(axes, arm)
        assert point.get_xydata().tolist() == [[made_up.SHIFT[arm], y]]
        hollow = to_hex(point.get_markerfacecolor()) == to_hex(PAPER)
        assert hollow == (arm == "lion")
    bars = sorted(bar.get_segments()[0].tolist() for bar in axes.collections)
    right = sorted(
        [[row.low, y], [row.high, y]]
        for y, row in zip((2, 1, 0), judged[::-1].itertuples(), strict=True)
        for y in [["muon", "lion", "<b>sgd & co"].index(row.arm)]
    )
    assert bars == right
    assert "adamw" in axes.get_xlabel()


def test_a_difference_far_beyond_the_others_is_an_arrow_with_its_number():
    judged = pd.DataFrame(
        [("", f"arm {i}", "worse", d, d - 0.01, d + 0.01) for i, d in enumerate((0.02, 0.03, 0.04, 5.0))],
        columns=["setting", "arm", "kind", "difference", "low", "high"],
    )
    looks = styles(["base", *judged.arm], "base")
    axes = figures.differences(judged, looks, "base").figure.axes[0]
    assert axes.get_xlim()[1] < 0.5
    assert [text.get_text() for text in axes.texts] == ["+5"]
    assert not lines(axes, "arm 3")


def test_curves_are_means_over_fresh_seeds_with_their_range():
    found = points.curve_points(RUNS, CHOICES, made_up.history)
    mine = only(found, arm="muon")
    losses = np.array([made_up.history(f"/muon//0.01/{seed}")["eval/loss"].values for seed in (1, 2, 3)])
    np.testing.assert_allclose(mine.loss, losses.mean(0))
    np.testing.assert_allclose(mine.low, losses.min(0))
    np.testing.assert_allclose(mine.high, losses.max(0))
    np.testing.assert_allclose(mine.seconds, mine.step * 30 / made_up.STEPS)
    drawing = figures.curves(found, LOOKS)
    by_step, by_second = drawing.figure.axes
    (line,) = lines(by_step, "muon")
    np.testing.assert_array_equal(line.get_ydata(), mine.loss)
    (line,) = lines(by_second, "muon")
    np.testing.assert_array_equal(line.get_xdata(), mine.seconds)
    assert len(by_step.collections) == len(LOOKS)


def test_a_seed_that_diverged_is_no_part_of_the_mean():
    runs = RUNS.copy()
    runs.loc[(runs.arm == "muon") & (runs.learning_rate == 0.01) & (runs.seed == 2), "status"] = "diverged"
    found = only(points.curve_points(runs, CHOICES, made_up.history), arm="muon")
    assert set(found.seeds[found.diverged_seed == 0]) == {2}
    assert set(found.diverged_seed) == {0, 2}
    drawing = figures.curves(found, LOOKS)
    assert len(lines(drawing.figure.axes[0], "_diverged")) == 1
    assert texts(drawing) == ["muon", "a seed that diverged"]


@pytest.mark.parametrize("which", ["min", "max"])
def test_curves_of_one_evaluation_have_an_axis_around_it(which):
    """Of the one before the first step, or of one after it."""
    found = only(points.curve_points(RUNS, CHOICES, made_up.history), arm="muon", diverged_seed=0)
    found = only(found, step=getattr(found.step, which)())
    drawing = figures.curves(found, LOOKS)
    low, high = drawing.figure.axes[0].get_ylim()
    (loss,) = found.loss.unique()
    assert low < loss < high


def test_without_fresh_seeds_curves_are_the_tuning_seeds():
    found = points.curve_points(only(RUNS, seed=0), CHOICES, made_up.history)
    assert set(found.arm) == set(LOOKS)
    assert set(found.seeds) == {1}


def test_tuning_ends_at_the_best_loss():
    found = points.tuning_points(RUNS)
    for arm in LOOKS:
        mine, runs = only(found, arm=arm), only(RUNS, arm=arm, seed=0)
        assert list(mine.trials) == [1, 2, 3, 4, 5]
        assert mine.loss.iloc[-1] == pytest.approx(runs.loss.min())
        assert mine.loss.iloc[0] == pytest.approx(runs.loss.fillna(runs.loss.max()).mean())
    axes = figures.tuning(found, LOOKS).figure.axes[0]
    assert [len(lines(axes, arm)) for arm in LOOKS] == [1] * 4
    assert not axes.collections  # five trials do not bound the best of two
    assert found.low.isna().all()


def test_a_trial_far_above_the_others_does_not_flatten_the_cost_of_tuning():
    found = points.tuning_points(RUNS)
    far = found.assign(loss=np.where((found.arm == "adamw") & (found.trials == 1), 66.0, found.loss))
    low, high = figures.tuning(far, LOOKS).figure.axes[0].get_ylim()
    assert low < found.loss.min()
    assert high < 10


def test_tuning_has_a_band_as_far_as_the_trials_bound_it():
    trials = [made_up.row("", "muon", 0, 0.001 * 1.1**i, size=100_000) for i in range(24)]
    found = points.tuning_points(pd.DataFrame(trials))
    best = best_after([trial["loss"] for trial in trials], range(1, 25))
    bounded = np.isfinite(best.low) & np.isfinite(best.high)
    assert 1 < bounded.sum() < 24
    for end in ("low", "high"):
        np.testing.assert_array_equal(found[end], np.where(bounded, getattr(best, end), np.nan))
    (band,) = figures.tuning(found, LOOKS).figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 0].max() == bounded.sum()
    assert (corners[:, 1].min(), corners[:, 1].max()) == (best.low[bounded].min(), best.high[bounded].max())
    assert to_hex(band.get_facecolor()[0]) == to_hex(LOOKS["muon"].color)


def test_sizes_need_settings_of_different_sizes():
    assert not len(points.size_points(RUNS, CHOICES))
    runs = made_up.table(SIZES)
    chosen = made_up.choices(runs)
    found = points.size_points(runs, chosen)
    assert sorted(only(found, arm="adamw").num_params) == sorted(SIZES.values())
    rate, loss, sensitivity = figures.sizes(found, LOOKS).figure.axes
    assert (rate.get_xscale(), rate.get_yscale(), loss.get_yscale()) == ("log", "log", "linear")
    (line,) = lines(loss, "adamw")
    assert line.get_xdata().tolist() == sorted(SIZES.values())
    assert (only(found, arm="adamw").sensitivity > 0).all()
    assert len(lines(sensitivity, "adamw")) == 1
    hollow = {to_hex(line.get_color()) for line in lines(rate, "_bound") if len(line.get_xdata())}
    assert hollow == {to_hex(LOOKS["lion"].color)}


def test_heat_maps_have_a_cell_a_run_and_crosses_for_diverged_ones():
    runs = made_up.table(SIZES)
    found = points.grid_points(runs)
    axes = inner_figures.heat_maps(found, LOOKS).figure.axes[0]
    (mesh,) = [found for found in axes.collections if isinstance(found, QuadMesh)]
    cells = (
        only(runs, arm="adamw", seed=0).pivot(index="setting", columns="learning_rate", values="loss").loc[list(SIZES)]
    )
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), cells.to_numpy())
    (crosses,) = lines(axes, "_diverged")
    assert crosses.get_xydata().tolist() == [[4.5, 0.5], [4.5, 1.5]]
    assert [text.get_text() for text in axes.texts] == [f"{x:.2f}" for x in cells.to_numpy().ravel() if x == x]


def test_heat_maps_need_two_numbers():
    assert not len(points.grid_points(RUNS))
    other = [made_up.row("", "muon", 0, rate, size=100_000, changed="b1=0.8") for rate in made_up.RATES]
    found = points.grid_points(pd.concat([RUNS, pd.DataFrame(other)], ignore_index=True))
    assert set(found.arm) == {"muon"}
    assert list(dict.fromkeys(found.row)) == ["own", "b1=0.8"]


def test_gradients_are_norms_over_the_roles_of_a_layer():
    found = points.gradient_points(RUNS, CHOICES, made_up.history)
    mine = only(found, arm="muon", layer=2)
    np.testing.assert_allclose(mine.norm, 3 / (1 + mine.step / 100))  # 0.6 and 0.8 of it are orthogonal
    drawing = inner_figures.gradient_norms(found, LOOKS)
    panels = drawing.figure.axes[:4]
    assert [axes.get_title(loc="left") for axes in panels] == list(LOOKS)
    assert all([line.get_label() for line in axes.get_lines()] == ["0", "1", "2"] for axes in panels)
    assert all(axes.get_yscale() == "log" for axes in panels)


def test_effective_rates_have_a_panel_a_role_and_the_quartiles():
    found = points.effective_rate_points(RUNS, CHOICES, made_up.history)
    drawing = inner_figures.effective_rates(found, LOOKS)
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["embedding", "mlp_down"]
    mine = only(found, arm="adamw", role="mlp_down")
    (line,) = lines(drawing.figure.axes[1], "adamw")
    np.testing.assert_array_equal(line.get_ydata(), mine["median"])
    assert (mine.q25 < mine["median"]).all()
    assert (mine["median"] < mine.q75).all()


def test_what_runs_do_not_have_has_no_points():
    def bare(name):
        return {"eval/loss": made_up.history(name)["eval/loss"]}

    assert not len(points.gradient_points(RUNS, CHOICES, bare))
    assert not len(points.effective_rate_points(RUNS, CHOICES, bare))
    assert not len(points.curve_points(RUNS, CHOICES, lambda name: {}))


def test_the_largest_setting_is_watched():
    runs = made_up.table(SIZES)
    found = points.gradient_points(runs, made_up.choices(runs), made_up.history)
    assert set(found.setting) == {"embed_dim=128"}
