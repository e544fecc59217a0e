"""What travels with a question within the suite stays there: a backend learns nothing of it."""

import aiohttp
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.identity import TENANT_HEADER, USER_HEADER
from tests.kit.generations import chat, generation, read
from tests.kit.standin import EMBEDDING_MODEL, running_standins

TRACE = "0af7651916cd43dd8448eb211c80319c"
METADATA = (
    ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),
    ("baggage", "mode=deep,query_id=q-4711,user=alice"),
    (TENANT_HEADER, "acme"),
    (USER_HEADER, "alice"),
)
WORDS = ("q-4711", "alice", "acme", "baggage", "x-pannier")


async def recording(url, taken):
    """Runs a server between the balancer and a backend that keeps what passes through."""
    session = aiohttp.ClientSession()

    async def pass_on(request):
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken.append((request.path, headers, body))
        response = web.StreamResponse()
        async with session.request(request.method, url + request.path_qs, data=body) as reply:
            response.set_status(reply.status)
            await response.prepare(request)
            async for part in reply.content.iter_any():
                await response.write(part)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    async def close():
        await runner.cleanup()
        await session.close()

    return f"http://127.0.0.1:{runner.addresses[0][1]}", close


async def test_a_backend_is_sent_the_trace_and_neither_question_tenant_nor_user(run_balancer):
    taken = []
    async with running_standins(1) as (standin,):
        url, close = await recording(standin.url, taken)
        try:
            balancer = await run_balancer(url)
            await read(balancer.stub.Generate(generation(), metadata=METADATA))
            await read(balancer.stub.Chat(chat(), metadata=METADATA))
            request = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a basket"])
            await balancer.stub.Embed(request, metadata=METADATA)
        finally:
            await close()
    work = {"/api/generate", "/api/chat", "/api/embed"}
    traced = {path for path, headers, _ in taken if TRACE in headers.get("traceparent", "")}
    assert traced == work
    for path, headers, body in taken:
        sent = f"{path} {headers} {body!r}".lower()
        assert not [word for word in WORDS if word in sent], sent
    # The balancer itself knows the question.
    spans = [s for s in balancer.spans.named("/Embed") if s.kind.name == "SERVER"]
    assert spans[0].attributes["app.query_id"] == "q-4711"
    assert spans[0].attributes["app.rag.mode"] == "deep"


async def test_a_backend_learns_that_a_trace_is_not_recorded(run_balancer, scripted):
    server = await scripted()
    server.embeds()
    server.stream("/api/generate", b'{"response":"x","done":true}\n')
    balancer = await run_balancer(server.url)
    unrecorded = f"00-{TRACE}-b7ad6b7169203331-00"
    metadata = (("traceparent", unrecorded),)
    await read(balancer.stub.Generate(generation("a", "m"), metadata=metadata))
    request = pb.EmbedRequest(model="m", texts=["text number 1"])
    await balancer.stub.Embed(request, metadata=metadata)
    sent = {each.path: each.headers.get("traceparent") for each in server.requests}
    assert sent["/api/generate"] == sent["/api/embed"] == unrecorded
    assert not [
        each for each in balancer.spans.named("") if f"{each.context.trace_id:032x}" == TRACE
    ]
