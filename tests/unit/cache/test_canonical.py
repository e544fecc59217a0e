"""Every field of the key messages decides the key; nothing else does."""

import itertools
import math
from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import assume, given
from hypothesis import strategies as st

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.canonical import IRRELEVANT_OPTIONS, canonical_fields
from services.cache.core.keys import EntryKey, entry_key
from services.cache.core.layers import Layer

KEY_MESSAGES = [pb.EmbeddingSpace, pb.InferenceKey, pb.ChunksKey]

_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_ENUM,
)


_REALS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def key_of(message: Message) -> EntryKey:
    return entry_key(
        Layer.INFERENCE,
        tenant_id="acme",
        namespace="",
        fields=canonical_fields(message),
        pepper=b"p" * 16,
    )


def is_free_form(field: FieldDescriptor) -> bool:
    return field.message_type is Struct.DESCRIPTOR


def free_form(**options: object) -> Struct:
    return ParseDict(options, Struct())


def with_extra(**options: object) -> pb.InferenceKey:
    return pb.InferenceKey(extra=free_form(**options))


def scalar(field: FieldDescriptor, variant: int) -> object:
    """Returns one of two values of a scalar field, neither of which is its default."""
    if field.cpp_type in _NUMBERS:
        return 1 + variant
    if field.cpp_type in _REALS:
        return 0.5 + variant
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not variant
    text = f"value {variant}"
    return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text


def chosen(descriptor: Descriptor, path: tuple[str, ...]) -> list[FieldDescriptor]:
    """Returns the fields to fill: of a oneof the one on the path, else the first."""
    fields = []
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            names = [each.name for each in oneof.fields]
            wanted = path[0] if path and path[0] in names else names[0]
            if field.name != wanted:
                continue
        fields.append(field)
    return fields


def fill(message: Message, path: tuple[str, ...], *, variant: int) -> None:
    """Sets every field, and the one at the end of the path to the variant asked for."""
    for field in chosen(message.DESCRIPTOR, path):
        inner = path[1:] if path and path[0] == field.name else ()
        value = variant if path == (field.name,) else 0
        if is_free_form(field):
            getattr(message, field.name).CopyFrom(free_form(option=value))
        elif field.message_type is not None:
            target = getattr(message, field.name)
            fill(target.add() if field.is_repeated else target, inner, variant=variant)
        elif field.is_repeated:
            getattr(message, field.name).append(scalar(field, value))
        else:
            setattr(message, field.name, scalar(field, value))


def leaf_paths(descriptor: Descriptor) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        if field.message_type is None or is_free_form(field):
            yield (field.name,)
        else:
            for inner in leaf_paths(field.message_type):
                yield (field.name, *inner)


# Numbers without those that are equal and look different; names without those that do not matter.
REALS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
NAMES = st.text(max_size=4).filter(lambda name: name not in IRRELEVANT_OPTIONS)
OPTIONS = st.dictionaries(
    NAMES,
    st.recursive(
        st.booleans() | REALS | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 2**31 - 1),
}


def values(field: FieldDescriptor) -> st.SearchStrategy[object]:
    """Returns any value of one element of a field."""
    if is_free_form(field):
        return OPTIONS.map(lambda options: free_form(**options))
    if field.message_type is not None:
        return messages(message_factory.GetMessageClass(field.message_type))
    if field.cpp_type in _NUMBERS:
        return st.integers(*_LIMITS[field.cpp_type])
    if field.cpp_type in _REALS:
        return REALS
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    kinds = {FieldDescriptor.TYPE_BYTES: st.binary(max_size=6)}
    return kinds.get(field.type, st.text(max_size=6))


@st.composite
def messages(draw: st.DrawFn, make: type[Message]) -> Message:
    """Any message of a kind, found by reflection; of a oneof, the last one drawn is set."""
    message = make()
    fields = list(make.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(fields), unique_by=lambda each: each.name)):
        each = values(field)
        value = draw(st.lists(each, min_size=1, max_size=2) if field.is_repeated else each)
        message.MergeFrom(make(**{field.name: value}))
        if field.message_type is not None and not field.is_repeated:
            getattr(message, field.name).SetInParent()
    return message


def shuffled(message: Message, draw: st.DrawFn) -> Message:
    """Returns the same message, as one that wrote its fields in another order has sent it."""
    names = [field.name for field, _ in message.ListFields()]
    data = b""
    for name in draw(st.permutations(names)):
        part = type(message)()
        value = getattr(message, name)
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.is_repeated:
            getattr(part, name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(part, name).CopyFrom(value)
        else:
            setattr(part, name, value)
        data += part.SerializeToString()
    return type(message).FromString(data)


@pytest.mark.parametrize("make", KEY_MESSAGES, ids=lambda make: make.DESCRIPTOR.name)
@given(st.data())
def test_two_messages_share_a_key_only_if_they_say_the_same(make, data: st.DataObject) -> None:
    one, other = data.draw(messages(make)), data.draw(messages(make))
    assert (key_of(one) == key_of(other)) == (one == other)


@pytest.mark.parametrize("make", KEY_MESSAGES, ids=lambda make: make.DESCRIPTOR.name)
@given(st.data())
def test_one_field_set_otherwise_makes_another_key(make, data: st.DataObject) -> None:
    one = data.draw(messages(make))
    other = make()
    other.CopyFrom(one)
    field = data.draw(st.sampled_from(list(make.DESCRIPTOR.fields)))
    other.ClearField(field.name)
    value = data.draw(st.none() | values(field))
    if value is not None:
        other.MergeFrom(make(**{field.name: [value] if field.is_repeated else value}))
    assume(one != other)
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize("make", KEY_MESSAGES, ids=lambda make: make.DESCRIPTOR.name)
@given(st.data())
def test_the_order_of_the_fields_of_any_message_never_matters(make, data: st.DataObject) -> None:
    message = data.draw(messages(make))
    again = shuffled(message, data.draw)
    assert again == message
    assert key_of(again) == key_of(message)


LEAVES = [
    pytest.param(make, path, id=f"{make.DESCRIPTOR.name}.{'.'.join(path)}")
    for make in KEY_MESSAGES
    for path in leaf_paths(make.DESCRIPTOR)
]


def container(message: Message, path: tuple[str, ...]) -> Message:
    for name in path[:-1]:
        inner = getattr(message, name)
        message = inner if isinstance(inner, Message) else inner[0]
    return message


@pytest.mark.parametrize(("make", "path"), LEAVES)
def test_each_field_changes_the_key(make, path) -> None:
    base, changed, cleared = make(), make(), make()
    fill(base, path, variant=0)
    fill(changed, path, variant=1)
    fill(cleared, path, variant=0)
    inner = container(cleared, path)
    inner.ClearField(path[-1])
    assert base != changed
    field = inner.DESCRIPTOR.fields_by_name[path[-1]]
    # Such a field has but two states: false is what it is when nobody sets it.
    two_states = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and not field.has_presence
    assert len({key_of(base), key_of(changed), key_of(cleared)}) == (2 if two_states else 3)


def test_the_leaves_include_those_of_nested_messages() -> None:
    paths = {".".join(path) for path in leaf_paths(pb.InferenceKey.DESCRIPTOR)}
    assert {
        "sampling.seed",
        "sampling.min_p",
        "sampling.repeat_last_token_count",
        "conversation.messages.role",
        "conversation.messages.images",
        "conversation.messages.thinking",
        "conversation.messages.tool_calls.arguments_json",
        "conversation.messages.tool_call_id",
        "prompt.system",
        "format.json_schema",
        "extra",
    } <= paths


@given(OPTIONS, OPTIONS, st.sampled_from(sorted(IRRELEVANT_OPTIONS)), st.integers(0, 9))
def test_options_that_do_not_change_the_output_do_not_change_the_key(
    options, inner, name, value
) -> None:
    plain = with_extra(**{**options, "options": inner})
    keys = {
        key_of(with_extra(**{**options, "options": inner, name: value})),
        key_of(with_extra(**{**options, "options": {**inner, name: value}})),
        key_of(plain),
    }
    assert len(keys) == 1


@pytest.mark.parametrize("name", sorted(IRRELEVANT_OPTIONS))
def test_their_names_mean_nothing_special_elsewhere(name: str) -> None:
    def deep(value: object) -> list[pb.InferenceKey]:
        return [
            with_extra(format={"properties": {name: value}}),
            with_extra(options={"inner": {name: value}}),
            with_extra(options=[{name: value}]),
        ]

    for one, other in zip(deep(1), deep(2), strict=True):
        assert key_of(one) != key_of(other)


@given(OPTIONS)
def test_the_order_of_options_never_matters(options: dict[str, object]) -> None:
    backwards = dict(reversed(options.items()))
    assert key_of(with_extra(**options)) == key_of(with_extra(**backwards))


def test_whole_numbers_and_equal_fractions_are_one_option_and_so_are_the_zeros() -> None:
    assert key_of(with_extra(n=3)) == key_of(with_extra(n=3.0))
    assert key_of(with_extra(n=0)) == key_of(with_extra(n=-0.0))


def test_kinds_of_options_are_told_apart() -> None:
    kinds: list[object] = [1, "1", True, [1], {"": 1}, [], {}, "", False, 0, "nan", [None]]
    options = [with_extra(option=kind) for kind in kinds]
    odd = with_extra(option=0)
    odd.extra.fields["option"].number_value = math.nan
    options.append(odd)
    assert len({key_of(each) for each in options}) == len(options)


def test_an_option_that_is_null_is_none() -> None:
    assert key_of(with_extra(a=1, b=None)) == key_of(with_extra(a=1))


def test_options_are_told_from_their_absence() -> None:
    assert key_of(with_extra()) != key_of(pb.InferenceKey())


def test_large_pictures_take_part_by_their_digest() -> None:
    picture = bytes(1 << 20)
    fields = canonical_fields(pb.Prompt(text="what is it?", images=[picture]))
    assert len(str(fields)) < 200
    changed = pb.Prompt(text="what is it?", images=[picture[:-1] + b"\1"])
    assert key_of(changed) != key_of(pb.Prompt(text="what is it?", images=[picture]))


def test_texts_count_byte_by_byte() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    texts = [composed, decomposed, "café ", "Café"]
    assert len({key_of(pb.Prompt(text=text)) for text in texts}) == 4


def test_an_absent_option_differs_from_its_default() -> None:
    absent = pb.InferenceKey(sampling=generation_pb2.SamplingOptions(seed=1))
    defaults = {"temperature": 0.0, "top_p": 0.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 0.0}
    defaults |= {"repeat_last_token_count": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    for name, value in defaults.items():
        zero = pb.InferenceKey(sampling=generation_pb2.SamplingOptions(seed=1, **{name: value}))
        assert key_of(absent) != key_of(zero)


def test_the_same_text_as_prompt_and_as_conversation_makes_two_keys() -> None:
    message = generation_pb2.ChatMessage(role=generation_pb2.CHAT_ROLE_USER, content="hello")
    conversation = pb.InferenceKey(conversation=pb.Conversation(messages=[message]))
    assert key_of(conversation) != key_of(pb.InferenceKey(prompt=pb.Prompt(text="hello")))


def test_the_order_of_messages_and_of_stop_sequences_matters() -> None:
    forth = generation_pb2.SamplingOptions(stop_sequences=["a", "b"])
    back = generation_pb2.SamplingOptions(stop_sequences=["b", "a"])
    assert key_of(forth) != key_of(back)


def test_the_order_of_tool_calls_and_of_images_matters() -> None:
    def told(**fields: object) -> EntryKey:
        return key_of(pb.Conversation(messages=[generation_pb2.ChatMessage(**fields)]))

    calls = [generation_pb2.ToolCall(name=name, arguments_json="{}") for name in ("a", "b")]
    assert told(tool_calls=calls) != told(tool_calls=calls[::-1])
    assert told(images=[b"a", b"b"]) != told(images=[b"b", b"a"])


def test_text_does_not_slip_from_one_field_into_another() -> None:
    assert key_of(pb.Prompt(text="ab", system="c")) != key_of(pb.Prompt(text="a", system="bc"))
    joined = generation_pb2.SamplingOptions(stop_sequences=["ab"])
    split = generation_pb2.SamplingOptions(stop_sequences=["a", "b"])
    assert key_of(joined) != key_of(split)


def test_the_order_of_fields_on_the_wire_never_matters() -> None:
    parts = [
        pb.InferenceKey(model_digest="a" * 64),
        pb.InferenceKey(prompt=pb.Prompt(text="hello", system="be kind")),
        pb.InferenceKey(sampling=generation_pb2.SamplingOptions(temperature=0.0)),
        pb.InferenceKey(sampling=generation_pb2.SamplingOptions(seed=7)),
    ]
    keys = set()
    for order in itertools.permutations(parts):
        data = b"".join(part.SerializeToString() for part in order)
        keys.add(key_of(pb.InferenceKey.FromString(data)))
    assert len(keys) == 1


def test_negative_zero_is_zero() -> None:
    zero = generation_pb2.SamplingOptions(temperature=0.0)
    negative = generation_pb2.SamplingOptions(temperature=-0.0)
    assert math.copysign(1, negative.temperature) == -1
    assert key_of(zero) == key_of(negative)


@given(st.floats(), st.floats())
def test_two_numbers_share_a_key_only_if_they_are_equal(first: float, second: float) -> None:
    keys = [key_of(generation_pb2.SamplingOptions(temperature=each)) for each in (first, second)]
    same = first == second or (math.isnan(first) and math.isnan(second))
    assert (keys[0] == keys[1]) == same


def test_numbers_that_are_not_finite_are_told_apart() -> None:
    options = [
        generation_pb2.SamplingOptions(temperature=each)
        for each in (math.nan, math.inf, -math.inf, 0.0)
    ]
    assert len({key_of(each) for each in options}) == 4


@given(st.text(), st.text())
def test_two_texts_share_a_key_only_if_they_are_equal(first: str, second: str) -> None:
    keys = [key_of(pb.Prompt(text=each)) for each in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


@pytest.fixture(scope="module")
def newer_key() -> type[Message]:
    """An InferenceKey as a later release might have it: one more option and a map."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="future.proto", package="future.v1", syntax="proto3"
    )
    key = file.message_type.add(name="InferenceKey")
    key.field.add(name="model_digest", number=1, type=kinds.TYPE_STRING, label=1)
    key.field.add(name="thinking", number=50, type=kinds.TYPE_BOOL, label=1)
    extra = key.nested_type.add(name="ExtraEntry")
    extra.options.map_entry = True
    extra.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=1)
    extra.field.add(name="value", number=2, type=kinds.TYPE_STRING, label=1)
    key.field.add(
        name="extra",
        number=51,
        type=kinds.TYPE_MESSAGE,
        type_name=".future.v1.InferenceKey.ExtraEntry",
        label=3,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("future.v1.InferenceKey"))


def test_a_field_added_to_the_message_takes_part_in_the_key(newer_key) -> None:
    variants = [
        newer_key(model_digest="a"),
        newer_key(model_digest="a", thinking=True),
        newer_key(model_digest="a", extra={"x": "1"}),
        newer_key(model_digest="a", extra={"x": "2"}),
        newer_key(model_digest="a", extra={"x": "1", "y": "2"}),
    ]
    assert len({key_of(each) for each in variants}) == len(variants)
    forth = newer_key(extra={"x": "1", "y": "2"})
    back = newer_key(extra={"y": "2", "x": "1"})
    assert key_of(forth) == key_of(back)


def test_a_field_that_this_release_does_not_know_takes_part_in_the_key(newer_key) -> None:
    def received(**fields: object) -> EntryKey:
        data = newer_key(model_digest="a", **fields).SerializeToString()
        return key_of(pb.InferenceKey.FromString(data))

    keys = {received(), received(thinking=True), received(extra={"x": "1"})}
    assert len(keys) == 3
    assert received(thinking=True) == received(thinking=True)
