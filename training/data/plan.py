"""Which sample is seen when: a pure function of the seed and of the number of samples seen so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from training.random_streams import generator


@dataclass(frozen=True)
class Draw:
    """One use of one row.

    Args:
        index: row of the data set.
        number: position in the whole run; every random draw for this use is keyed by it.
        size: (height, width) to crop to.
    """

    index: int
    number: int
    size: tuple[int, int]


class SamplingPlan:
    """Shuffled epochs cut into global batches whose samples share one size.

    Args:
        sizes: the training size of every row; rows of one size form a bucket.
        global_batch: samples per optimiser step over all processes and micro-batches.
        seed: seed of the shuffles.

    A bucket's remainder waits for the next epoch; a bucket smaller than a batch is repeated within it.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], global_batch: int, seed: int) -> None:
        self.seed = seed
        self.global_batch = global_batch
        self.buckets: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(sizes):
            self.buckets.setdefault(size, []).append(index)
        self.steps_per_epoch = sum(self._batches_in(rows) for rows in self.buckets.values())
        self._epoch: tuple[int, list[tuple[tuple[int, int], list[int]]]] = (-1, [])

    def batch(self, step: int) -> list[Draw]:
        """All draws of optimiser step `step`, in an order that does not depend on the processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size, rows = self._shuffled(epoch)[position]
        first = step * self.global_batch
        return [Draw(index=row, number=first + offset, size=size) for offset, row in enumerate(rows)]

    def _batches_in(self, rows: Sequence[int]) -> int:
        return max(1, len(rows) // self.global_batch)

    def _shuffled(self, epoch: int) -> list[tuple[tuple[int, int], list[int]]]:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._build(epoch))
        return self._epoch[1]

    def _build(self, epoch: int) -> list[tuple[tuple[int, int], list[int]]]:
        batches = []
        random = generator(self.seed, "epoch", epoch)
        for size in sorted(self.buckets):
            rows = self.buckets[size]
            order = [rows[i] for i in torch.randperm(len(rows), generator=random).tolist()]
            while len(order) < self.global_batch:
                order += order[: self.global_batch - len(order)]
            for start in range(0, self._batches_in(rows) * self.global_batch, self.global_batch):
                batches.append((size, order[start : start + self.global_batch]))
        if len(self.buckets) == 1:
            # Shuffled already; left in that order, another global batch goes on with the rows not seen yet.
            return batches
        return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]


class RankBatches:
    """Batch sampler: this process's micro-batches from step `start` to step `stop`."""

    def __init__(
        self, plan: SamplingPlan, *, start: int, stop: int, rank: int, world: int, micro_batch: int
    ) -> None:
        self.plan = plan
        self.steps = range(start, stop)
        self.rank = rank
        self.world = world
        self.micro_batch = micro_batch

    def __len__(self) -> int:
        return len(self.steps) * (self.plan.global_batch // (self.world * self.micro_batch))

    def __iter__(self) -> Iterator[list[Draw]]:
        stride = self.world * self.micro_batch
        for step in self.steps:
            draws = self.plan.batch(step)
            for start in range(self.rank * self.micro_batch, len(draws), stride):
                yield draws[start : start + self.micro_batch]
