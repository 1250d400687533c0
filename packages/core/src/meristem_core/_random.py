"""Random streams addressed by name: nothing has to be drawn in order, saved or shared.

- `stream(seed, "dropout", layer, step)` gives the same numbers on every machine and in every order
- streams of different keys are independent: the key is hashed into a Philox counter generator
- keys are encoded without ambiguity, so ("a", 1), ("a1",) and ("a", "1") are three streams
"""

from hashlib import blake2b

import numpy as np


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """Return the random generator of this seed and these keys.

    Parameters
    ----------
    seed
        Any whole number.
    keys
        Whole numbers and strings that name the use.

    Raises
    ------
    TypeError
        If the seed or a key is neither a whole number nor, for keys, a string.

    References
    ----------
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).

    Examples
    --------
    >>> float(stream(0, "a", 1).random()) == float(stream(0, "a", 1).random())
    True
    >>> float(stream(0, "a", 1).random()) == float(stream(0, "a", "1").random())
    False
    """
    key = np.frombuffer(_digest(seed, keys, size=16), dtype="<u8").astype(np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def derive_seed(seed: int, *keys: int | str) -> int:
    """Return a seed in [0, 2**63) for a generator that is not NumPy's, such as torch's.

    Examples
    --------
    >>> 0 <= derive_seed(7, "weights") < 2**63
    True
    """
    return int.from_bytes(_digest(seed, keys, size=8), "little") >> 1


def _digest(seed: int, keys: tuple[int | str, ...], *, size: int) -> bytes:
    state = blake2b(digest_size=size, person=b"meristem-stream")
    for place, value in enumerate((seed, *keys)):
        kind, data = _encoded(value, "seed" if place == 0 else f"keys[{place - 1}]")
        state.update(kind + len(data).to_bytes(8, "little") + data)
    return state.digest()


def _encoded(value: object, name: str) -> tuple[bytes, bytes]:
    if isinstance(value, str) and name != "seed":
        return b"s", value.encode("utf-8", "surrogatepass")
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return b"i", str(int(value)).encode()
    raise TypeError(
        f"{name} ({value!r}) must be a whole number{'' if name == 'seed' else ' or a string'}; "
        "convert it, for instance with str()"
    )
