import enum
import errno
import math
import resource
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from meristem_core.torch import load_state, save_state  # noqa: E402 after the skip

EVERY_DTYPE = [
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    *("complex128", "complex64"),
]


def same(left, right):
    """Equal in type, structure, dtype, shape and every bit."""
    if isinstance(left, torch.Tensor):
        if not isinstance(right, torch.Tensor):
            return False
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right)]
        return (left.dtype, left.shape) == (right.dtype, right.shape) and torch.equal(*bits)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        kinds = type(left) is type(right) and len(left) == len(right)
        return kinds and all(map(same, left, right))
    return type(left) is type(right) and (left == right or (left != left and right != right))


def round_trip(tmp_path, state):
    save_state(tmp_path / "s.safetensors", state)
    return load_state(tmp_path / "s.safetensors")


@pytest.mark.parametrize("name", EVERY_DTYPE)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
def test_every_dtype_and_shape_is_kept_bit_for_bit(tmp_path, name, shape):
    dtype = getattr(torch, name)
    size = torch.empty(0, dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(5)
    high = 2 if dtype == torch.bool else 256
    raw = torch.randint(high, (math.prod(shape) * size,), generator=generator, dtype=torch.uint8)
    state = {"x": raw.view(dtype).reshape(shape)}
    assert same(round_trip(tmp_path, state), state)


def test_plain_values_keep_type_and_value(tmp_path):
    state = {
        "none": None,
        "flags": [True, False],
        "numbers": (1, -0.0, 0.1, 2**200, math.inf, -math.inf, math.nan, 5e-324),
        "text": "β\n\ud800",
        3: {"three": [], "empty": {}, "tuple": ()},
        "3": "another key than 3",
        "dict": {"tensor": ["not", "a", "tag"], "float": "inf"},
    }
    found = round_trip(tmp_path, state)
    assert same(found, state)
    assert math.copysign(1, found["numbers"][1]) == -1


def test_mappings_become_dicts_and_parameters_tensors(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    found = round_trip(tmp_path, OrderedDict(b=parameter, a=1))
    assert type(found) is dict
    assert list(found) == ["b", "a"]
    assert type(found["b"]) is torch.Tensor
    assert not found["b"].requires_grad


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path):
    weight = torch.arange(1000.0)
    state = {"a": weight, "b": [weight, weight.view(1000)], "part": weight[3:5], "t": weight[:4]}
    found = round_trip(tmp_path, state)
    assert same(found, state)
    assert found["a"] is found["b"][0] is found["b"][1]
    assert found["part"].untyped_storage().data_ptr() != found["a"].untyped_storage().data_ptr()
    assert (tmp_path / "s.safetensors").stat().st_size < 1.5 * 4000


def test_views_with_strides_conjugates_and_expanded_ones(tmp_path):
    z = torch.complex(torch.arange(6.0), torch.ones(6)).reshape(2, 3)
    state = {"T": z.T, "conj": z.conj(), "neg": z.conj().imag, "wide": torch.ones(1).expand(4)}
    found = round_trip(tmp_path, state)
    for key, value in state.items():
        assert torch.equal(found[key], value), key


def test_empty_tensors_of_one_address_are_not_tied(tmp_path):
    state = {"a": torch.empty(0), "b": torch.empty(0)}
    found = round_trip(tmp_path, state)
    assert found["a"] is not found["b"]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam", "RMSprop"])
def test_an_optimizer_continues_exactly(tmp_path, name):
    def made():
        generator = torch.Generator().manual_seed(0)
        model = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        return model, getattr(torch.optim, name)(model.parameters(), lr=0.1, weight_decay=0.1)

    def step(model, optimizer, generator):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=generator)).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        step(model, optimizer, generator)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    found = round_trip(tmp_path, state)
    other, resumed = made()
    other.load_state_dict(found["model"])
    resumed.load_state_dict(found["optimizer"])
    again = torch.Generator()
    again.set_state(found["generator"])
    for _ in range(3):
        step(model, optimizer, generator)
        step(other, resumed, again)
    assert same(dict(model.state_dict()), dict(other.state_dict()))


class Level(enum.Enum):
    LOW = 1


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [{1}]}, r"state\['a'\]\[0\] is of type set; a state holds tensors, numbers"),
        ({"a": {"b": b"x"}}, r"state\['a'\]\['b'\] is of type bytes"),
        ({"a": Level.LOW}, r"state\['a'\] is of type Level"),
        ({"a": torch.Size([1])}, r"state\['a'\] is of type Size"),
        ({(1, 2): 1}, r"key \(1, 2\) of state is of type tuple; keys are strings or integers"),
        ({"a": {True: 1}}, r"key True of state\['a'\] is of type bool"),
        ({"a": torch.eye(2).to_sparse()}, r"state\['a'\] is a tensor of layout torch\.sparse_coo"),
        ({"a": torch.empty(2, device="meta")}, r"state\['a'\] is a tensor of layout .* on meta"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, state, message):
    with pytest.raises(TypeError, match=message):
        save_state(tmp_path / "s", state)
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_at_any_place_is_refused(tmp_path):
    path = tmp_path / "s"
    save_state(path, {"a": torch.arange(4), "b": 1})
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"s is damaged \(.*\); use an older checkpoint"):
            load_state(path)


def test_every_changed_byte_is_noticed_or_harmless(tmp_path):
    path, state = tmp_path / "s", {"a": torch.arange(4), "b": [1.5, "text"]}
    save_state(path, state)
    data = path.read_bytes()
    for place in range(len(data) - 32, len(data)):  # the bytes of the tensor
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"tensor 0 has CRC-32 \d+, not the saved \d+"):
            load_state(path)


def test_files_of_others_are_refused(tmp_path):
    safetensors_torch.save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors was not written by save_state"):
        load_state(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="none"):
        load_state(tmp_path / "none")


def test_a_write_cut_by_a_limit_leaves_the_old_state(tmp_path):
    save_state(tmp_path / "s", {"old": 1})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(OSError, match=r"s was not written \(File too large\)") as error:
            save_state(tmp_path / "s", {"new": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert error.value.errno == errno.EFBIG
    assert load_state(tmp_path / "s") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
