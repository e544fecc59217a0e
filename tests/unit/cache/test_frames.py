"""What is read is exactly what was stored under that key, or nothing."""

import random
import resource
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core import frames
from services.cache.core.frames import (
    FRAME_OVERHEAD_BYTES,
    MAXIMUM_PAYLOAD_BYTES,
    Frame,
    FrameRejected,
)
from services.cache.core.keys import entry_key
from services.cache.core.layers import LAYER_RULES, Layer

PEPPER = b"a secret of the tests"
TIMES = st.integers(0, 2**64 - 1)
TAGS = st.lists(st.text(max_size=40), max_size=32).map(tuple)
PROSE = ("The llama carries two panniers, and each must weigh the same. " * 40).encode()
CODEC_AT = 4
TEXT_LAYERS = [layer for layer, rules in LAYER_RULES.items() if rules.compressible]


def key_of(name: str = "hello", layer: Layer = Layer.EMBEDDING) -> bytes:
    return entry_key(
        layer, tenant_id="acme", namespace="", fields={"text": name}, pepper=PEPPER
    ).value


KEY = key_of()


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Short ones, long ones that can be compressed, and long ones that cannot."""
    kind = draw(st.sampled_from(["short", "prose", "noise"]))
    if kind == "short":
        return draw(st.binary(max_size=600))
    if kind == "prose":
        return PROSE[: draw(st.integers(0, len(PROSE)))]
    return random.Random(draw(st.integers(0, 99))).randbytes(draw(st.integers(0, 3_000)))


FRAMES = st.builds(
    Frame,
    layer=st.sampled_from(Layer),
    created_ms=TIMES,
    expires_ms=TIMES,
    payload=payloads(),
    tags=TAGS,
    delta_ms=st.integers(0, 2**32 - 1),
)


def frame_of(payload: bytes = b"payload", layer: Layer = Layer.EMBEDDING) -> Frame:
    return Frame(layer=layer, created_ms=1, expires_ms=2, payload=payload)


def encode(frame: Frame, key: bytes = KEY) -> bytes:
    return frames.encode(frame, key=key, pepper=PEPPER)


def decode(data: bytes, layer: Layer = Layer.EMBEDDING, key: bytes = KEY) -> Frame:
    return frames.decode(data, layer=layer, key=key, pepper=PEPPER)


def signed(header: bytes, rest: bytes, key: bytes = KEY) -> bytes:
    """Makes a frame of any content with a signature that is right."""
    return header + rest + frames._signature(header + rest, key, PEPPER)


def header(**changes: object) -> bytes:
    fields = {
        "magic": b"pc",
        "version": 2,
        "letter": b"i",
        "codec": 0,
        "tag_count": 0,
        "tags_bytes": 0,
        "created_ms": 1,
        "expires_ms": 2,
        "delta_ms": 3,
        "payload_bytes": 0,
        "body_bytes": 0,
    }
    assert changes.keys() <= fields.keys()
    return struct.pack("<2sBcBBHQQIII", *(fields | changes).values())


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert decode(encode(frame), frame.layer) == frame


@given(FRAMES, st.data())
def test_any_changed_byte_is_rejected(frame: Frame, data: st.DataObject) -> None:
    stored = bytearray(encode(frame))
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameRejected):
        decode(bytes(stored), frame.layer)


@given(FRAMES, st.data())
def test_cut_and_extended_values_are_rejected(frame: Frame, data: st.DataObject) -> None:
    stored = encode(frame)
    cut = sorted(
        data.draw(
            st.tuples(*2 * [st.integers(0, len(stored))]).filter(lambda ends: ends[0] != ends[1])
        )
    )
    without = stored[: cut[0]] + stored[cut[1] :]
    extended = stored + data.draw(st.binary(min_size=1, max_size=20))
    for each in (without, extended):
        with pytest.raises(FrameRejected):
            decode(each, frame.layer)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(FrameRejected):
        decode(data)


@given(FRAMES)
def test_a_value_moved_to_another_key_is_rejected(frame: Frame) -> None:
    with pytest.raises(FrameRejected):
        decode(encode(frame), frame.layer, key=key_of("good bye"))


def test_bytes_cannot_pass_from_the_key_into_the_value() -> None:
    assert frames._signature(b"c", b"ab", PEPPER) != frames._signature(b"bc", b"a", PEPPER)


@given(FRAMES, st.sampled_from(Layer))
def test_a_value_of_another_layer_is_rejected(frame: Frame, layer: Layer) -> None:
    if layer is frame.layer:
        return
    with pytest.raises(FrameRejected):
        decode(encode(frame), layer)


def test_a_value_signed_with_another_secret_is_rejected() -> None:
    data = frames.encode(frame_of(), key=KEY, pepper=b"another secret!!")
    with pytest.raises(FrameRejected):
        decode(data)


def test_a_properly_signed_value_of_another_version_is_rejected(monkeypatch) -> None:
    monkeypatch.setattr(frames, "FRAME_VERSION", frames.FRAME_VERSION + 1)
    newer = encode(frame_of())
    monkeypatch.undo()
    with pytest.raises(FrameRejected):
        decode(newer)


class TestCompression:
    """Texts are compressed where that makes them smaller; vectors never are."""

    @pytest.mark.parametrize("layer", TEXT_LAYERS)
    def test_long_texts_take_less_room(self, layer) -> None:
        stored = encode(frame_of(PROSE, layer))
        assert stored[CODEC_AT] == 1
        assert len(stored) < len(PROSE) / 2
        assert decode(stored, layer).payload == PROSE

    @pytest.mark.parametrize(("length", "codec"), [(511, 0), (512, 1)])
    def test_from_half_a_kibibyte_on(self, length, codec) -> None:
        assert encode(frame_of(PROSE[:length], Layer.CHUNK))[CODEC_AT] == codec

    def test_what_does_not_get_smaller_stays_as_it_is(self) -> None:
        noise = random.Random(1).randbytes(4_000)
        stored = encode(frame_of(noise, Layer.INFERENCE))
        assert stored[CODEC_AT] == 0
        assert len(stored) == len(noise) + FRAME_OVERHEAD_BYTES

    def test_vectors_stand_there_as_they_are(self) -> None:
        vector = np.zeros(768, "<f4").tobytes()
        stored = encode(frame_of(vector))
        assert len(stored) == len(vector) + FRAME_OVERHEAD_BYTES
        assert vector in stored


class TestPoison:
    """Even a value with a signature that is right costs no more than it may."""

    def test_a_small_value_that_becomes_a_huge_one_is_rejected_without_taking_memory(self) -> None:
        bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for claimed in (10, MAXIMUM_PAYLOAD_BYTES, 1 << 30):
            poisoned = signed(header(codec=1, payload_bytes=claimed, body_bytes=len(bomb)), bomb)
            with pytest.raises(FrameRejected):
                decode(poisoned, Layer.INFERENCE)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 100_000

    def test_a_compressed_value_that_does_not_say_its_length_is_rejected(self) -> None:
        compressor = zstandard.ZstdCompressor(write_content_size=False)
        body = compressor.compress(PROSE)
        poisoned = signed(header(codec=1, payload_bytes=len(PROSE), body_bytes=len(body)), body)
        with pytest.raises(FrameRejected):
            decode(poisoned, Layer.INFERENCE)

    @pytest.mark.parametrize(
        ("changes", "rest"),
        [
            ({"codec": 2, "payload_bytes": 1, "body_bytes": 1}, b"x"),
            ({"codec": 1, "payload_bytes": 1, "body_bytes": 1}, b"x"),
            (
                {"codec": 1, "payload_bytes": 9, "body_bytes": 9},
                b"\x28\xb5\x2f\xfd\x20\x09\x01\x00\x00",
            ),
            ({"payload_bytes": 2, "body_bytes": 1}, b"x"),
            ({"tag_count": 1, "tags_bytes": 0}, b""),
            ({"tag_count": 0, "tags_bytes": 2}, b"\1x"),
            ({"tag_count": 1, "tags_bytes": 2}, b"\5x"),
            ({"tag_count": 2, "tags_bytes": 2}, b"\1x"),
            ({"tag_count": 1, "tags_bytes": 2}, b"\1\xff"),
        ],
    )
    def test_contradictions_are_rejected(self, changes, rest) -> None:
        with pytest.raises(FrameRejected):
            decode(signed(header(**changes), rest), Layer.INFERENCE)

    @given(st.binary(max_size=100), st.integers(0, 3), st.integers(0, 40), st.integers(0, 3))
    def test_any_signed_content_is_a_value_or_rejected(self, rest, codec, tags, count) -> None:
        body_bytes = max(0, len(rest) - tags)
        made = header(
            codec=codec,
            tag_count=count,
            tags_bytes=tags,
            payload_bytes=body_bytes,
            body_bytes=body_bytes,
        )
        try:
            frame = decode(signed(made, rest), Layer.INFERENCE)
        except FrameRejected:
            return
        assert len(frame.payload) == body_bytes
        assert len(frame.tags) == count

    def test_the_header_made_here_is_the_real_one(self) -> None:
        frame = decode(signed(header(payload_bytes=2, body_bytes=2), b"ok"), Layer.INFERENCE)
        assert frame == Frame(
            layer=Layer.INFERENCE, created_ms=1, expires_ms=2, payload=b"ok", delta_ms=3
        )


class TestBounds:
    """What cannot be written is refused when it is written."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"payload": bytes(MAXIMUM_PAYLOAD_BYTES + 1)},
            {"tags": tuple("abcdefghijklmnopqrstuvwxyz01234567")},
            {"tags": ("x" * 256,)},
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes) -> None:
        fields = {"layer": Layer.CHUNK, "created_ms": 1, "expires_ms": 2, "payload": b""} | changes
        with pytest.raises(ValueError, match=r"tag|payload"):
            encode(Frame(**fields))

    def test_the_largest_value_comes_back(self) -> None:
        payload = random.Random(2).randbytes(MAXIMUM_PAYLOAD_BYTES)
        assert decode(encode(frame_of(payload))).payload == payload

    def test_times_that_cannot_be_are_cut_to_those_that_can(self) -> None:
        frame = Frame(layer=Layer.CHUNK, created_ms=-5, expires_ms=-1, payload=b"", delta_ms=2**40)
        read = decode(encode(frame), Layer.CHUNK)
        assert (read.created_ms, read.expires_ms, read.delta_ms) == (0, 0, 2**32 - 1)
