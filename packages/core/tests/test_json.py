import dataclasses
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest

from meristem_core import digest, read_json, write_json
from meristem_core._json import canonical, plain


class Colour(enum.Enum):
    RED = "a long sentence"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    measured: float
    where: Path = Path("a/b")
    status: Colour = Colour.RED


def test_results_become_plain_values():
    value = {
        "row": Row(measured=1.5),
        "array": np.arange(3),
        "tuple": (np.float32(0.5), np.int64(2), np.bool_(True), np.str_("s"), None),
        "level": Level.LOW,
    }
    assert plain(value) == {
        "row": {"measured": 1.5, "where": "a/b", "status": "RED"},
        "array": [0, 1, 2],
        "tuple": [0.5, 2, True, "s", None],
        "level": "LOW",
    }


def test_the_file_is_indented_utf8_with_a_last_newline(tmp_path):
    write_json(tmp_path / "a.json", {"β": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "β": [\n    1\n  ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"β": [1]}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"rows": [0, 1, 2, Row(measured=math.nan)]}, r"rows\[3\]\.measured is nan"),
        ({"a": {"b": math.inf}}, r"a\.b is inf"),
        ({"a": np.array([[0.0], [-np.inf]])}, r"a\[1\]\[0\] is -inf"),
        (np.float32("nan"), "value is nan"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, value, place):
    with pytest.raises(ValueError, match=place + "; JSON holds finite numbers only, so store None"):
        write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [{1, 2}]}, r"a\[0\] is of type set, which has no JSON form; give numbers"),
        ({"a": {3: 1}}, r"key 3 of a is of type int; JSON keys are strings, so convert it"),
        ({"a": 1j}, "a is of type complex"),
        ({"a": b"x"}, "a is of type bytes"),
        ({"a": Row}, "a is of type type"),
        ({"a": np.longdouble(1)}, "a is of type longdouble"),
    ],
)
def test_values_without_a_json_form_are_refused_by_name(value, message):
    with pytest.raises(TypeError, match=message):
        plain(value)


def test_half_a_surrogate_pair_is_refused_by_name():
    with pytest.raises(ValueError, match=r"a\[0\] holds half a surrogate pair at character 1"):
        plain({"a": ["x\ud800"]})
    with pytest.raises(ValueError, match=r"key '\\ud800' of value holds half a surrogate pair"):
        plain({"\ud800": 1})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a\.json:1:1: Expecting value; mend the file or delete it"),
        (b'{"a": 1,\n "b" 2}', r"a\.json:2:6: Expecting ':' delimiter"),
        (b'{"a": "NaN",\n "\xc3\xa9": [NaN]}', r"a\.json:2:8: NaN is not JSON"),
        (b'{"a": "\\"NaN", "b": -Infinity}', r"a\.json:1:21: -Infinity is not JSON"),
        (b'{"\xc3\xa9":\n "\xc3\xa9\xff"}', r"a\.json:2:4: byte is not UTF-8"),
        (b"[" * 200_000, r"a\.json:1:1: JSON too large to read"),
        (b"9" * 5000, r"a\.json:1:1: JSON too large to read"),
        (b"1 2", r"a\.json:1:3: Extra data"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(tmp_path, data, message):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.json not found; give the path"):
        read_json(tmp_path / "no.json")


def test_digest_is_the_sha256_of_the_canonical_text_and_never_moves():
    assert canonical({"b": (1,), "a": "é"}) == '{"a":"\\u00e9","b":[1]}'
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert len({digest(value) for value in (1, 1.0, True, "1", None, [1])}) == 6


def test_json_of_the_standard_library_reads_what_we_write(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1e-300, 0.1, 2**70]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1e-300, 0.1, 2**70]}
