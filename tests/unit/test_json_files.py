import pytest

from gm_core.errors import GainMapError, ModelFileError
from gm_core.json_files import read_json


class OtherError(GainMapError):
    pass


def test_an_object_is_read_by_name(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "\u00fc"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", remedy="copy it again") == {"name": "\u00fc"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[1]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (None, "not readable \\(No such file"),
    ],
)
def test_what_is_no_object_is_named_with_its_fault_and_the_remedy(content, fault, tmp_path):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=f"a.json .*{fault}.*; copy it again"):
        read_json(path, remedy="copy it again")


def test_the_error_is_of_the_type_asked_for(tmp_path):
    with pytest.raises(OtherError):
        read_json(tmp_path / "gone.json", remedy="copy it again", error=OtherError)
