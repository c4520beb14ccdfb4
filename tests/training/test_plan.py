"""Which sample is seen when."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.plan import RankBatches, SamplingPlan
from training.random_streams import integers, normal, uniform

SQUARE = (64, 64)


@given(rows=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 9))
def test_an_epoch_shows_no_row_twice_unless_there_are_too_few(rows: int, batch: int, seed: int) -> None:
    plan = SamplingPlan([SQUARE] * rows, batch, seed)
    counts = Counter(draw.index for step in range(plan.steps_per_epoch) for draw in plan.batch(step))
    assert sum(counts.values()) == plan.steps_per_epoch * batch
    if rows >= batch:
        assert max(counts.values()) == 1


@given(st.lists(st.sampled_from([(64, 64), (64, 96), (96, 64)]), min_size=1, max_size=40), st.integers(1, 6))
def test_a_batch_has_one_size(sizes: list[tuple[int, int]], batch: int) -> None:
    plan = SamplingPlan(sizes, batch, seed=0)
    for step in range(2 * plan.steps_per_epoch):
        draws = plan.batch(step)
        assert {sizes[draw.index] for draw in draws} == {draws[0].size}


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    fresh, used = (SamplingPlan([SQUARE] * 23, 4, seed=3) for _ in range(2))
    for step in range(17):
        used.batch(step)
    assert fresh.batch(17) == used.batch(17)


def test_another_global_batch_goes_on_with_the_rows_not_seen_yet() -> None:
    large, small = (SamplingPlan([SQUARE] * 40, batch, seed=0) for batch in (8, 4))
    seen = [draw.index for step in range(3) for draw in large.batch(step)]
    rest = [draw.index for step in range(6, 10) for draw in small.batch(step)]
    assert sorted(seen + rest) == list(range(40))


def test_a_bucket_smaller_than_a_batch_is_repeated_evenly() -> None:
    plan = SamplingPlan([SQUARE] * 3, 8, seed=0)
    assert plan.steps_per_epoch == 1
    assert sorted(Counter(draw.index for draw in plan.batch(0)).values()) == [2, 3, 3]


def test_every_epoch_mixes_rows_and_buckets_anew_and_no_number_comes_again() -> None:
    sizes = [(64, 64)] * 20 + [(64, 96)] * 20
    plan, other = SamplingPlan(sizes, 4, seed=0), SamplingPlan(sizes, 4, seed=1)
    epochs = [
        [draw for step in range(10) for draw in p.batch(10 * e + step)]
        for p, e in ((plan, 0), (plan, 1), (other, 0))
    ]
    assert [draw.number for draw in epochs[0] + epochs[1]] == list(range(80))
    for seen in ([draw.index for draw in epoch] for epoch in epochs):
        assert sorted(seen) == list(range(40))
        assert max(seen[:20]) >= 20 > min(seen[20:])
    # Other rows meet in a batch, it is not only the batches that are shuffled.
    meetings = [{frozenset(d.index for d in epoch[i : i + 4]) for i in range(0, 40, 4)} for epoch in epochs]
    assert meetings[0] != meetings[1] and meetings[0] != meetings[2]


@given(world=st.sampled_from([1, 2, 4]), start=st.integers(0, 5))
def test_processes_share_a_global_batch(world: int, start: int) -> None:
    plan = SamplingPlan([SQUARE] * 50, 8, seed=1)
    micro = 8 // world // 2
    ranks = [
        list(RankBatches(plan, start=start, stop=start + 3, rank=r, world=world, micro_batch=micro))
        for r in range(world)
    ]
    assert {len(batches) for batches in ranks} == {6}
    seen = [draw for batches in ranks for batch in batches[:2] for draw in batch]
    assert sorted(seen, key=lambda draw: draw.number) == plan.batch(start)


def test_a_samples_noise_is_its_own() -> None:
    together = normal(5, "noise", [3, 4, 9], (4, 2, 2))
    assert torch.equal(together[1:2], normal(5, "noise", [4], (4, 2, 2)))
    assert not torch.equal(together[0], normal(5, "other", [3], (4, 2, 2))[0])
    assert not torch.equal(together[0], normal(6, "noise", [3], (4, 2, 2))[0])


def test_draws_have_the_right_distribution() -> None:
    numbers = range(4000)
    assert abs(normal(0, "a", numbers, (1,)).std().item() - 1) < 0.05
    assert abs(uniform(0, "b", numbers).mean().item() - 0.5) < 0.02
    assert set(integers(0, "c", numbers, 3).tolist()) == {0, 1, 2}
