import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.names import is_model_name, model_key

PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2",
        "llama3.2:latest",
        "Llama3.2:LATEST",
        "library/llama3.2",
        "library/llama3.2:latest",
    ],
)
def test_names_of_one_model_have_one_key(name):
    assert model_key(name) == "llama3.2:latest"


def test_tag_namespace_and_host_tell_models_apart():
    names = ["m", "m:3b", "team/m", "host.example/team/m", "host.example:5000/team/m:3b"]
    assert len({model_key(name) for name in names}) == len(names)


def test_port_of_a_host_is_no_tag():
    assert model_key("host.example:5000/team/m") == "host.example:5000/team/m:latest"


@given(st.lists(PART, min_size=1, max_size=3), st.none() | PART)
def test_key_is_a_name_and_its_own_key(parts, tag):
    name = "/".join(parts) + (f":{tag}" if tag else "")
    assert is_model_name(name)
    key = model_key(name)
    assert is_model_name(key)
    assert model_key(key) == key == model_key(name.upper())


@pytest.mark.parametrize(
    "text", ["", " ", "a b", ":x", "a:", "a/", "/a", "-a", "a:b:c", "a\nb", "ä", "x" * 81]
)
def test_what_ollama_refuses_is_no_name(text):
    assert not is_model_name(text)
