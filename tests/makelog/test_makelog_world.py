"""What can be learnt from a made log: Zipf popularity, a Markov chain, tastes, drift."""

import numpy as np
import pytest

from sparkrec.makelog.options import STYLES, LogOptions
from sparkrec.makelog.simulate import DAY_S, time_of_day, window_sessions
from sparkrec.makelog.world import build_world, draw

DAYS = 10


@pytest.fixture(scope="module")
def world():
    return build_world(n_users=2000, n_items=2000, days=DAYS, seed=3)


@pytest.fixture(scope="module")
def days(world):
    """Ten days of sessions, 20,000 events each."""
    return [make_day(world, "sessions", day, 20_000) for day in range(DAYS)]


def make_day(world, style, day, n):
    rng = np.random.default_rng([5, day])
    return window_sessions(
        world, STYLES[style], n_events=n, day=day, part=(0.0, 1.0), popularity_cum=world.popularity_cum(day),
        anonymous=0.0, first_session=0, rng=rng,
    )  # fmt: skip


def transitions(days):
    """Pairs (item, next item) of all sessions."""
    pairs = []
    for events in days:
        same = events.session[1:] == events.session[:-1]
        pairs.append(np.stack([events.item[:-1][same], events.item[1:][same]], axis=1))
    return np.concatenate(pairs)


def test_draw_follows_the_weights_within_each_range():
    cum = np.cumsum([0.0, 1, 0, 3, 5, 5])
    n = 40_000
    drawn = draw(cum, np.zeros(n, int), np.full(n, 3), np.random.default_rng(1))
    assert np.allclose(np.bincount(drawn, minlength=3) / n, [0.25, 0, 0.75], atol=0.01)
    assert set(draw(cum, np.full(n, 3), np.full(n, 5), np.random.default_rng(1))) == {3, 4}


def test_popularity_is_zipf(days):
    counts = np.sort(np.bincount(np.concatenate([e.item for e in days])))[::-1].astype(float)
    rank = np.arange(1, len(counts) + 1)
    some = slice(4, 400)
    slope = np.polyfit(np.log(rank[some]), np.log(counts[some]), 1)[0]
    assert -1.3 < slope < -0.6
    assert counts[: len(counts) // 10].sum() / counts.sum() > 0.35


def test_a_markov_chain_beats_popularity_by_far(days):
    train, test = transitions(days[:8]), transitions(days[8:])
    counts = np.zeros((2000, 2000), np.int32)
    np.add.at(counts, (train[:, 0], train[:, 1]), 1)
    best = np.argsort(-counts, axis=1)[:, :20]
    markov = (best[test[:, 0]] == test[:, 1][:, None]).any(axis=1).mean()
    popular = np.isin(test[:, 1], np.argsort(-counts.sum(axis=0))[:20]).mean()
    assert markov > 0.4
    assert markov > 2 * popular


@pytest.mark.parametrize("style", ["sessions", "invoices", "ratings", "reviews"])
def test_what_a_user_took_tells_what_they_take_next(world, style):
    events = [make_day(world, style, day, 20_000) for day in range(DAYS)]
    taken = np.zeros((world.n_users, world.n_categories))
    for day in events[:7]:
        np.add.at(taken, (day.user, world.category[day.item]), 1)
    users = np.concatenate([day.user for day in events[7:]])
    categories = world.category[np.concatenate([day.item for day in events[7:]])]
    own = np.argsort(-taken, axis=1)[:, :3]
    all_users = np.argsort(-taken.sum(axis=0))[:3]
    known = taken.sum(axis=1)[users] >= 5
    personal = (own[users] == categories[:, None]).any(axis=1)[known].mean()
    assert personal > 0.5
    assert personal > 1.8 * np.isin(categories, all_users)[known].mean()


def test_popularity_drifts_and_new_items_draw_attention(world):
    weight = [np.diff(world.popularity_cum(day)) for day in range(DAYS)]
    old = world.born == 0
    share = [w[old] / w[old].sum() for w in weight]
    moved_in_a_day, moved_in_all = (np.abs(share[0] - share[n]).sum() / 2 for n in (1, DAYS - 1))
    assert 0 < 3 * moved_in_a_day < moved_in_all
    assert 0.1 < moved_in_all < 0.6
    day = 3
    new = world.born == day
    assert (weight[day][new].sum() / world.popularity[new].sum()) > 2 * (
        weight[day][old].sum() / world.popularity[old].sum()
    )


def test_nothing_happens_before_it_exists(world, days):
    for day, events in enumerate(days):
        assert (world.born[events.item] <= day).all()
        assert events.user.max() < world.active_users(day)
    assert world.active_users(DAYS - 1) == world.n_users
    assert world.active_users(0) < 0.7 * world.n_users


def test_categories_are_ranges_and_never_empty(world):
    assert (np.diff(world.bounds) > 0).all()
    for c in range(world.n_categories):
        assert (world.category[world.bounds[c] : world.bounds[c + 1]] == c).all()
        cum = world.popularity_cum(0)
        assert cum[world.bounds[c + 1]] > cum[world.bounds[c]]
    assert (world.successors != np.arange(world.n_items)[:, None]).all()


def test_a_session_is_of_one_user_and_in_order_of_time(days):
    for day, events in enumerate(days):
        same = events.session[1:] == events.session[:-1]
        assert (events.user[1:] == events.user[:-1])[same].all()
        assert (np.diff(events.ts)[same] > 0).all()
        assert events.ts.min() >= day * DAY_S
        lengths = np.bincount(events.session)
        assert lengths.max() <= STYLES["sessions"].max_length
        assert 6 < lengths.mean() < 10


def test_stars_depend_on_item_and_taste(world):
    from sparkrec.makelog.render import _stars

    events = make_day(world, "ratings", 0, 50_000)
    stars = _stars(world, events, 1, 10)
    quality = world.quality[events.item]
    liked = (world.favourites[events.user] == world.category[events.item][:, None]).any(axis=1)
    assert stars[quality > 0.3].mean() > stars[quality < -0.3].mean() + 1
    assert stars[liked].mean() > stars[~liked].mean() + 0.5


def test_time_of_day_covers_the_day():
    assert time_of_day(np.array([0.0, 1.0])).tolist() == [0.0, DAY_S]
    assert 9 * 3600 < time_of_day(np.array([0.5]))[0] < 16 * 3600


def test_defaults_grow_with_the_events():
    small, large = LogOptions("ratings", 10), LogOptions("ratings", 10**9)
    assert (small.n_users, small.n_items) == (20, 30)
    assert (large.n_users, large.n_items) == (25_000_000, 1_000_000)
