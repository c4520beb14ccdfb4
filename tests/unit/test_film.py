"""Frames of a film share their tones as far as they look alike."""

import torch
from torch.testing import assert_close

from gm_core.tone.curves import KNOTS, ToneCurves
from gm_core.tone.film import FARTHEST, steadied
from gm_core.tone.reading import ToneReading

GREY, WHITE = 0.3, 0.9


def reading(stops: float, look: float = GREY, white: float = 1.0) -> ToneReading:
    """Of a frame as bright as `look`, whose every tone and clipped area gains `stops`."""
    curve = torch.full((1, KNOTS), stops)
    place = torch.full((1, 1, 4, 6), stops)
    return ToneReading(
        ToneCurves(curve, torch.zeros(1, KNOTS)),
        place,
        place.expand(-1, 3, -1, -1),
        torch.full((1, 1, 4, 6), white),
        torch.full((1, 3, 2, 3), look),
    )


def gains(readings: list[ToneReading]) -> torch.Tensor:
    """`[3,N]`: stops by curve, of highlights and of tints."""
    rows = [(r.curves.by_channel[0, 0], r.highlights[0, 0, 0, 0], r.tints[0, 2, 1, 1]) for r in readings]
    return torch.tensor(rows).T


def test_frames_that_agree_stay_as_they_are():
    film = steadied([reading(1.5) for _ in range(5)])
    assert_close(gains(film), torch.full((3, 5), 1.5))


def test_flicker_is_gone():
    noise = 0.1 * torch.randn(80, generator=torch.Generator().manual_seed(0))
    film = gains(steadied([reading(1 + float(stops)) for stops in noise]))
    assert (film.diff(dim=1).std(dim=1) < 0.1 * noise.diff().std()).all()
    assert_close(film.mean(dim=1), torch.full((3,), 1 + float(noise.mean())), rtol=0, atol=0.02)


def test_tones_that_change_slowly_are_followed():
    rising = torch.linspace(0, 1, 120)
    film = gains(steadied([reading(float(stops)) for stops in rising]))
    assert_close(film[:, FARTHEST:-FARTHEST], rising[FARTHEST:-FARTHEST].expand(3, -1), rtol=0, atol=1e-3)


def test_a_cut_and_a_flash_stay_sharp():
    film = [reading(0.0) for _ in range(20)] + [reading(2.0, WHITE)] + [reading(0.0) for _ in range(5)]
    film += [reading(1.0, 0.6) for _ in range(20)]
    stops = torch.tensor([0.0] * 20 + [2.0] + [0.0] * 5 + [1.0] * 20)
    assert_close(gains(steadied(film)), stops.expand(3, -1), rtol=0, atol=0.01)


def test_a_frame_without_white_has_no_say_about_clipped_areas():
    film = [reading(1.0) if number % 2 else reading(9.0, white=0.0) for number in range(20)]
    _, highlights, tints = gains(steadied(film))
    assert_close(torch.stack([highlights, tints]), torch.ones(2, 20), rtol=0, atol=0.02)
