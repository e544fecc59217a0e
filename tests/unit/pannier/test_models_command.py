"""`pannier models`, against a balancer whose answers are written down here."""

import io
import json
import signal

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.downloads import Download
from pannier.commands.output import Output
from pannier.commands.pull_model import show_downloads

LLAMA = pb.Model(
    name="llama3.2:latest",
    digest="ab" * 32,
    size_bytes=2 * 1024**3,
    capabilities=[pb.MODEL_CAPABILITY_COMPLETION],
    backend_ids=["a:1", "b:1"],
    loaded_backend_ids=["b:1"],
)


def pull_events(*backend_ids: str) -> list[pb.PullModelResponse]:
    part = pb.PullProgress(status="pulling", digest="x", completed_bytes=1024, total_bytes=2048)
    steps = [pb.PullModelResponse(backend_id=each, progress=part) for each in backend_ids]
    done = pb.PullCompleted(model_digest="ab" * 32)
    return [
        *steps,
        *(pb.PullModelResponse(backend_id=each, completed=done) for each in backend_ids),
    ]


def test_a_listing_goes_through_all_pages(services):
    def answer(request, _context):
        number = int(request.page_token or "0")
        return pb.ListModelsResponse(
            models=[pb.Model(name=f"m{number}:latest")],
            next_page_token=str(number + 1) if number < 2 else "",
        )

    services.answers["ListModels"] = answer
    listed = json.loads(services.run("models", "--json").stdout)
    assert [each["name"] for each in listed] == ["m0:latest", "m1:latest", "m2:latest"]
    assert services.run("models", "list").stdout.endswith("3 models\n")


def test_one_model_is_shown_with_how_each_backend_has_it(services):
    stats = pb.LoadedModelStats(
        residency=pb.MODEL_RESIDENCY_WARM,
        slot_count=2,
        in_flight_count=1,
        context_token_count=8192,
        prefill_tokens_per_second=2500.4,
        decode_tokens_per_second=61.2,
        predicted_load=Duration(seconds=6),
    )
    on_disk = pb.LoadedModelStats(
        residency=pb.MODEL_RESIDENCY_INSTALLED, slot_count=2, predicted_load=Duration(seconds=12)
    )
    response = pb.ShowModelResponse(
        model=LLAMA,
        backends=[
            pb.ModelOnBackend(backend_id="a:1", stats=on_disk),
            pb.ModelOnBackend(backend_id="b:1", healthy=True, stats=stats),
        ],
    )
    asked = []

    def answer(request, _context):
        asked.append(request.model)
        return response

    services.answers["ShowModel"] = answer
    lines = services.run("models", "show", "llama3.2").stdout.splitlines()
    assert asked == ["llama3.2"]
    assert lines[1].split()[0] == "llama3.2:latest"
    assert lines[-2].split() == ["a:1,", "out", "installed", "0/2", "-", "-", "-", "12.00", "s"]
    assert lines[-1].split() == ["b:1", "warm", "1/2", "8192", "2500", "61", "6.00", "s"]
    plain = json.loads(services.run("models", "show", "llama3.2", "--json").stdout)
    assert [each["backend_id"] for each in plain["backends"]] == ["a:1", "b:1"]


def test_a_model_is_shown_with_where_it_is_and_where_it_is_loaded(services):
    response = pb.ListModelsResponse(models=[LLAMA])
    services.answers["ListModels"] = lambda _request, _context: response
    result = services.run("models")
    assert result.stdout.splitlines()[1].split() == [
        *("llama3.2:latest", "abababababab", "2.0", "GiB", "completion", "a:1,", "b:1", "b:1")
    ]
    assert result.stderr == ""


def test_drift_names_the_backend_that_differs_and_what_to_do(services):
    response = pb.ListModelsResponse(models=[pb.Model(name="m:latest", digest="c", drifted=True)])
    health = pb.GetHealthResponse(
        backends=[
            pb.BackendHealth(backend_id="a:1"),
            pb.BackendHealth(backend_id="b:1", drifted_models=["m:latest"]),
        ]
    )
    services.answers["ListModels"] = lambda _request, _context: response
    services.answers["GetHealth"] = lambda _request, _context: health
    result = services.run("models")
    assert "c, drifted" in result.stdout
    assert result.stderr == (
        "b:1 has another digest of m:latest than most backends, or than it has in memory; "
        "`pannier models pull m:latest --backend b:1` replaces it by the registry's\n"
    )


@pytest.mark.parametrize(
    ("seconds", "told"), [(3, "loaded in 3.00 s."), (0, "there already.")], ids=["cold", "warm"]
)
def test_a_load_says_where_and_how_long(services, seconds, told):
    received = []

    def answer(request, _context):
        received.append((request.model, request.backend_id))
        return pb.PreloadModelResponse(backend_id="b:1", load=Duration(seconds=seconds))

    services.answers["PreloadModel"] = answer
    result = services.run("models", "load", "llama3.2", "--backend", "b:1")
    assert received == [("llama3.2", "b:1")]
    assert (result.stdout, result.stderr) == (f"llama3.2 is in the memory of b:1: {told}\n", "")


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (pb.UnloadModelResponse(backend_ids=["a:1", "b:1"]), "Unloaded m from a:1, b:1.\n"),
        (
            pb.UnloadModelResponse(busy_backend_ids=["a:1"]),
            "Busy with m, which they unload when idle: a:1.\n",
        ),
        (pb.UnloadModelResponse(), "m was not in memory.\n"),
    ],
    ids=["idle", "busy", "not loaded"],
)
def test_an_unload_says_who_has_and_who_will(services, response, told):
    services.answers["UnloadModel"] = lambda _request, _context: response
    assert services.run("models", "unload", "m").stdout == told


def test_a_download_says_what_is_where_at_its_end(services):
    received = []

    def answer(request, _context):
        received.append((request.model, request.backend_id))
        yield from pull_events("b:1", "a:1")

    services.answers["PullModel"] = answer
    result = services.run("models", "pull", "llama3.2")
    assert result.exit_code == 0
    assert received == [("llama3.2", "")]
    assert result.stdout == (
        "a:1 has llama3.2 · digest abababababab · 2.0 KiB\n"
        "b:1 has llama3.2 · digest abababababab · 2.0 KiB\n"
    )
    assert result.stderr == ""
    document = json.loads(services.run("models", "pull", "llama3.2", "--json").stdout)
    assert document[0] == {"backend_id": "a:1", "model_digest": "ab" * 32, "size_bytes": 2048}


def test_a_download_that_fails_on_one_backend_says_where_it_is_done(services, refuse):
    def answer(_request, context):
        yield pull_events("a:1")[-1]
        refuse(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            "MODEL_PULL_FAILED",
            "b:1 could not download m: no space left",
        )

    services.answers["PullModel"] = answer
    result = services.run("models", "pull", "m")
    assert result.exit_code == 1
    assert result.stdout.startswith("a:1 has m")
    assert "b:1 could not download m: no space left" in result.stderr


def test_a_download_that_ends_without_its_end_is_a_failure(services):
    services.answers["PullModel"] = lambda _request, _context: iter(pull_events("a:1")[:1])
    result = services.run("models", "pull", "m")
    assert result.exit_code == 1
    assert "ended before it was complete" in result.stderr


def test_ctrl_c_ends_the_download(services):
    def hang(_request, context):
        context.add_callback(services.cancelled.set)
        yield pull_events("a:1")[0]
        process.send_signal(signal.SIGINT)
        services.cancelled.wait(20)

    services.answers["PullModel"] = hang
    with services.start("models", "pull", "m") as process:
        try:
            printed, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert services.cancelled.wait(10)
    assert (process.returncode, printed, errors) == (130, "", "interrupted\n")


def test_a_terminal_shows_a_bar_of_bytes_per_backend():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with show_downloads(Output(errors=console)) as progressed:
        progressed("a:1", Download(status="pulling x", parts={"x": (1024, 2048)}))
        progressed("b:1", Download(status="[red]\x1b[2Jmanifest"))
    last = screen.getvalue()
    assert "a:1" in last
    assert "1.0/2.0 KiB" in last
    assert "[red][2Jmanifest" in last
    assert "\x1b[2J" not in last


def test_a_model_that_is_not_there_is_named_with_those_that_are(services, refuse):
    services.answers["PreloadModel"] = lambda _request, context: refuse(
        context,
        grpc.StatusCode.NOT_FOUND,
        "MODEL_NOT_FOUND",
        "No backend has the model m. The fleet has llama3.2:latest.",
    )
    result = services.run("models", "load", "m")
    assert result.exit_code == 1
    assert "The fleet has llama3.2:latest." in result.stderr
    assert "`pannier models pull` downloads one." in result.stderr
