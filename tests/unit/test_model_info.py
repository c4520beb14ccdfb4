import pytest

from gm_core.errors import GainMapError, ModelFileError
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from gm_core.model_info import GainMapModelInfo

BUILTIN = GainMapModelInfo(
    spec=GainMapSpec(qmax=99.0, offset=1 / 64),
    coding=GainCoding("log2", -3.0, 5.0),
    gamut="bt709",
    prediction="v",
    steps=4,
    working_side=256,
    training="panoramas",
)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt", "modelspec.title": "x"}])
def test_a_silent_file_means_the_paper(metadata):
    info = GainMapModelInfo.from_metadata(metadata)
    assert info == GainMapModelInfo()
    assert (info.spec.qmax, info.coding.encoding, info.gamut, info.prediction) == (
        99.0,
        "linear",
        "bt2020",
        "eps",
    )


def test_metadata_round_trip():
    metadata = BUILTIN.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["gmhdr.qmax"] == "99.0" and metadata["gmhdr.gamut"] == "bt709"
    assert GainMapModelInfo.from_metadata(metadata) == BUILTIN


def test_a_picture_of_a_gain_map_says_all_that_the_map_needs_and_nothing_of_the_model():
    metadata = BUILTIN.map_metadata()
    names = ("qmax", "gamma", "offset", "encoding", "log2_min", "log2_max")
    assert sorted(metadata) == sorted(f"gmhdr.{name}" for name in names)
    read = GainMapModelInfo.from_metadata(metadata)
    assert (read.spec, read.coding) == (BUILTIN.spec, BUILTIN.coding)


@pytest.mark.parametrize(("wanted", "own", "steps"), [(7, 4, 7), (0, 4, 4), (0, 0, 30)])
def test_the_steps_are_as_wanted_else_the_models_else_thirty(wanted, own, steps):
    assert GainMapModelInfo(steps=own).steps_for(wanted) == steps


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("qmax", bad) for bad in ("abc", "0", "-1", "inf", "nan", "1e300", "", "1" * 5000)],
        ("gamma", "0"),
        ("offset", "-1"),
        ("encoding", "pq"),
        ("gamut", "adobe"),
        ("prediction", "flow"),
        ("input_order", "gm"),
        ("steps", "-1"),
        ("steps", "2.5"),
        ("steps", "100000"),
        ("working_side", "1e9"),
    ],
)
def test_bad_metadata_is_refused_by_name(name, value):
    with pytest.raises(ModelFileError, match=name):
        GainMapModelInfo.from_metadata({f"gmhdr.{name}": value})


def test_log2_without_its_range_is_refused():
    with pytest.raises(ModelFileError, match="log2 range"):
        GainMapModelInfo.from_metadata({"gmhdr.encoding": "log2"})


def test_coding_may_not_exceed_qmax():
    with pytest.raises(GainMapError, match="above the 1 \\+ qmax"):
        GainMapModelInfo(spec=GainMapSpec(qmax=9.0), coding=GainCoding("log2", 0.0, 5.0))
