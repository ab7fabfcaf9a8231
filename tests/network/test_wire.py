"""Messages as bytes: what goes in comes out, and nothing else comes in, however a frame is made."""

from __future__ import annotations

import math
import os
import pickle
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from network.errors import WireError
from network.wire import SCHEMA_VERSION, Limits, Message, decode, encode

FUZZ_FRAMES = int(os.environ.get("F2A2_FUZZ_FRAMES", "2000"))
LIMITS = Limits()
DTYPES = ["<f2", "<f4", "<f8", "i1", "<i4", "<i8", "u1", "?"]


def message(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "kind": "parameters",
        "sender": 3,
        "session": 2**63 + 5,
        "sequence": 7,
        "sent_s": 12.5,
        "fields": {
            "step": 4,
            "loss": 0.5,
            "name": "ä",
            "on": True,
            "none": None,
            "list": [1, [2, {"a": []}]],
        },
        "tensors": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "done": np.array([True, False])},
    }
    return Message(**{**given, **changes})


def header(**changes: Any) -> dict[str, Any]:
    """The header of a message without tensors, changed; a value of ... leaves its key out."""
    given = {
        "version": SCHEMA_VERSION,
        "kind": "step",
        "sender": 0,
        "session": 1,
        "sequence": 1,
        "sent_s": 0.0,
        "fields": {},
        "tensors": [],
    }
    return {key: value for key, value in {**given, **changes}.items() if value is not ...}


def refused(frames: list[Any], limits: Limits = LIMITS) -> str:
    with pytest.raises(WireError) as caught:
        decode(frames, limits)
    return caught.value.reason


def same(a: Message, b: Message) -> bool:
    plain = all(
        getattr(a, name) == getattr(b, name) for name in ("kind", "sender", "session", "sequence", "sent_s")
    )
    return (
        plain
        and dict(a.fields) == dict(b.fields)
        and a.tensors.keys() == b.tensors.keys()
        and all(
            a.tensors[name].dtype == b.tensors[name].dtype
            and a.tensors[name].shape == b.tensors[name].shape
            and a.tensors[name].tobytes() == b.tensors[name].tobytes()
            for name in a.tensors
        )
    )


# ---------------------------------------------------------------- round trip

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)


def nested(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return LEAVES
    inner = nested(depth - 1)
    return LEAVES | st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)


MESSAGES = st.builds(
    Message,
    kind=st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True),
    sender=st.integers(-1, 999_999),
    session=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**63 - 1),
    sent_s=st.floats(allow_nan=False, allow_infinity=False),
    fields=st.dictionaries(st.text(max_size=10), nested(4), max_size=5),
    tensors=st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
        max_size=4,
    ),
)


@given(MESSAGES)
def test_what_goes_in_comes_out(sent: Message) -> None:
    assert same(decode(encode(sent), LIMITS), sent)


def test_subclasses_of_plain_numbers_come_out_plain() -> None:
    out = decode(encode(message(fields={"loss": np.float64(2.5)}, sent_s=np.float64(1.0))), LIMITS)
    assert type(out.fields["loss"]) is float and type(out.sent_s) is float


def test_tensors_are_read_only_views_of_their_frames() -> None:
    frames = encode(message())
    out = decode(frames, LIMITS)
    for array, frame in zip(out.tensors.values(), frames[1:], strict=True):
        assert np.shares_memory(array, np.frombuffer(frame, dtype=np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    writable = [bytearray(frame) for frame in frames]
    assert not decode([memoryview(frame) for frame in writable], LIMITS).tensors["weight"].flags.writeable


def test_frames_do_not_follow_the_arrays_that_they_were_made_of() -> None:
    weight = np.ones(5)
    frames = encode(message(tensors={"weight": weight}))
    weight[:] = 0
    assert decode(frames, LIMITS).tensors["weight"].sum() == 5


# ---------------------------------------------------------------- what may not be sent


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": ""},
        {"kind": "two words"},
        {"sender": -2},
        {"sender": True},
        {"session": 2**64},
        {"sequence": -1},
        {"sent_s": math.nan},
        {"sent_s": math.inf},
        {"sent_s": 3},
        {"fields": {"bytes": b"x"}},
        {"fields": {"tuple": (1, 2)}},
        {"fields": {1: 2}},
        {"fields": {"large": 2**64}},
        {"fields": {"half": "\ud800"}},
        {"fields": {"deep": [[[[[]]]]]}},
        {"fields": {"long": [0] * 5000}},
        {"tensors": {"": np.zeros(1)}},
        {"tensors": {"object": np.array([{}])}},
        {"tensors": {"complex": np.zeros(1, dtype=np.complex64)}},
        {"tensors": {"big_endian": np.zeros(1, dtype=">f4")}},
        {"tensors": {"strided": np.zeros((4, 4))[:, ::2]}},
    ],
    ids=str,
)
def test_what_could_not_come_in_does_not_go_out(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        encode(message(**changes))
    assert caught.value.reason == "malformed"


# ---------------------------------------------------------------- what does not come in


def test_the_header_that_the_others_are_made_of_is_good() -> None:
    assert decode([msgpack.packb(header())], LIMITS).kind == "step"


@pytest.mark.parametrize("key", [key for key in header() if key != "version"])
def test_every_key_has_to_be_there(key: str) -> None:
    assert refused([msgpack.packb(header(**{key: ...}))]) == "malformed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version"),
        ({"version": 2, "tensors": ..., "new": 1}, "version"),
        ({"version": ...}, "malformed"),
        ({"version": True}, "malformed"),
        ({"version": 1.0}, "malformed"),
        ({"extra": 1}, "malformed"),
        ({"kind": 5}, "malformed"),
        ({"kind": "x" * 65}, "malformed"),
        ({"kind": "new\nline"}, "malformed"),
        ({"kind": "step\n"}, "malformed"),
        ({"sender": False}, "malformed"),
        ({"sender": 0.0}, "malformed"),
        ({"sender": -2}, "malformed"),
        ({"sender": 10**6}, "malformed"),
        ({"session": -1}, "malformed"),
        ({"sequence": 2**63}, "malformed"),
        ({"sequence": None}, "malformed"),
        ({"sent_s": 1}, "malformed"),
        ({"sent_s": math.nan}, "malformed"),
        ({"sent_s": -math.inf}, "malformed"),
        ({"fields": []}, "malformed"),
        ({"fields": None}, "malformed"),
        ({"fields": {"a": b"bytes"}}, "malformed"),
        ({"fields": {b"a": 1}}, "malformed"),
        ({"fields": {"a": {5: 1}}}, "malformed"),
        ({"fields": {"a": msgpack.ExtType(5, b"x")}}, "malformed"),
        ({"fields": {"a": msgpack.Timestamp(5)}}, "malformed"),
        ({"fields": {"a": [[[[[]]]]]}}, "malformed"),
        ({"fields": {"a": {"b": {"c": {"d": {"e": {}}}}}}}, "malformed"),
        ({"fields": {"a": [0] * 4097}}, "malformed"),
        ({"fields": {"a": "x" * 70_000}}, "oversized"),
        ({"tensors": {}}, "malformed"),
        ({"tensors": [["w", "float32", [1]]]}, "malformed"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_header_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refused([msgpack.packb(header(**changes))]) == reason


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("w", "malformed"),
        (["w", "float32"], "malformed"),
        (["w", "float32", [2], 0], "malformed"),
        ([5, "float32", [2]], "malformed"),
        (["", "float32", [2]], "malformed"),
        (["w" * 129, "float32", [2]], "malformed"),
        (["w", "object", [1]], "malformed"),
        (["w", "O", [1]], "malformed"),
        (["w", "<f4", [2]], "malformed"),
        (["w", ["float32"], [2]], "malformed"),
        (["w", "float32", 2], "malformed"),
        (["w", "float32", [2.0]], "malformed"),
        (["w", "float32", [True, 2]], "malformed"),
        (["w", "float32", [-2]], "malformed"),
        (["w", "float32", [-1, -2]], "malformed"),
        (["w", "float32", [3]], "malformed"),
        (["w", "float32", [1]], "malformed"),
        (["w", "float32", []], "malformed"),
        (["w", "float32", [0]], "malformed"),
        (["w", "bool", [8]], "malformed"),
        (["w", "float32", [1, 1, 1, 1, 2]], "oversized"),
        (["w", "float32", [2**60]], "oversized"),
        (["w", "float32", [2**32, 2**32]], "oversized"),
        (["w", "float32", [2**63, 2**63, 2**63, 0]], "oversized"),
        (["w", "float32", [2**64 - 1]], "oversized"),
    ],
    ids=str,
)
def test_a_wrong_tensor_is_refused(entry: Any, reason: str) -> None:
    frame = b"\0\2" * 4  # two float32, or bools that are none
    assert decode([msgpack.packb(header(tensors=[["w", "float32", [2]]])), frame], LIMITS)
    assert refused([msgpack.packb(header(tensors=[entry])), frame]) == reason


def test_frames_have_to_be_as_many_as_tensors() -> None:
    entry = ["w", "int8", [1]]
    assert refused([]) == "malformed"
    assert refused([msgpack.packb(header()), b""]) == "malformed"
    assert refused([msgpack.packb(header(tensors=[entry]))]) == "malformed"
    assert refused([msgpack.packb(header(tensors=[entry, entry])), b"a", b"b"]) == "malformed"  # one name


def test_limits_are_kept_to_the_byte() -> None:
    frames = encode(message(tensors={str(k): np.zeros(10, dtype=np.int8) for k in range(3)}))
    head, total = len(frames[0]), sum(len(frame) for frame in frames)
    exact = Limits(header_bytes=head, message_bytes=total, tensors=3, dimensions=1)
    assert decode(frames, exact)
    assert refused(frames, Limits(header_bytes=head - 1)) == "oversized"
    assert refused(frames, Limits(message_bytes=total - 1)) == "oversized"
    assert refused(frames, Limits(tensors=2)) == "oversized"
    assert refused(frames, Limits(dimensions=0)) == "oversized"


def test_a_key_that_comes_twice_is_refused() -> None:
    body = b"".join(msgpack.packb(part) for pair in header().items() for part in pair)
    assert decode([bytes([0x88]) + body], LIMITS)
    assert refused([bytes([0x89]) + body + msgpack.packb("sender") + msgpack.packb(1)]) == "malformed"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        msgpack.packb(header()) + b"\0",
        pickle.dumps(header()),
        b"\xdd\xff\xff\xff\xff",  # a list of 2**32 - 1
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 20_000,  # lists in lists, of 65,535 each
        b"\xdc\x0f\xff" * 20_000,
        b"\x91" * 60_000,
        b"\x81\xa1a" * 20_000,
        b"\x81\x91\x01\x02",  # a list as a key
    ],
    ids=lambda frame: f"{len(frame)}-{frame[:6].hex()}",
)
def test_headers_that_claim_much_get_no_memory(frame: bytes) -> None:
    tracemalloc.start()
    try:
        assert refused([frame]) == "malformed"
        assert refused([msgpack.packb(header(tensors=[["w", "float64", [2**60]]])), frame]) == "oversized"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


# ---------------------------------------------------------------- fuzzing


def survives(frames: list[bytes]) -> None:
    """Either a message whose every part is as promised, or a WireError."""
    try:
        found = decode(frames, LIMITS)
    except WireError as error:
        assert error.reason in ("malformed", "oversized", "version")
    else:
        assert same(decode(encode(found), LIMITS), found) or "nan" in repr(found.fields)


def test_every_truncation_is_refused() -> None:
    frames = encode(message())
    for which in range(len(frames)):
        for length in range(len(frames[which])):
            short = [*frames[:which], frames[which][:length], *frames[which + 1 :]]
            assert refused(short) == "malformed"
        assert refused(frames[:which]) == "malformed"


def test_mutated_frames_are_refused_or_are_messages() -> None:
    rng = np.random.default_rng(1)
    good = [bytes(frame) for frame in encode(message())]
    for _ in range(FUZZ_FRAMES):
        frames = [bytearray(frame) for frame in good]
        for _ in range(rng.integers(1, 6)):
            frame = frames[0] if rng.random() < 0.8 else frames[rng.integers(len(frames))]
            place = int(rng.integers(len(frame))) if frame else 0
            match rng.integers(4):
                case 0:
                    frame[place : place + 1] = rng.bytes(1)
                case 1:
                    del frame[place : place + int(rng.integers(1, 5))]
                case 2:
                    frame[place:place] = rng.bytes(int(rng.integers(1, 5)))
                case _:
                    frame[place : place + 1] = bytes([rng.choice([0xC0, 0xC1, 0xC7, 0xD9, 0xDD, 0xDF, 0xFF])])
        survives([bytes(frame) for frame in frames])


def test_random_frames_are_refused_or_are_messages() -> None:
    rng = np.random.default_rng(2)
    for _ in range(FUZZ_FRAMES):
        survives([rng.bytes(int(rng.integers(0, 80))) for _ in range(rng.integers(0, 4))])


JUNK = st.recursive(
    LEAVES | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from([*header(), "new"]), JUNK), st.lists(st.binary(max_size=20), max_size=2)
)
def test_headers_of_the_wrong_types_are_refused_or_are_messages(
    changes: dict[str, Any], frames: list[bytes]
) -> None:
    survives([msgpack.packb(header(**changes)), *frames])
