"""Answers to questions that mean the same, on two replicas in front of a real Redis."""

import asyncio
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import control_pb2
from pannier.cache.v1 import semantic_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.core import tags as names
from services.cache.core.model import Scope
from services.cache.core.tags import custom_tag
from services.cache.epoch_scripts import READ
from services.cache.ports import Script
from services.cache.semantic_scripts import CATCH_UP
from services.common.errors import InvalidRequest
from tests.kit.redis import RedisServer
from tests.kit.semantic import (
    DIMENSION,
    SemanticReplica,
    StartReplica,
    answer,
    at_similarity,
    entry_of,
    partition,
    start_replica,
    unit,
    until,
)

__all__ = ["start_replica"]

QUESTION = "How is a forgotten password reset?"
PARAPHRASE = "how is a forgotten password reset?"
BASE = unit(1)
NEAR = at_similarity(BASE, 0.975)


@pytest.fixture
async def one(start_replica: StartReplica, redis_server: RedisServer) -> SemanticReplica:
    return await start_replica(redis_server.url)


@pytest.fixture
async def other(start_replica: StartReplica, redis_server: RedisServer) -> SemanticReplica:
    return await start_replica(redis_server.url)


def tags(*, document: str = "", collection: str = "", custom: str = "") -> list[control_pb2.Tag]:
    found = []
    if document:
        tag = control_pb2.DocumentTag(collection="handbook", document_id=document)
        found.append(control_pb2.Tag(document=tag))
    if collection:
        found.append(control_pb2.Tag(collection=collection))
    if custom:
        found.append(control_pb2.Tag(custom=custom))
    return found


def time_of(server: RedisServer) -> int:
    """Returns the server's time, milliseconds."""
    seconds, microseconds = server.command("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


async def test_the_same_words_find_the_answer_without_a_vector(one: SemanticReplica):
    evidence = [pb.Evidence(document_id="d", passage_id="p", content_digest="c")]
    stored = await one.keep(QUESTION, BASE, "click on it", evidence=evidence)
    assert stored.stored
    found = await one.look_up(f"  {QUESTION} ")
    assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert found.match.answer == answer("click on it")
    assert list(found.match.evidence) == evidence
    assert found.match.entry_id == stored.entry_id
    assert found.match.query == QUESTION
    assert found.match.similarity == 1.0
    assert 0 < found.match.remaining.ToSeconds() <= 3600


async def test_what_was_stored_is_found_on_the_other_replica(
    one: SemanticReplica, other: SemanticReplica
):
    assert (await other.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_MISS
    await one.keep(QUESTION, BASE)
    await until(lambda: other.known() == 1)
    assert (await other.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert (other.metric("cache_feed_lag_seconds") or 0) < 5


async def test_a_tenants_first_answer_is_kept_though_an_earlier_reply_comes_last(
    one: SemanticReplica, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    run = one.store.run
    asked, begun = asyncio.Event(), asyncio.Event()

    async def run_in_turn(database: int, script: Script, *rest: Any, **fields: Any) -> object:
        if script is READ:
            await asked.wait()
            earlier_ms = time_of(redis_server)
            while time_of(redis_server) < earlier_ms + 5:
                pass
            reply = await run(database, script, *rest, **fields)
            begun.set()
            return reply
        reply = await run(database, script, *rest, **fields)
        if script is CATCH_UP:
            asked.set()
            await begun.wait()
        return reply

    monkeypatch.setattr(one.store, "run", run_in_turn)
    assert (await one.keep(QUESTION, BASE)).stored


async def test_what_was_stored_before_a_replica_started_is_found(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    for number in range(20):
        await one.keep(f"question number {number}", unit(number))
    late = await start_replica(redis_server.url)
    assert (await late.look_up("question number 7")).match.answer == answer()
    assert late.known() == 20


async def test_a_similar_question_is_a_candidate_until_such_matches_are_proven(
    one: SemanticReplica,
):
    await one.keep(QUESTION, BASE)
    found = await one.look_up(PARAPHRASE, NEAR)
    assert found.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    assert found.match.candidate_reason == pb.CANDIDATE_REASON_UNPROVEN
    assert found.match.similarity == pytest.approx(0.975, abs=1e-6)
    await one.prove(0.975)
    found = await one.look_up(PARAPHRASE, NEAR)
    assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_SIMILAR
    assert found.match.candidate_reason == pb.CANDIDATE_REASON_UNSPECIFIED


async def test_verdicts_count_on_all_replicas(one: SemanticReplica, other: SemanticReplica):
    stored = await one.keep(QUESTION, BASE)
    assert (await other.look_up(PARAPHRASE, NEAR)).outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    async with asyncio.TaskGroup() as group:
        for _ in range(320):
            group.create_task(one.report(stored.entry_id, similarity=0.975))
    async with asyncio.timeout(10):
        while True:
            found = await other.look_up(PARAPHRASE, NEAR)
            if found.outcome == pb.SEMANTIC_OUTCOME_HIT_SIMILAR:
                break
            await asyncio.sleep(0.01)


async def test_passages_found_again_prove_no_answer_to_be_right(one: SemanticReplica):
    stored = await one.keep(QUESTION, BASE)
    for judge, outcome in (
        (pb.MATCH_JUDGE_EVIDENCE, pb.SEMANTIC_OUTCOME_CANDIDATE),
        (pb.MATCH_JUDGE_RECOMPUTATION, pb.SEMANTIC_OUTCOME_HIT_SIMILAR),
    ):
        async with asyncio.TaskGroup() as group:
            for _ in range(320):
                report = one.report(stored.entry_id, similarity=0.975, judge=judge, served=True)
                group.create_task(report)
        async with asyncio.timeout(10):
            # The last of them are told together, in a moment.
            while (await one.look_up(PARAPHRASE, NEAR)).outcome != outcome:
                await asyncio.sleep(0.01)


async def test_of_answers_that_evidence_ruled_out_as_many_count_as_are_verified(
    start_replica: StartReplica, redis_server: RedisServer
):
    draws = iter([0.5, 0.02, 0.5, 0.019])
    replica = await start_replica(
        redis_server.url, policy={"verification_ratio": 0.02}, draw=lambda: next(draws)
    )
    stored = await replica.keep(QUESTION, BASE)
    thresholds = [
        (
            await replica.report(
                stored.entry_id,
                similarity=0.975,
                verdict=pb.MATCH_VERDICT_WRONG,
                judge=pb.MATCH_JUDGE_EVIDENCE,
            )
        ).threshold
        for _ in range(3)
    ]
    verdicts = replica.layer.calibration.verdicts(replica.where().subject)
    assert thresholds[:2] == [0.95, 0.95]
    assert thresholds[2] > 0.95
    assert sum(verdicts.wrong) == 1
    # The answers were not given: none of them was a false hit.
    assert replica.metric("cache_false_hit_upper_bound") == 1
    labels = {"verdict": "wrong", "judge": "evidence"}
    assert replica.metric("cache_verifications_total", **labels) == 3


async def test_too_many_wrong_verdicts_stop_hits_and_raise_the_threshold(one: SemanticReplica):
    stored = await one.keep(QUESTION, BASE)
    await one.prove(0.975)
    assert (await one.look_up(PARAPHRASE, NEAR)).outcome == pb.SEMANTIC_OUTCOME_HIT_SIMILAR
    for _ in range(12):
        reported = await one.report(
            stored.entry_id,
            similarity=0.975,
            verdict=pb.MATCH_VERDICT_WRONG,
            judge=pb.MATCH_JUDGE_EVIDENCE,
        )
    assert reported.threshold == pytest.approx(0.98)
    found = await one.look_up(PARAPHRASE, NEAR)
    assert found.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    assert found.match.candidate_reason == pb.CANDIDATE_REASON_OVER_BUDGET
    assert found.threshold == pytest.approx(0.98)
    await one.prove(0.975, count=2000)
    assert (await one.look_up(PARAPHRASE, NEAR)).outcome == pb.SEMANTIC_OUTCOME_HIT_SIMILAR


async def test_below_the_threshold_nothing_is_given_however_well_proven(one: SemanticReplica):
    question = "How is a forgotten password of a locked account reset?"
    await one.keep(question, BASE)
    await one.prove(0.9499, count=2000)
    below = await one.look_up(question.lower(), at_similarity(BASE, 0.9499))
    assert below.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    assert below.match.candidate_reason == pb.CANDIDATE_REASON_BELOW_THRESHOLD
    assert below.threshold == 0.95
    far = await one.look_up(question.lower(), at_similarity(BASE, 0.79))
    assert far.outcome == pb.SEMANTIC_OUTCOME_MISS


async def test_below_the_threshold_few_shared_words_are_no_match(one: SemanticReplica):
    await one.keep("opening hours?", BASE)
    similar = at_similarity(BASE, 0.9)
    assert (await one.look_up("Opening hours", similar)).outcome == pb.SEMANTIC_OUTCOME_MISS


async def test_a_raised_threshold_leaves_nothing_below_it(one: SemanticReplica):
    await one.keep(QUESTION, BASE)
    raised = await one.look_up(PARAPHRASE, NEAR, min_similarity=0.98)
    assert raised.outcome == pb.SEMANTIC_OUTCOME_MISS
    assert raised.threshold == 0.98
    lowered = await one.look_up(PARAPHRASE, NEAR, min_similarity=0.5)
    assert lowered.threshold == 0.95


async def test_the_threshold_of_a_namespace_holds_in_it_alone(one: SemanticReplica):
    for namespace in ("", "strict"):
        await one.keep(QUESTION, BASE, partition=partition(namespace=namespace))
    await one.epochs.set_threshold("default", "strict", 0.98)
    inside = await one.look_up(PARAPHRASE, NEAR, partition=partition(namespace="strict"))
    assert inside.outcome == pb.SEMANTIC_OUTCOME_MISS
    assert inside.threshold == 0.98
    assert (await one.look_up(PARAPHRASE, NEAR)).outcome == pb.SEMANTIC_OUTCOME_CANDIDATE


async def test_a_second_candidate_is_found_behind_one_that_a_guard_refuses(one: SemanticReplica):
    await one.keep("How many days of leave do 3 years give?", BASE)
    await one.keep("how many days of leave do 5 years give?", at_similarity(BASE, 0.96), "25")
    found = await one.look_up("How many days of leave do 5 years give?", BASE)
    assert found.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    assert found.match.answer == answer("25")
    (rejection,) = found.rejections
    assert rejection.similarity == pytest.approx(1.0)
    assert rejection.guard != pb.SEMANTIC_GUARD_UNSPECIFIED


async def test_questions_about_the_time_are_neither_looked_for_nor_kept(one: SemanticReplica):
    query = "What is the weather today?"
    stored = await one.keep(query, BASE)
    assert not stored.stored
    assert stored.scope == pb.SEMANTIC_SCOPE_TIME_RELATIVE
    found = await one.look_up(query, BASE)
    assert found.outcome == pb.SEMANTIC_OUTCOME_BYPASSED
    assert found.scope == pb.SEMANTIC_SCOPE_TIME_RELATIVE
    assert one.known() == 0


async def test_a_caller_may_bypass_the_cache(one: SemanticReplica):
    await one.keep(QUESTION, BASE)
    found = await one.look_up(QUESTION, control=control_pb2.LookupControl(bypass=True))
    assert found.outcome == pb.SEMANTIC_OUTCOME_BYPASSED
    assert found.scope == pb.SEMANTIC_SCOPE_UNSPECIFIED


async def test_a_caller_may_refuse_old_answers(one: SemanticReplica):
    before = await one.look_up(QUESTION)
    await asyncio.sleep(0.02)
    await one.keep(QUESTION, BASE)
    newer = control_pb2.LookupControl(min_create_time=before.read_time)
    assert (await one.look_up(QUESTION, control=newer)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    after = Timestamp(seconds=before.read_time.seconds + 60)
    older = control_pb2.LookupControl(min_create_time=after)
    assert (await one.look_up(QUESTION, control=older)).outcome == pb.SEMANTIC_OUTCOME_MISS
    assert (await one.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


async def test_an_answer_ends_with_its_time(one: SemanticReplica, other: SemanticReplica):
    # Long enough for the other replica to see it on a busy machine.
    short = control_pb2.StoreControl(ttl=Duration(seconds=2))
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await one.keep(QUESTION, BASE, control=short)
    kept_at = loop.time()
    assert (await other.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    for replica in (one, other):
        while True:
            asked_at = loop.time()
            found = await replica.look_up(QUESTION, BASE)
            if found.outcome == pb.SEMANTIC_OUTCOME_MISS:
                break
            assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
            # The clocks of store and replica are in step within less.
            assert asked_at < kept_at + 2.2
            await asyncio.sleep(0.02)
        # Times to live are shortened by up to a tenth, so that values do not end all at once.
        assert loop.time() >= began_at + 1.8


async def test_the_same_question_has_one_answer_the_newest(
    one: SemanticReplica, other: SemanticReplica
):
    first = await one.keep(QUESTION, BASE, "old")
    await other.look_up(QUESTION)
    second = await other.keep(QUESTION, BASE, "new")
    assert first.entry_id != second.entry_id
    await until(lambda: (one.layer.feed.partition(one.where().name).sequence) == 2)
    for replica in (one, other):
        assert (await replica.look_up(QUESTION)).match.answer == answer("new")
        assert replica.known() == 1


@pytest.mark.parametrize(
    ("difference", "tenant"),
    [
        ({}, "another"),
        ({"access_fingerprint": "admins"}, "default"),
        ({"configuration_fingerprint": "k=8"}, "default"),
        ({"namespace": "legal"}, "default"),
        ({"language": "de"}, "default"),
        ({"model_digest": "a" * 64}, "default"),
        ({"embedding_model_digest": "b" * 64}, "default"),
    ],
)
async def test_partitions_share_nothing(one: SemanticReplica, difference, tenant):
    await one.keep(QUESTION, BASE)
    found = await one.look_up(QUESTION, BASE, tenant=tenant, partition=partition(**difference))
    assert found.outcome == pb.SEMANTIC_OUTCOME_MISS
    assert not found.rejections


async def test_digests_are_the_same_in_either_case(one: SemanticReplica):
    await one.keep(QUESTION, BASE, partition=partition(model_digest="ab" * 32))
    found = await one.look_up(QUESTION, partition=partition(model_digest="AB" * 32))
    assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


@pytest.mark.parametrize(
    "field_name",
    ["everything", "namespace", "model", "embedder", "document", "collection", "custom"],
)
async def test_invalidated_answers_are_found_on_no_replica(
    one: SemanticReplica, other: SemanticReplica, field_name: str
):
    field = {
        "everything": names.EVERYTHING,
        "namespace": names.namespace_field("legal"),
        "model": names.model_field("a" * 64),
        "embedder": names.model_field("0123456789abcdef" * 4),
        "document": names.document_tag("handbook", "d1"),
        "collection": names.collection_tag("handbook"),
        "custom": names.custom_tag("release"),
    }[field_name]
    where = {"partition": partition(namespace="legal", model_digest="a" * 64)}
    control = control_pb2.StoreControl(tags=tags(document="d1", custom="release"))
    await one.keep(QUESTION, BASE, control=control, **where)
    for replica in (one, other):
        found = await replica.look_up(QUESTION, **where)
        assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    bump = await one.epochs.bump("default", [field])
    await until(lambda: other.epochs.invalidated_at("default", field) == bump.epoch_ms)
    for replica in (one, other):
        for components in (None, BASE):
            found = await replica.look_up(QUESTION, components, **where)
            assert found.outcome == pb.SEMANTIC_OUTCOME_MISS


async def test_an_answer_that_rests_on_what_was_invalidated_meanwhile_is_not_kept(
    one: SemanticReplica,
):
    missed = await one.look_up(QUESTION)
    await asyncio.sleep(0.01)
    await one.epochs.bump("default", [names.collection_tag("handbook")])
    control = control_pb2.StoreControl(
        tags=tags(collection="handbook"), basis_time=missed.read_time
    )
    stored = await one.keep(QUESTION, BASE, control=control)
    assert not stored.stored
    assert not stored.degraded
    assert (await one.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_MISS


async def test_an_answer_from_before_a_collection_grew_is_a_candidate(one: SemanticReplica):
    assert (await one.keep(QUESTION, BASE)).stored
    await asyncio.sleep(0.02)
    await one.epochs.bump("default", [names.grown_field("handbook")])
    found = await one.look_up(QUESTION, collections=["handbook"])
    assert found.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    assert found.match.candidate_reason == pb.CANDIDATE_REASON_COLLECTION_CHANGED
    assert found.match.similarity == 1.0
    assert (await one.look_up(QUESTION, collections=["wiki"])).outcome == (
        pb.SEMANTIC_OUTCOME_HIT_EXACT
    )


async def test_what_is_held_says_what_it_depends_on(one: SemanticReplica):
    where = partition(namespace="legal", model_digest="A" * 64)
    control = control_pb2.StoreControl(tags=tags(custom="release"))
    await one.keep(QUESTION, BASE, partition=where, control=control)
    (held,) = one.layer.held()
    assert held.scope == Scope("default", "legal", "a" * 64)
    assert held.tags == (custom_tag("release"),)


async def test_a_wrong_entry_is_gone_everywhere_at_once(
    one: SemanticReplica, other: SemanticReplica
):
    stored = await one.keep(QUESTION, BASE)
    assert (await other.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_PERSON}
    reported = await other.report(stored.entry_id, **wrong)
    assert not reported.degraded
    assert (await other.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_MISS
    await until(lambda: one.known() == 0)
    assert (await one.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_MISS


async def test_a_report_on_an_earlier_answer_leaves_the_newer_one(one: SemanticReplica):
    first = await one.keep(QUESTION, BASE, "old")
    await one.keep(QUESTION, BASE, "new")
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_RECOMPUTATION}
    await one.report(first.entry_id, **wrong)
    assert (await one.look_up(QUESTION)).match.answer == answer("new")


async def test_missing_evidence_does_not_make_an_entry_wrong(one: SemanticReplica):
    stored = await one.keep(QUESTION, BASE)
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_EVIDENCE}
    await one.report(stored.entry_id, **wrong)
    assert (await one.look_up(QUESTION)).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


async def test_verdicts_on_the_same_words_prove_nothing(one: SemanticReplica):
    stored = await one.keep(QUESTION, BASE)
    async with asyncio.TaskGroup() as group:
        for _ in range(320):
            group.create_task(one.report(stored.entry_id, similarity=1.0))
    almost = at_similarity(BASE, 0.9999)
    assert (await one.look_up(PARAPHRASE, almost)).outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    labels = {"verdict": "right", "judge": "recomputation"}
    assert one.metric("cache_verifications_total", **labels) == 0


async def test_hits_save_what_the_answer_has_cost(one: SemanticReplica):
    stored = await one.keep(
        QUESTION,
        BASE,
        usage=generation_pb2.TokenUsage(prompt_token_count=100, completion_token_count=20),
        generation_time=Duration(seconds=3),
    )
    await one.look_up(QUESTION)
    assert one.metric("cache_saved_tokens_total", kind="prompt") == 100
    assert one.metric("cache_saved_seconds_total") == 3
    await one.look_up(PARAPHRASE, NEAR)
    assert one.metric("cache_saved_tokens_total", kind="prompt") == 100
    await one.report(stored.entry_id, served=True, mode="rag")
    assert one.metric("cache_saved_tokens_total", kind="prompt") == 200
    assert one.metric("cache_hits_total", layer="semantic", level="confirmed") == 1


async def test_verification_is_asked_of_a_share_of_similar_matches(
    start_replica: StartReplica, redis_server: RedisServer
):
    draws = iter([0.5, 0.5, 0.02, 0.019])
    replica = await start_replica(
        redis_server.url, policy={"verification_ratio": 0.02}, draw=lambda: next(draws)
    )
    await replica.keep(QUESTION, BASE)
    wanted = [(await replica.look_up(PARAPHRASE, NEAR)).match.verification_wanted for _ in range(3)]
    assert wanted == [False, False, True]
    # The same words need none: there is nothing left to draw.
    assert not (await replica.look_up(QUESTION)).match.verification_wanted


async def test_the_oldest_entries_make_room(start_replica: StartReplica, redis_server: RedisServer):
    one = await start_replica(redis_server.url, tenant_entry_limit=3)
    other = await start_replica(redis_server.url, tenant_entry_limit=3)
    for number in range(5):
        await one.keep(f"question number {number}", unit(number))
        await asyncio.sleep(0.005)
    assert one.known() == 3
    found = [await one.look_up(f"question number {number}") for number in range(5)]
    hit, miss = pb.SEMANTIC_OUTCOME_HIT_EXACT, pb.SEMANTIC_OUTCOME_MISS
    assert [each.outcome for each in found] == [miss, miss, hit, hit, hit]
    assert (await other.look_up("question number 0")).outcome == miss
    assert other.known() == 3
    stored = await one.store.read_map(1, one.where().name.entries_key, timeout_seconds=1)
    assert len([name for name in stored if not name.startswith(b"#")]) == 3


async def test_partitions_make_room_for_those_in_use(
    start_replica: StartReplica, redis_server: RedisServer
):
    one = await start_replica(redis_server.url, memory_limit_bytes=15_000)
    for number in range(30):
        where = partition(namespace=f"n{number % 5}")
        assert (await one.keep(f"question {number}", unit(number), partition=where)).stored
        assert (one.metric("cache_semantic_memory_bytes") or 0) <= 15_000
    assert (one.metric("cache_semantic_partitions") or 0) < 5
    for number in range(30):
        where = partition(namespace=f"n{number % 5}")
        found = await one.look_up(f"question {number}", partition=where)
        assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


async def test_a_partition_larger_than_memory_keeps_its_newest(
    start_replica: StartReplica, redis_server: RedisServer
):
    one = await start_replica(redis_server.url)
    for number in range(40):
        await one.keep(f"question {number}", unit(number))
        await asyncio.sleep(0.002)
    small = await start_replica(redis_server.url, memory_limit_bytes=20_000)
    assert (await small.look_up("question 39")).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert (await small.look_up("question 0")).outcome == pb.SEMANTIC_OUTCOME_MISS
    await one.keep("question 40", unit(40))
    await until(lambda: small.layer.feed.partition(small.where().name).sequence == 41)
    assert (await small.look_up("question 40")).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert (small.metric("cache_semantic_memory_bytes") or 0) <= 20_000
    assert (await one.look_up("question 0")).outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


async def test_other_dimensions_are_refused(one: SemanticReplica, other: SemanticReplica):
    await one.keep(QUESTION, BASE)
    longer = unit(1, DIMENSION + 1)
    for replica in (one, other):
        with pytest.raises(InvalidRequest, match=r"vector\.dimension"):
            await replica.keep("another question", longer)
        with pytest.raises(InvalidRequest, match=r"vector\.dimension"):
            await replica.look_up("another question", longer)
    assert one.known() == 1
    assert not await one.store.read_map(1, b"unused", timeout_seconds=1)


async def test_two_replicas_cannot_begin_a_partition_with_two_dimensions(
    one: SemanticReplica, other: SemanticReplica
):
    await one.look_up(QUESTION)
    await other.look_up(QUESTION)
    results = await asyncio.wait_for(
        asyncio.create_task(
            _both(one.keep("q one", BASE), other.keep("q two", unit(2, DIMENSION * 2)))
        ),
        10,
    )
    refused = [each for each in results if isinstance(each, InvalidRequest)]
    assert len(refused) == 1


async def _both(*calls):
    results = []

    async def take(call):
        try:
            results.append(await call)
        except Exception as error:  # noqa: BLE001
            results.append(error)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(take(call))
    return results


async def test_concurrent_callers_load_a_partition_once(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    for number in range(50):
        await one.keep(f"question number {number}", unit(number))
    late = await start_replica(redis_server.url)
    before = redis_server.command("INFO", "commandstats")
    async with asyncio.TaskGroup() as group:
        found = [group.create_task(late.look_up(f"question number {n}")) for n in range(50)]
    after = redis_server.command("INFO", "commandstats")
    assert all(each.result().outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT for each in found)
    assert _calls(after, "hscan") - _calls(before, "hscan") <= 3


def _calls(statistics: str, command: str) -> int:
    for line in statistics.splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


async def test_similar_questions_of_many_are_found_off_the_loop(one: SemanticReplica):
    where = one.where()
    rng = np.random.default_rng(5)
    feed = one.layer.feed
    await one.look_up(QUESTION)
    base = rng.standard_normal((2500, DIMENSION))
    for number, components in enumerate(base[:20]):
        await one.keep(f"question number {number}", components)
    # The rest in memory only: what matters here is how many there are.
    for number, components in enumerate(base[20:]):
        unit_of = (components / np.linalg.norm(components)).astype(np.float32)
        feed.partition(where.name).put(entry_of(f"filler {number}"), unit_of)
    near = at_similarity(base[7] / np.linalg.norm(base[7]), 0.97)
    found = await one.look_up("Question number 7", near)
    assert found.match.query == "question number 7"
