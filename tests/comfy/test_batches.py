"""Batches as long as films: one picture in memory beside what comes in and goes out."""

from __future__ import annotations

import pytest
import torch

BATCH = torch.rand(3, 4, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def work_through(host):
    """Runs `work` over BATCH; also returns the shapes it was given."""

    def run(work):
        seen = []

        def watched(picture):
            seen.append(tuple(picture.shape))
            return work(picture)

        made = host.module("nodes.batches").picture_by_picture(watched, BATCH.movedim(-1, 1))
        return made, seen

    return run


def test_pictures_are_worked_on_one_at_a_time(work_through) -> None:
    made, seen = work_through(lambda picture: picture * 2)
    assert seen == [(1, 3, 4, 5)] * 3 and torch.equal(made, BATCH * 2) and made.is_contiguous()


def test_cancel_stops_between_two_pictures(comfy, work_through) -> None:
    def cancel(picture):
        comfy.model_management.interrupt_current_processing()
        return picture

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        work_through(cancel)


def test_a_mask_for_each_picture_of_a_batch_edits_that_picture(host) -> None:
    mask = torch.zeros(3, 4, 5)
    mask[1] = 1.0
    edited = host.call("GMHDREditGainMap", gain_map=BATCH, strength=0.0, mask=mask).args[0]
    assert not edited[1].any()
    torch.testing.assert_close(edited[[0, 2]], BATCH[[0, 2]], rtol=1e-4, atol=1e-6)
