"""`pannier load`, against services whose answers are written down here."""

import asyncio
import json
import re
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as balancer_pb
from pannier.cache.v1 import semantic_pb2, statistics_pb2
from pannier.commands.load_faults import rule_count
from pannier.commands.load_files import faults_to_ourselves, write_figures
from pannier.rag.v1 import corpus_service_pb2 as corpus_pb
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1 import usage_service_pb2 as usage_pb
from tests.kit.standin import running_standins
from tests.kit.terminal import running_on_terminal

# Wipes a line and the one above it.
UP = "\x1b[1A\x1b[2K"
RUN = ("load", "--rate", "40", "--duration", "1s", "--arrivals", "constant", "--seed", "5")


@pytest.fixture
def ready(services):
    """Services that answer every question, of two tenants that have documents."""
    services.asked = []
    lock = threading.Lock()

    def stream(request, context):
        with lock:
            services.asked.append((dict(context.invocation_metadata()), request.query))
        yield pb.StreamQueryResponse(text_delta="So.")
        yield pb.StreamQueryResponse(
            completed=pb.QueryResponse(answer="So.", origin=pb.ANSWER_ORIGIN_GENERATED)
        )

    def collections(_request, context):
        tenant = dict(context.invocation_metadata())["x-pannier-tenant-id"]
        names = ["standard-library"] if tenant in ("default", "a", "b") else []
        found = [corpus_pb.Collection(name=name, chunk_count=3) for name in names]
        return corpus_pb.ListCollectionsResponse(collections=found)

    services.answers |= {"StreamQuery": stream, "ListCollections": collections}
    return services


def figures(result):
    return json.loads(result.stdout)


def test_questions_are_asked_by_the_schedule_and_counted(ready):
    result = ready.run(*RUN, "--json", "-", "--repeat-ratio", "0.5")
    document = figures(result)
    assert result.exit_code == 0, result.output
    total = document["total"]
    assert (total["offered"], total["sent"], total["answered"]) == (40, 40, 40)
    assert len(ready.asked) == 40
    assert sum(document["kinds"].values()) == 40
    assert document["kinds"]["repeat"] > 5
    assert total["first_text_seconds"]["count"] == 40
    assert total["late_seconds"]["p99"] is not None
    # More than planned only where the machine could not keep up.
    assert 1.0 <= document["elapsed_seconds"] < 2.0


def test_the_same_seed_asks_the_same_questions(ready):
    runs = []
    for _ in range(2):
        ready.asked.clear()
        ready.run(*RUN, "--mode", "rag=3,direct=1", "--tenant", "a=1,b=1")
        runs.append(sorted((each.query, each.mode) for _, each in ready.asked))
    assert runs[0] == runs[1]


def test_modes_and_tenants_travel_with_each_question(ready):
    ready.run(*RUN, "--mode", "rag=1,direct=1", "--tenant", "a=3,b=1", "--cache", "bypass")
    tenants = {metadata["x-pannier-tenant-id"] for metadata, _ in ready.asked}
    modes = {query.mode: query.collection for _, query in ready.asked}
    assert tenants == {"a", "b"}
    assert modes == {pb.QUERY_MODE_RAG: "standard-library", pb.QUERY_MODE_DIRECT: ""}
    assert {query.cache_policy for _, query in ready.asked} == {pb.CACHE_POLICY_BYPASS}


def test_unary_answers_are_counted_as_well(ready):
    ready.answers["Query"] = lambda _request, _context: pb.QueryResponse(
        answer="So.",
        origin=pb.ANSWER_ORIGIN_CACHED,
        degradations=[pb.Degradation(reason=pb.DEGRADATION_REASON_RERANK_UNAVAILABLE)],
    )
    total = figures(ready.run(*RUN, "--unary", "--json", "-"))["total"]
    assert (total["answered"], total["cached_ratio"], total["degraded_ratio"]) == (40, 1.0, 1.0)


def test_failures_are_counted_by_reason_and_conditions_decide_the_exit_status(ready, refuse):
    ready.answers["StreamQuery"] = lambda _request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED", "No."
    )
    assert ready.run(*RUN, "--fail-if", "errors>100%").exit_code == 0
    result = ready.run(*RUN, "--fail-if", "errors>1%", "--fail-if", "p95>2s")
    assert result.exit_code == 1
    assert "errors>1%: it is 1" in result.stderr
    assert "p95>2s: there is no figure" in result.stderr
    assert "ALL_ATTEMPTS_FAILED     40" in result.stdout


def test_an_answer_without_its_end_is_a_failure(ready):
    ready.answers["StreamQuery"] = lambda _request, _context: iter(
        [pb.StreamQueryResponse(text_delta="So")]
    )
    assert figures(ready.run(*RUN, "--json", "-"))["errors"] == {"ANSWER_INCOMPLETE": 40}


def test_a_slow_service_does_not_slow_the_questions_down(ready):
    def slow(_request, _context):
        time.sleep(0.5)
        yield pb.StreamQueryResponse(completed=pb.QueryResponse(answer="So."))

    # Four threads serve: the eightieth question waits ten seconds, and that shows.
    ready.answers["StreamQuery"] = slow
    total = figures(ready.run(*RUN, "--json", "-"))["total"]
    # Who waited for answers before asking again would be late by as much as those take.
    assert total["late_seconds"]["p99"] < total["whole_seconds"]["maximum"] / 2
    assert total["whole_seconds"]["maximum"] > 3


def test_more_under_way_than_allowed_is_refused_and_counted(ready):
    def slow(_request, _context):
        time.sleep(0.3)
        yield pb.StreamQueryResponse(completed=pb.QueryResponse(answer="So."))

    ready.answers["StreamQuery"] = slow
    document = figures(ready.run(*RUN, "--max-in-flight", "2", "--json", "-"))
    assert document["most_in_flight"] == 2
    assert document["total"]["refused"] == 40 - document["total"]["sent"] > 20


def test_a_tenant_without_documents_is_said_before_anything_is_asked(ready):
    result = ready.run(*RUN, "--tenant", "a,stranger")
    assert result.exit_code == 2
    assert "tenant stranger has no documents in collection standard-library" in result.stderr
    assert ready.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mode", "fast"),
        ("--mode", "rag=x"),
        ("--tenant", "a=0"),
        ("--stage", "5"),
        ("--stage", "a-b:3s"),
        ("--stage", "1e9:1s"),
        ("--tenant", "é"),
        ("--tenant", "a\nb"),
        ("--json", "/does/not/exist/figures.json"),
        ("--json", "/"),
        ("--stage", "1:3s", "--rate", "4"),
        ("--fail-if", "p95>2"),
        ("--repeat-ratio", "0.7", "--paraphrase-ratio", "0.7"),
        ("--questions", "/does/not/exist"),
        ("--scenario", "no-such-scenario"),
        ("--scenario", "backend-down", "--rate", "3"),
        ("--scenario", "backend-down", "--time-scale", "2", "--duration", "3s"),
        ("--time-scale", "2"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_call(ready, arguments):
    assert ready.run("load", *arguments).exit_code == 2
    assert ready.deadlines == []


def test_stages_follow_each_other(ready):
    stages = ("--stage", "0-40:1s", "--stage", "20:500ms", "--arrivals", "constant")
    document = figures(ready.run("load", *stages, "--json", "-"))
    assert document["total"]["offered"] == 30
    assert [each["end_rate"] for each in document["phases"]] == [40, 20]


def test_figures_go_to_a_file_beside_the_summary(ready, tmp_path):
    path = tmp_path / "figures.json"
    result = ready.run(*RUN, "--json", str(path))
    assert json.loads(path.read_text())["total"]["answered"] == 40
    assert "40 answered" in result.stdout
    assert "seed 5" in result.stdout


def test_scenarios_are_listed_and_shown(ready):
    listed = ready.run("load", "--list-scenarios").stdout
    assert "NoHealthyBackend" in listed
    shown = ready.run("load", "--show-scenario", "high-daily-cost").stdout
    assert "needs PANNIER_RAG_PRICES" in shown
    assert ready.deadlines == []


def run_scenario(ready, tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\nabout = "x"\n{text}')
    addresses = ("--balancer-address", ready.address, "--cache-address", ready.address)
    return ready.run("load", "--scenario", str(path), *addresses)


PHASE = '[[phases]]\nname = "p"\nduration = "1s"\nrate = 5\n'


def test_what_a_scenario_needs_and_does_not_find_is_said(ready, tmp_path):
    ready.answers["GetUsage"] = lambda _request, _context: usage_pb.GetUsageResponse()
    ready.answers["GetStats"] = lambda _request, _context: statistics_pb2.GetStatsResponse(
        layers=[
            statistics_pb2.LayerStats(
                layer=statistics_pb2.LAYER_INFERENCE, local_limit_bytes=64 * 1024 * 1024
            )
        ]
    )
    ready.answers["ListModels"] = lambda _request, _context: balancer_pb.ListModelsResponse()
    result = run_scenario(
        ready,
        tmp_path,
        '[settings]\nPANNIER_RAG_PRICES = "*=1/1"\n[needs]\nprices = true\n'
        f'cache_limit_bytes = 1000\n{PHASE}model = "toolsmith"\n'
        'faults = [{ kind = "pause", process = "redis" }]\n',
    )
    assert result.exit_code == 2
    for expected in (
        "redis is to be stopped, but is no process of the stack",
        "rag has no prices, so that nothing costs anything; it wants PANNIER_RAG_PRICES='*=1/1'",
        "the cache has too much room to be filled (inference 64.0 MiB; at most 1000 B)",
        "no backend has the model toolsmith",
    ):
        assert expected in result.stderr
    assert ready.asked == []


def test_backends_that_cannot_be_told_to_fail_are_named(ready, tmp_path):
    ready.answers["GetStats"] = lambda _request, _context: balancer_pb.GetStatsResponse(
        backends=[balancer_pb.BackendStats(backend_id="127.0.0.1:1")]
    )
    result = run_scenario(ready, tmp_path, PHASE + 'faults = [{ kind = "hang" }]\n')
    assert result.exit_code == 2
    assert "backend 127.0.0.1:1 is no stand-in" in result.stderr
    assert ready.asked == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_a_summary_and_no_traceback(ready, number):
    begun = threading.Event()

    def hang(_request, context):
        context.add_callback(ready.cancelled.set)
        begun.set()
        yield pb.StreamQueryResponse(text_delta="So")
        ready.cancelled.wait(20)

    ready.answers["StreamQuery"] = hang
    arguments = ("load", "--rate", "20", "--duration", "1h", "--grace", "200ms")
    with ready.start(*arguments) as process:
        try:
            assert begun.wait(20)
            process.send_signal(number)
            shown, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    # Before that it may say that the machine was too busy.
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert "broken off at the end" in shown
    assert "0 answered" in shown
    assert ready.cancelled.wait(10)


@pytest.mark.parametrize("to_file", [False, True])
def test_figures_are_whole_where_a_run_is_broken_off(ready, tmp_path, to_file):
    """Of those under way one is answered within the grace, and the rest is broken off."""
    begun, go_on = threading.Event(), threading.Event()

    def answer(_request, context):
        if begun.is_set():
            context.add_callback(ready.cancelled.set)
            ready.cancelled.wait(20)
            return
        begun.set()
        yield pb.StreamQueryResponse(text_delta="So")
        go_on.wait(20)
        yield pb.StreamQueryResponse(completed=pb.QueryResponse(answer="So."))

    ready.answers["StreamQuery"] = answer
    path = tmp_path / "figures.json"
    arguments = ("load", "--rate", "20", "--duration", "1h", "--grace", "1s", "--seed", "5")
    began = time.monotonic()
    with ready.start(*arguments, "--json", str(path) if to_file else "-") as process:
        try:
            assert begun.wait(20)
            # Once it has sent some more.
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            go_on.set()
            shown, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    took = time.monotonic() - began
    assert process.returncode == 130
    document = json.loads(path.read_text() if to_file else shown)
    assert document["broken_off"] is True
    assert document["planned_seconds"] == 3600
    assert 0.4 < document["elapsed_seconds"] < took
    total = document["total"]
    assert (total["answered"], total["failed"]) == (1, 0)
    assert total["cancelled"] == total["sent"] - 1 > 0
    assert document["most_in_flight"] == total["sent"]
    assert total["whole_seconds"]["count"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_run_that_is_broken_off_takes_back_its_faults_its_document_and_the_lock(
    ready, tmp_path, number
):
    changed, deleted = threading.Event(), []

    def ingest(requests, _context):
        list(requests)
        changed.set()
        yield corpus_pb.IngestDocumentsResponse()

    def delete(request, _context):
        deleted.append(request.collection)
        return corpus_pb.DeleteCollectionResponse()

    ready.answers |= {"IngestDocuments": ingest, "DeleteCollection": delete}
    home = tmp_path / "home"
    home.mkdir()
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\nabout = "x"\n[[phases]]\nname = "p"\nduration = "1h"\nrate = 1\n'
        'document_changes_every = "1h"\nfaults = [{ kind = "hang" }]\n'
    )
    async with running_standins(1) as (standin,):
        arguments = ("load", "--scenario", str(path), "--standin", standin.backend_id)
        with ready.start(*arguments) as process:
            try:
                assert await asyncio.to_thread(changed.wait, 20)
                assert await asyncio.to_thread(rule_count, standin.backend_id) == 1
                with ready.start(*arguments) as second:
                    _, refusal = await asyncio.to_thread(second.communicate, timeout=20)
                process.send_signal(number)
                _, errors = await asyncio.to_thread(process.communicate, timeout=20)
            finally:
                process.kill()
        assert second.returncode == 2
        assert "another `pannier load` orders faults" in refusal
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert await asyncio.to_thread(rule_count, standin.backend_id) == 0
    assert len(deleted) == 1
    with faults_to_ourselves(home):
        pass


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (10, 40), (50, 200), (4, 20)])
def test_the_live_view_keeps_to_its_terminal_and_leaves_the_summary_behind(ready, rows, columns):
    command = ("load", "--rate", "20", "--duration", "1200ms", "--mode", "rag=1,direct=1")
    with running_on_terminal(
        *command, "--address", ready.address, rows=rows, columns=columns
    ) as terminal:
        terminal.wait_for("/s answered")
        assert terminal.wait_for_end() == 0
        # Each frame is wiped line by line for the next; a longer one would have scrolled away.
        ups = re.findall(rf"(?:{re.escape(UP)})+", terminal.shown)
        assert 1 < max(len(each) // len(UP) for each in ups) < rows
        left = terminal.shown.rpartition(UP)[2]
        assert " questions were due in " in left
        assert "/s answered" not in left
        assert terminal.settings == terminal.before


def test_a_service_that_is_not_there_is_said_before_anything_is_asked(ready):
    ready.answers.pop("ListCollections")
    result = ready.run(*RUN, "--mode", "direct")
    assert result.exit_code != 0
    assert ready.asked == []


def test_figures_replace_an_earlier_file_whole_or_leave_it_as_it_is(tmp_path):
    path = tmp_path / "figures.json"
    write_figures(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(TypeError):
        write_figures(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]
    # What is no file is written to, not replaced.
    write_figures(Path("/dev/null"), {"a": 1})
    assert Path("/dev/null").is_char_device()


def test_figures_that_cannot_be_written_in_the_end_are_a_failure_with_all_figures_shown(
    ready, tmp_path
):
    folder = tmp_path / "gone"
    folder.mkdir()
    stream = ready.answers["StreamQuery"]

    def remove_folder(request, context):
        if folder.exists():
            folder.rmdir()
        yield from stream(request, context)

    ready.answers["StreamQuery"] = remove_folder
    result = ready.run(*RUN, "--json", str(folder / "figures.json"))
    assert result.exit_code == 1
    assert "figures could not be written" in result.stderr
    assert "40 answered" in result.stdout


def test_a_second_run_with_faults_of_the_same_stack_is_refused(ready, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with faults_to_ourselves(home):
        faulty = run_scenario(ready, tmp_path, PHASE + 'faults = [{ kind = "hang" }]\n')
        harmless = run_scenario(ready, tmp_path, PHASE)
    assert faulty.exit_code == 2
    assert "another `pannier load` orders faults" in faulty.stderr
    assert harmless.exit_code == 0, harmless.stderr
    with faults_to_ourselves(home):
        pass


def test_answers_that_come_late_do_not_make_the_rate_higher_than_it_was(ready):
    def slow(_request, _context):
        time.sleep(0.5)
        yield pb.StreamQueryResponse(completed=pb.QueryResponse(answer="So."))

    # Four threads serve two in a second each: eight in a second, however long we asked.
    ready.answers["StreamQuery"] = slow
    document = figures(ready.run(*RUN, "--json", "-", "--fail-if", "rate>12/s"))
    assert document["failed"] == []
    assert document["elapsed_seconds"] == pytest.approx(1.0, abs=0.3)
    assert document["answered_within_seconds"] > 4
    assert document["broken_off"] is False


def test_documents_change_and_answers_are_called_wrong_in_places_of_their_own(ready, tmp_path):
    changed, reported, deleted = [], [], []

    def ingest(requests, _context):
        messages = list(requests)
        changed.append((messages[0].options.collection, messages[-1].content.data))
        yield corpus_pb.IngestDocumentsResponse()

    def delete(request, _context):
        deleted.append(request.collection)
        return corpus_pb.DeleteCollectionResponse()

    def report(request, _context):
        reported.append(request)
        return semantic_pb2.ReportOutcomeResponse()

    ready.answers |= {
        "IngestDocuments": ingest,
        "DeleteCollection": delete,
        "StoreSemantic": lambda *_: semantic_pb2.StoreSemanticResponse(stored=True, entry_id="e"),
        "ReportOutcome": report,
    }
    deeds = 'document_changes_every = "100ms"\nwrong_verdicts_every = "100ms"\n'
    result = run_scenario(ready, tmp_path, PHASE.replace('"1s"', '"2s"') + deeds)
    assert result.exit_code == 0, result.output
    collections = {collection for collection, _ in changed}
    assert len(changed) >= 3
    assert len({text for _, text in changed}) == len(changed)
    assert deleted == list(collections)
    assert deleted[0].startswith("pannier-load-")
    assert {each.verdict for each in reported} == {semantic_pb2.MATCH_VERDICT_WRONG}
    assert {each.partition.namespace for each in reported} == collections
    assert all(each.entry_id == "e" for each in reported)


def test_a_collection_that_cannot_be_deleted_is_said(ready, tmp_path, refuse):
    ready.answers |= {
        "IngestDocuments": lambda requests, _context: iter(list(requests)[:0]),
        "DeleteCollection": lambda _request, context: refuse(
            context, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "No."
        ),
    }
    result = run_scenario(ready, tmp_path, PHASE + 'document_changes_every = "300ms"\n')
    assert result.exit_code == 1
    assert "`pannier collections delete pannier-load-" in result.stderr
