from dataclasses import replace

import pytest

from services.balancer.core.requests import (
    GenerationRequest,
    Message,
    Operation,
    OutputFormat,
    Role,
    Routing,
    Sampling,
    Thinking,
    ToolDefinition,
    can_resume,
)

RESUME = Routing(resume=True)
CHAT = GenerationRequest(
    operation=Operation.CHAT,
    model="m",
    messages=(Message(role=Role.USER, content="hi", images=(b"i",)),),
    routing=RESUME,
)
RAW = GenerationRequest(
    operation=Operation.GENERATE, model="m", prompt="p", raw=True, routing=RESUME
)
TOOL = ToolDefinition(name="t", parameters_json_schema="{}")


@pytest.mark.parametrize(
    "request_",
    [
        CHAT,
        RAW,
        replace(RAW, images=(b"i",)),
        replace(CHAT, thinking=Thinking.OFF),
        replace(CHAT, sampling=Sampling(temperature=1.0)),
        replace(CHAT, top_logprob_count=3),
    ],
)
def test_a_plain_answer_can_be_resumed(request_):
    assert can_resume(request_)


@pytest.mark.parametrize(
    "request_",
    [
        replace(CHAT, routing=Routing()),
        replace(CHAT, tools=(TOOL,)),
        replace(CHAT, output_format=OutputFormat()),
        replace(CHAT, sampling=Sampling(temperature=1.1)),
        replace(RAW, raw=False),
        replace(RAW, suffix="s"),
        *(
            replace(CHAT, thinking=level)
            for level in Thinking
            if level not in (Thinking.DEFAULT, Thinking.OFF)
        ),
    ],
)
def test_an_answer_that_has_no_beginning_to_go_on_from_cannot_be_resumed(request_):
    assert not can_resume(request_)
