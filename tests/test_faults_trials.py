"""A trial is a function of key and number; what counts as a right answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.trials import (
    FIRST_LOOK,
    count_outcomes,
    run_one,
    run_range,
    run_trials,
    run_until,
    trial_key,
)

KEY = jax.random.key(7)
CLASSES, SIZE = 3, 25


def draw(key, table, shift):
    """Any function of the key that lasts: its results tell trials apart."""
    rows = jax.random.randint(key, (4,), 0, table.shape[0])
    return table[rows] + shift


TABLE = jnp.arange(1000, dtype=jnp.int32) ** 2


def run(numbers, key=KEY, shift=0):
    numbers = jnp.asarray(numbers, jnp.int32)
    return np.asarray(run_trials(draw, key, numbers, TABLE, jnp.int32(shift)))


def test_trials_are_those_of_a_loop():
    loop = [draw(jax.random.fold_in(KEY, i), TABLE, 5) for i in range(6)]
    np.testing.assert_array_equal(run(range(6), shift=5), loop)


@pytest.mark.parametrize("numbers", [[3], [5, 0, 2], [4, 4, 1], range(3, 9), [10**6]])
def test_a_trial_depends_on_its_number_only(numbers):
    found = run(numbers)
    assert found.shape == (len(numbers), 4)
    everything = dict(zip(range(9), run(range(9)), strict=True))
    everything[10**6] = draw(jax.random.fold_in(KEY, 10**6), TABLE, 0)
    for number, result in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(result, everything[number])


def test_numbers_and_keys_give_different_trials():
    first, other = run(range(50)), run(range(50), jax.random.key(8))
    assert len(np.unique(first, axis=0)) == 50
    assert not np.any(np.all(first == other, axis=1))


def measured(number, key, table, shift):
    """Columns of one trial, of other shapes and dtypes."""
    rows = draw(trial_key(key, number), table, shift)
    return {"rows": rows, "odd": rows.sum() % 2 == 1, "number": number}


@pytest.mark.parametrize("batch, capacity", [(1, 9), (4, 3)])
def test_ranges_are_those_of_a_loop(batch, capacity):
    operands = KEY, TABLE, jnp.int32(2)
    sizes = {"batch": batch, "capacity": capacity}
    for start, count in ((0, 9), (0, 1), (7, 2), (3, 6), (2**31 - 5, 3)):
        found = run_range(measured, operands, start, count, **sizes)
        numbers = range(start, start + count)
        rows = np.array([draw(trial_key(KEY, i), TABLE, 2) for i in numbers])
        np.testing.assert_array_equal(found["rows"], rows)
        np.testing.assert_array_equal(found["odd"], rows.sum(1) % 2 == 1)
        np.testing.assert_array_equal(found["number"], list(numbers))
        one = run_one(measured, operands, start, batch=batch)
        np.testing.assert_array_equal(one["rows"], rows[0])
        assert one["number"] == start and one["odd"].shape == ()


# An image is one pixel, its label the pixel's remainder.
IMAGES = jnp.arange(200, dtype=jnp.uint8).reshape(-1, 1, 1, 1)
LABELS = jnp.arange(200, dtype=jnp.int32) % CLASSES


def rightly(key, images):
    return jax.nn.one_hot(images[:, 0, 0, 0] % CLASSES, CLASSES)


def wrongly(key, images):
    return jax.nn.one_hot((images[:, 0, 0, 0] + 1) % CLASSES, CLASSES)


def randomly(key, images):
    return jax.random.normal(key, (images.shape[0], CLASSES))


def right_for(*values):
    """Right for the images whose label is one of some values."""

    def answer(key, images):
        chosen = jnp.isin(images[:, 0, 0, 0] % CLASSES, jnp.array(values))
        return jnp.where(chosen[:, None], rightly(key, images), wrongly(key, images))

    return answer


def outcomes(faulty, seed=0, size=SIZE):
    """Without faults all images are taken for one class above their own."""
    golden = (LABELS + 1) % CLASSES
    key = jax.random.key(seed)
    return count_outcomes(faulty, key, IMAGES, LABELS, golden, size)


def count(faulty, seed=0, size=SIZE):
    return int(outcomes(faulty, seed, size).right)


def test_all_right_and_all_wrong():
    assert count(rightly) == SIZE
    assert count(wrongly) == 0
    assert count(rightly, size=1) == 1


def test_every_image_counts_once():
    for seed in range(5):
        by_class = [count(right_for(value), seed) for value in range(CLASSES)]
        assert sum(by_class) == SIZE
        assert count(right_for(0, 2), seed) == by_class[0] + by_class[2]
        assert 0 < min(by_class), "images of all classes are drawn"


def spoil(value, column):
    """Right answers in which the last image's logit of another class is not finite."""

    def answer(key, images):
        logits = 9 * rightly(key, images)
        other = (images[-1, 0, 0, 0] + column) % CLASSES
        return logits.at[-1, other].set(value)

    return answer


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("column", range(CLASSES))
def test_logits_that_are_not_finite_are_wrong(value, column):
    assert count(spoil(value, column)) == SIZE - 1
    # All others predict another class than without faults: silently, but for one.
    assert tuple(map(int, outcomes(spoil(value, column)))) == (SIZE - 1, SIZE - 1, 1)


def test_the_golden_prediction_is_no_silent_corruption_though_it_is_wrong():
    assert tuple(map(int, outcomes(wrongly))) == (0, 0, 0)
    assert tuple(map(int, outcomes(rightly))) == (SIZE, SIZE, 0)


def drawn(faulty, seed):
    """The images and the key that the function met."""
    met = []

    def watched(key, images):
        met.append((jax.random.key_data(key), images))
        return faulty(key, images)

    count(watched, seed)
    ((key, images),) = met
    assert images.shape == (SIZE, 1, 1, 1)
    return key, images


def test_all_networks_meet_the_same_images_and_faults():
    for a, b in zip(drawn(rightly, 3), drawn(randomly, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_trials_meet_other_images_and_faults():
    for a, b in zip(drawn(rightly, 3), drawn(rightly, 4), strict=True):
        assert not np.array_equal(a, b)


def test_images_are_drawn_evenly():
    """With replacement: 4000 draws of 200 images, five deviations of a Poisson law."""
    pixels = [drawn(rightly, seed)[1].ravel() for seed in range(160)]
    counts = np.bincount(np.concatenate(pixels), minlength=200)
    assert np.all(np.abs(counts - 20) < 5 * np.sqrt(20))
    spread = np.var(counts) / 20
    assert 0.5 < spread < 2


def guess(key):
    return count_outcomes(randomly, key, IMAGES, LABELS, LABELS, SIZE).right


def test_guessing_is_right_as_often_as_chance():
    trials = 400
    counts = np.asarray(run_trials(guess, KEY, jnp.arange(trials)))
    chance, outcomes = 1 / CLASSES, trials * SIZE
    deviation = np.sqrt(chance * (1 - chance) / outcomes)
    assert abs(counts.sum() / outcomes - chance) < 5 * deviation
    # Fresh noise in every trial: as spread as binomial counts are.
    expected = SIZE * chance * (1 - chance)
    assert 0.7 < counts.var() / expected < 1.4


@pytest.mark.parametrize("most", [30, 230, 1000])
def test_a_stopped_campaign_is_the_beginning_of_a_whole_one(most):
    looks = []

    def done(rows):
        looks.append(len(rows))
        return len(looks) == 3

    rows = run_until(guess, KEY, done, most)
    assert looks == [look for look in (FIRST_LOOK, 250, 350) if look <= most]
    assert len(rows) == min(350, most)
    np.testing.assert_array_equal(rows, run_trials(guess, KEY, jnp.arange(len(rows))))
