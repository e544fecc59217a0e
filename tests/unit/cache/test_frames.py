"""What is read is exactly what was stored under that key, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core import frames
from services.cache.core.frames import FRAME_OVERHEAD_BYTES, Frame, FrameRejected
from services.cache.core.layers import Layer

PEPPER = b"a secret of the tests"
KEY = b"pannier:1:e:" + b"0" * 40
TIMES = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame,
    layer=st.sampled_from(Layer),
    created_ms=TIMES,
    expires_ms=TIMES,
    payload=st.binary(max_size=200),
)


def frame_of(payload: bytes = b"payload") -> Frame:
    return Frame(layer=Layer.EMBEDDING, created_ms=1, expires_ms=2, payload=payload)


@given(FRAMES, st.binary(max_size=60))
def test_a_frame_comes_back_as_it_was(frame: Frame, key: bytes) -> None:
    data = frames.encode(frame, key=key, pepper=PEPPER)
    assert len(data) == len(frame.payload) + FRAME_OVERHEAD_BYTES
    assert frames.decode(data, layer=frame.layer, key=key, pepper=PEPPER) == frame


@given(FRAMES, st.data())
def test_any_flipped_bit_is_rejected(frame: Frame, data: st.DataObject) -> None:
    stored = bytearray(frames.encode(frame, key=KEY, pepper=PEPPER))
    bit = data.draw(st.integers(0, 8 * len(stored) - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameRejected):
        frames.decode(bytes(stored), layer=frame.layer, key=KEY, pepper=PEPPER)


@given(FRAMES, st.data())
def test_truncated_and_extended_values_are_rejected(frame: Frame, data: st.DataObject) -> None:
    stored = frames.encode(frame, key=KEY, pepper=PEPPER)
    shorter = stored[: data.draw(st.integers(0, len(stored) - 1))]
    longer = stored + data.draw(st.binary(min_size=1, max_size=20))
    for each in (shorter, longer):
        with pytest.raises(FrameRejected):
            frames.decode(each, layer=frame.layer, key=KEY, pepper=PEPPER)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(FrameRejected):
        frames.decode(data, layer=Layer.EMBEDDING, key=KEY, pepper=PEPPER)


def test_a_value_moved_to_another_key_is_rejected() -> None:
    data = frames.encode(frame_of(), key=KEY, pepper=PEPPER)
    other = KEY[:-1] + b"1"
    with pytest.raises(FrameRejected):
        frames.decode(data, layer=Layer.EMBEDDING, key=other, pepper=PEPPER)


def test_a_value_of_another_layer_is_rejected() -> None:
    data = frames.encode(frame_of(), key=KEY, pepper=PEPPER)
    with pytest.raises(FrameRejected):
        frames.decode(data, layer=Layer.INFERENCE, key=KEY, pepper=PEPPER)


def test_a_value_signed_with_another_secret_is_rejected() -> None:
    data = frames.encode(frame_of(), key=KEY, pepper=b"another secret!!")
    with pytest.raises(FrameRejected):
        frames.decode(data, layer=Layer.EMBEDDING, key=KEY, pepper=PEPPER)


def test_a_properly_signed_value_of_another_version_is_rejected(monkeypatch) -> None:
    monkeypatch.setattr(frames, "FRAME_VERSION", frames.FRAME_VERSION + 1)
    newer = frames.encode(frame_of(), key=KEY, pepper=PEPPER)
    monkeypatch.undo()
    with pytest.raises(FrameRejected):
        frames.decode(newer, layer=Layer.EMBEDDING, key=KEY, pepper=PEPPER)
