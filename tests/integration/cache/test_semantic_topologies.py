"""The semantic layer behind one Redis, Sentinels and a cluster."""

import asyncio

import pytest

from pannier.cache.v1 import semantic_pb2 as pb
from tests.kit.semantic import StartReplica, at_similarity, partition, start_replica, unit, until

__all__ = ["start_replica"]

QUESTION = "How is a forgotten password reset?"


async def test_replicas_keep_in_step(start_replica: StartReplica, any_redis):
    one = await start_replica(any_redis.url)
    other = await start_replica(any_redis.url)
    namespaces = [f"n{number}" for number in range(8)]
    for namespace in namespaces:
        where = partition(namespace=namespace)
        missed = await other.look_up(QUESTION, partition=where)
        assert missed.outcome == pb.SEMANTIC_OUTCOME_MISS
        stored = await one.keep(QUESTION, unit(1), namespace, partition=where)
        assert stored.stored
    # Each partition in a slot of its own, most of them on different nodes.
    await until(lambda: all(other.known(namespace=each) == 1 for each in namespaces))
    for namespace in namespaces:
        where = partition(namespace=namespace)
        found = await other.look_up(QUESTION, partition=where)
        assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
        assert found.match.answer.value == namespace.encode()
    where = partition(namespace="n3")
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_PERSON}
    found = await other.look_up(QUESTION, partition=where)
    assert not (await other.report(found.match.entry_id, partition=where, **wrong)).degraded
    await until(lambda: one.known(namespace="n3") == 0)


async def test_verdicts_are_shared(start_replica: StartReplica, any_redis):
    one = await start_replica(any_redis.url)
    other = await start_replica(any_redis.url)
    await one.keep(QUESTION, unit(1))
    near = at_similarity(unit(1), 0.975)
    found = await other.look_up(QUESTION.lower(), near)
    assert found.outcome == pb.SEMANTIC_OUTCOME_CANDIDATE
    await one.prove(0.975)
    async with asyncio.timeout(10):
        while found.outcome != pb.SEMANTIC_OUTCOME_HIT_SIMILAR:
            await asyncio.sleep(0.02)
            found = await other.look_up(QUESTION.lower(), near)


@pytest.mark.parametrize("count", [300])
async def test_a_late_replica_loads_everything(start_replica: StartReplica, any_redis, count):
    one = await start_replica(any_redis.url)
    for number in range(count):
        await one.keep(f"question number {number}", unit(number))
    late = await start_replica(any_redis.url)
    found = await late.look_up(f"question number {count - 1}")
    assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert late.known() == count
