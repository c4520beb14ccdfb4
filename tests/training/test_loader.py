"""Batches by worker processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from training.data.plan import RankBatches, SamplingPlan
from training.data.rows import Row
from training.data.samples import CropRule, SampleDataset, load_photo, load_triple, make_loader
from training.data.table import ListTable, open_table
from training.errors import DatasetError


@pytest.fixture
def few_open_files() -> Iterator[int]:
    """A soft limit that a step's pictures pass, as 1024 is passed by 16 micro-batches of 64."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    yield 100
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere tensors are handed over otherwise")
def test_a_step_may_have_more_pictures_than_files_are_usually_open(photos: Path, few_open_files: int) -> None:
    rows = [Row(path.stem, path) for path in sorted(photos.glob("*.png"))]
    dataset = SampleDataset(ListTable(rows), partial(load_photo, CropRule(0, center=True, flip=False)))
    plan = SamplingPlan([(8, 8)] * len(rows), 2 * few_open_files, seed=0)
    batches = RankBatches(plan, start=0, stop=1, rank=0, world=1, micro_batch=20)
    step = list(make_loader(dataset, batches, workers=1))
    assert sum(len(batch) for batch in step) == 2 * few_open_files


def test_photos_in_place_of_triples_are_sent_to_the_command_that_makes_them(photos: Path) -> None:
    table = open_table([str(photos)], cache_dir=None, image_root=None, limit=None)
    rule = CropRule(0, center=True, flip=False)
    plan = SamplingPlan([(8, 8)] * len(table), 2, seed=0)
    batches = RankBatches(plan, start=0, stop=1, rank=0, world=1, micro_batch=2)
    with pytest.raises(
        DatasetError, match="photo_.* has no gain map; `python -m training triples` makes them"
    ):
        list(
            make_loader(SampleDataset(table, partial(load_triple, rule, lambda _: None)), batches, workers=0)
        )
