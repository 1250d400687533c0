"""Pairs fit any tokenizer or are dropped and counted."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.testing import seeds
from meristem_crosscoders import Pairs, induction_pairs, ioi_pairs, read_pairs, sva_pairs


def characters(text):
    return [ord(letter) for letter in text]


def words_with_spaces(known):
    """A tokenizer whose words carry the space before them, as byte-level BPE has; others split."""
    ids = {}

    def encode(text):
        out = []
        for i, word in enumerate(text.split(" ")):
            piece = word if i == 0 else " " + word
            parts = [piece] if known(word) else list(piece)
            out += [ids.setdefault(part, len(ids)) for part in parts]
        return out

    encode.ids = ids
    return encode


@given(seed=seeds(), n=st.integers(1, 20), distractor=st.booleans())
def test_subject_verb_pairs(seed, n, distractor):
    encode = words_with_spaces(lambda word: True)
    pairs = sva_pairs(encode, n=n, seed=seed, distractor=distractor)
    words = {i: word for word, i in encode.ids.items()}
    again = sva_pairs(encode, n=n, seed=seed, distractor=distractor)
    assert (len(pairs), pairs.dropped) == (n, 0)
    assert pairs.clean.tolist() == again.clean.tolist()
    plural = {" are", " were", " have", " do", " go", " say", " want", " know", " look", " make"}
    for clean, patch, answer in zip(pairs.clean, pairs.patch, pairs.clean_answer, strict=True):
        assert (words[int(clean[1])].endswith("s")) == (words[int(answer)] in plural)
        assert words[int(clean[1])].rstrip("s") == words[int(patch[1])].rstrip("s")
        assert (clean[2:] == patch[2:]).all()
        if distractor:
            assert words[int(clean[-1])].endswith("s") != words[int(clean[1])].endswith("s")


@given(seed=seeds(), n=st.integers(1, 20))
def test_the_indirect_object_is_the_name_said_once(seed, n):
    encode = words_with_spaces(lambda word: True)
    pairs = ioi_pairs(encode, n=n, seed=seed)
    words = {i: word.strip(" ,") for word, i in encode.ids.items()}
    for row in range(n):
        clean, patch = (
            [words[int(i)] for i in prompt[row, : pairs.last[row] + 1]]
            for prompt in (pairs.clean, pairs.patch)
        )
        answer, other = words[int(pairs.clean_answer[row])], words[int(pairs.patch_answer[row])]
        assert (clean.count(answer), clean.count(other)) == (1, 2)
        assert (patch.count(answer), patch.count(other)) == (2, 1)
        assert sum(a != b for a, b in zip(clean, patch, strict=True)) == 1


@given(seed=seeds(), n=st.integers(1, 20), length=st.integers(2, 12))
def test_induction_repeats_what_it_said(seed, n, length):
    pairs = induction_pairs(20, n=n, length=length, seed=seed, exclude=(0, 7))
    assert not {0, 7} & set(pairs.clean.flatten().tolist())
    for row in range(n):
        end = int(pairs.last[row]) + 1 - length
        for prompt, answer in (
            (pairs.clean, pairs.clean_answer),
            (pairs.patch, pairs.patch_answer),
        ):
            said, again = prompt[row, :length], prompt[row, length : length + end]
            assert len(set(said.tolist())) == length
            assert (again == said[:end]).all()
            assert answer[row] == said[end]
        assert (pairs.clean[row] != pairs.patch[row]).sum() == 1


def test_answers_of_several_tokens_are_dropped_and_counted():
    encode = words_with_spaces(lambda word: word not in ("has", "have"))
    pairs = sva_pairs(encode, n=400, seed=0)
    assert (len(pairs), pairs.dropped) == (360, 40)
    with pytest.raises(ValueError, match="none of 400 sva pairs fits"):
        sva_pairs(characters, n=4, seed=0)


def test_prompts_of_two_lengths_are_dropped():
    encode = words_with_spaces(lambda word: word != "boys")
    pairs = sva_pairs(encode, n=400, seed=0)
    assert pairs.dropped == 20


def test_pairs_of_a_file_and_what_is_wrong_with_it(tmp_path):
    row = {"clean_prefix": "A b", "patch_prefix": "A c", "clean_answer": " d", "patch_answer": " e"}
    path = tmp_path / "mine.json"
    path.write_text("\n".join([json.dumps(row), json.dumps({**row, "clean_answer": " e"})]))
    pairs = read_pairs(path, words_with_spaces(lambda word: True))
    assert (pairs.task, len(pairs), pairs.dropped) == ("mine", 1, 1)
    path.write_text('{"clean_prefix": "A"}')
    with pytest.raises(ValueError, match=r"line 1.*patch_prefix"):
        read_pairs(path, characters)


def test_shorter_prompts_are_filled_up_at_the_end(tmp_path):
    rows = [
        {"clean_prefix": p, "patch_prefix": q, "clean_answer": " d", "patch_answer": " e"}
        for p, q in (("A b", "A c"), ("A b f g", "A c f g"))
    ]
    path = tmp_path / "mine.json"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    pairs = read_pairs(path, words_with_spaces(lambda word: True))
    assert pairs.last.tolist() == [1, 3]
    assert pairs[1:].clean.tolist() == pairs.clean[1:].tolist()


def test_pairs_that_cannot_be_are_refused():
    one = torch.zeros(1, 2, dtype=torch.int64)
    fields = {"clean": one, "patch": one, "last": one[:, 0]}
    with pytest.raises(ValueError, match="one answer twice"):
        Pairs(task="x", **fields, clean_answer=one[:, 0], patch_answer=one[:, 0])
    with pytest.raises(ValueError, match="at least 2"):
        induction_pairs(5, n=1, length=5, seed=0)


@pytest.mark.data
def test_the_files_of_sparse_feature_circuits(data_dir, tmp_path):
    import gzip

    import tokenizers
    import zstandard

    packed = (data_dir / "tokenizers" / "gpt_neox_20B_tokenizer.json.gz").read_bytes()
    tokenizer = tokenizers.Tokenizer.from_str(gzip.decompress(packed).decode())

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    for name in ("sva_simple_train", "sva_nounpp_test", "sva_within_rc_test"):
        raw = (data_dir / "lm_probes" / f"{name}.json.zst").read_bytes()
        text = zstandard.ZstdDecompressor().stream_reader(raw).read()
        path = tmp_path / f"{name}.json"
        path.write_bytes(text)
        pairs = read_pairs(path, encode)
        lines = len(text.splitlines())
        assert len(pairs) + pairs.dropped == lines
        assert len(pairs) > 0.8 * lines
    for make in (sva_pairs, ioi_pairs):
        assert len(make(encode, n=100, seed=0)) == 100
