"""Option types, and what forces a reload."""

import pytest

from services.standin.core.options import LoadOptions, OptionError, needs_reload, parse_options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"num_ctx": "big"}, 'option "num_ctx" must be of type integer'),
        ({"num_predict": True}, 'option "num_predict" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "end"}, 'option "stop" must be of type array'),
    ],
)
def test_an_option_of_the_wrong_type_is_named(options, text):
    with pytest.raises(OptionError, match=text):
        parse_options(options)


def test_unknown_options_and_nulls_are_ignored():
    assert parse_options({"colour": "red", "num_ctx": None}) == parse_options({})


def differ(loaded, wanted):
    return needs_reload(
        parse_options(loaded).load, parse_options(wanted).load, trained_tokens=8192, default=4096
    )


@pytest.mark.parametrize(
    ("loaded", "wanted"),
    [
        ({}, {"temperature": 0.1, "num_predict": 5, "seed": 1, "stop": ["x"]}),
        ({}, {"num_ctx": 4096}),
        ({"num_ctx": 100_000}, {"num_ctx": 8192}),
        ({}, {"num_gpu": -1}),
        ({"num_gpu": 3}, {}),
        ({}, {"num_batch": 512}),
    ],
)
def test_what_takes_no_other_effect_needs_no_reload(loaded, wanted):
    assert not differ(loaded, wanted)


@pytest.mark.parametrize(
    ("loaded", "wanted"),
    [
        ({}, {"num_ctx": 2048}),
        ({"num_ctx": 2048}, {}),
        ({}, {"num_thread": 2}),
        ({"num_thread": 2}, {}),
        ({}, {"num_gpu": 1}),
        ({}, {"use_mmap": False}),
    ],
)
def test_another_load_option_needs_a_reload(loaded, wanted):
    assert differ(loaded, wanted)


def test_num_predict_limits_only_when_positive():
    assert parse_options({"num_predict": 7}).max_tokens == 7
    assert parse_options({"num_predict": -1}).max_tokens is None
    assert parse_options({}).load == LoadOptions()
