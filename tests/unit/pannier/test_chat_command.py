"""`pannier chat` against a service whose answers are written down here."""

import os
import signal
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from pannier.commands.application import application
from pannier.rag.v1 import conversation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb


def started(conversation_id="c1", *, is_new=True):
    return pb.ChatResponse(
        started=conversation_pb2.ConversationStarted(conversation_id=conversation_id, is_new=is_new)
    )


def told(**event):
    return pb.ChatResponse(answer=pb.StreamQueryResponse(**event))


def completed(text):
    return pb.QueryResponse(
        answer=text,
        origin=pb.ANSWER_ORIGIN_GENERATED,
        passages=[pb.Passage(marker=1, title="Guide", document_id="a.md", text="Llamas\ncarry.")],
        citations=[pb.Citation(marker=1, title="Guide", document_id="a.md", quote="Llamas carry")],
    )


def converse(services, *lines, options=()):
    return CliRunner().invoke(
        application,
        ["chat", "--address", services.address, *options],
        input="".join(f"{line}\n" for line in lines),
    )


@pytest.fixture
def asked(services):
    """The requests that arrived; each question is answered with itself."""
    requests = []

    def answer(request, _context):
        requests.append(request)
        text = f"You said {request.query.query}"
        yield started(is_new=not request.conversation_id)
        yield told(started=pb.QueryStarted())
        yield told(text_delta=text)
        yield told(completed=completed(text))

    services.answers["Chat"] = answer
    return requests


def test_each_line_is_a_question_of_the_same_conversation(services, asked):
    result = converse(services, "one", "", "  two ", options=["-c", "animals", "--model", "m"])
    assert result.exit_code == 0
    assert [each.query.query for each in asked] == ["one", "two"]
    assert [each.conversation_id for each in asked] == ["", "c1"]
    assert {each.query.collection for each in asked} == {"animals"}
    assert {each.query.model for each in asked} == {"m"}
    assert result.stdout.startswith("You said one\n")
    assert "Guide  a.md" in result.stdout
    assert result.stderr == "conversation c1\n"


def test_a_conversation_can_be_gone_on_with_and_begun_anew(services, asked):
    converse(services, "one", "/new", "two", options=["--conversation", "c0"])
    assert [each.conversation_id for each in asked] == ["c0", ""]


def test_quit_leaves_before_the_end(services, asked):
    result = converse(services, "one", "/quit", "two")
    assert result.exit_code == 0
    assert [each.query.query for each in asked] == ["one"]


def test_sources_show_what_the_last_answer_was_made_from(services, asked):
    result = converse(services, "/sources", "one", "/sources")
    assert "There is no answer with sources." in result.stderr
    assert "Llamas carry." in result.stdout


def test_history_shows_all_pages_of_turns(services, asked):
    def page(request, _context):
        turn = conversation_pb2.KeptTurn(number=1, question="one", answer="yes")
        if request.page_token:
            turn = conversation_pb2.KeptTurn(number=2, question="two", answer="n", interrupted=True)
        return conversation_pb2.GetConversationResponse(
            turns=[turn], next_page_token="" if request.page_token else "more"
        )

    services.answers["GetConversation"] = page
    result = converse(services, "/history", "one", "/history")
    assert "Nothing has been said yet." in result.stderr
    assert "1. one\nyes\n2. two\nn … (interrupted)\n" in result.stdout


def test_what_is_no_command_is_explained(services, asked):
    result = converse(services, "/what")
    assert "/history" in result.stderr
    assert not asked


def test_a_failed_answer_is_said_and_the_next_question_taken(services, asked, refuse):
    def answer(request, context):
        yield started()
        if request.query.query == "bad":
            refuse(context, grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", "There is none.")
        yield told(text_delta="fine")
        yield told(completed=completed("fine"))

    services.answers["Chat"] = answer
    result = converse(services, "bad", "good")
    assert result.exit_code == 1
    assert "COLLECTION_NOT_FOUND (rag.pannier): There is none." in result.stderr
    assert result.stdout.startswith("fine\n")


def test_a_stream_that_ends_without_its_end_is_a_failure(services):
    services.answers["Chat"] = lambda _request, _context: iter([started(), told(text_delta="Up")])
    result = converse(services, "one")
    assert result.exit_code == 1
    assert "ended before it was complete" in result.stderr


def test_an_answer_cannot_steer_the_terminal(services):
    stream = [started(), told(text_delta="\x1b[2Jgone"), told(completed=pb.QueryResponse())]
    services.answers["Chat"] = lambda _request, _context: iter(stream)
    assert "\x1b" not in converse(services, "one").stdout


def test_an_unknown_mode_is_refused_before_any_call(services, asked):
    assert converse(services, "one", options=["--mode", "guess"]).exit_code == 2
    assert not asked


def test_ctrl_c_stops_the_answer_and_not_the_program(services):
    def answer(request, context):
        yield started()
        if request.query.query == "long":
            context.add_callback(services.cancelled.set)
            yield told(text_delta="Well")
            services.cancelled.wait(20)
            return
        yield told(text_delta="Fine")
        yield told(completed=completed("Fine"))

    services.answers["Chat"] = answer
    command = [sys.executable, "-m", "pannier.commands.main", "chat", "--address", services.address]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("long\n")
            process.stdin.flush()
            assert process.stdout.read(4) == "Well"
            process.send_signal(signal.SIGINT)
            assert services.cancelled.wait(20)
            output, errors = process.communicate("short\n", timeout=20)
        finally:
            process.kill()
    assert "Fine" in output
    assert "stopped" in errors
    assert "Traceback" not in errors
    assert process.returncode == 1
