"""The command line over the environment."""

import pytest

from services.standin.command import parse_arguments
from services.standin.core.times import FOREVER_SECONDS
from services.standin.settings import Settings


def test_without_anything_the_defaults_hold():
    assert parse_arguments([], {}) == Settings()


def test_variables_of_the_real_server_are_read():
    settings = parse_arguments(
        [],
        {
            "OLLAMA_HOST": "0.0.0.0:12000",
            "OLLAMA_NUM_PARALLEL": "4",
            "OLLAMA_MAX_QUEUE": " 7 ",
            "OLLAMA_MAX_LOADED_MODELS": "'2'",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_CONTEXT_LENGTH": '"2048"',
            "OLLAMA_LOAD_TIMEOUT": "90s",
        },
    )
    assert (settings.host, settings.port) == ("0.0.0.0", 12000)
    assert (settings.num_parallel, settings.max_queue, settings.max_loaded_models) == (4, 7, 2)
    assert settings.keep_alive_seconds == FOREVER_SECONDS
    assert (settings.context_tokens, settings.load_timeout_seconds) == (2048, 90)


def test_the_command_line_wins():
    arguments = ["--num-parallel=3", "--port=5", "--keep-alive=20"]
    settings = parse_arguments(arguments, {"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_HOST": ":9"})
    assert (settings.num_parallel, settings.port, settings.keep_alive_seconds) == (3, 5, 20)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 11434),
        (":8080", "127.0.0.1", 8080),
        ("http://box", "box", 80),
        ("https://box/path", "box", 443),
        ("http://box:99/", "box", 99),
        ("[::1]:70", "::1", 70),
        ("[::1]", "::1", 11434),
    ],
)
def test_a_host_is_read_in_all_its_forms(text, host, port):
    settings = parse_arguments([], {"OLLAMA_HOST": text})
    assert (settings.host, settings.port) == (host, port)


def test_zero_leaves_context_and_models_to_the_server_and_lets_loads_stall():
    variables = ("OLLAMA_CONTEXT_LENGTH", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_LOAD_TIMEOUT")
    settings = parse_arguments([], dict.fromkeys(variables, "0"))
    assert (settings.context_tokens, settings.max_loaded_models) == (4096, 3)
    assert settings.load_timeout_seconds == FOREVER_SECONDS


def test_a_profile_is_read(tmp_path):
    path = tmp_path / "profile.toml"
    path.write_text('builtin_models = false\n[[models]]\nname = "m"\n')
    settings = parse_arguments(["--profile", str(path), "--speed", "0.35"], {})
    assert [model.name for model in settings.models] == ["m"]
    assert (settings.builtin_models, settings.speed) == (False, 0.35)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--speed=0"], {}),
        (["--contention=-1"], {}),
        (["--profile=/nowhere"], {}),
        ([], {"OLLAMA_NUM_PARALLEL": "many"}),
        ([], {"OLLAMA_KEEP_ALIVE": "soon"}),
    ],
)
def test_what_is_wrong_is_refused(arguments, environment, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments, environment)
    assert "error:" in capsys.readouterr().err
