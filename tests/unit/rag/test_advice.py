from services.rag.core.advice import advise


def advice(*bottlenecks, cache_is_away=False, idle_seconds=0.0, total_seconds=1.0):
    return advise(
        bottlenecks,
        cache_is_away=cache_is_away,
        idle_seconds=idle_seconds,
        total_seconds=total_seconds,
    )


def test_each_bottleneck_has_its_advice_worst_first():
    first, second = advice("generate", "embed_question")
    assert first.startswith("The model")
    assert second.startswith("Embedding")


def test_the_same_is_advised_once():
    assert len(advice("query_lookup", "semantic_lookup")) == 1


def test_a_stage_without_advice_gets_none():
    assert advice("fuse") == ()


def test_a_cache_that_is_away_is_told_of_though_nothing_is_slow():
    (said,) = advice(cache_is_away=True)
    assert "cache" in said


def test_time_between_the_stages_is_told_of_where_it_is_much():
    assert advice(idle_seconds=0.5)
    assert not advice(idle_seconds=0.2)
    assert not advice(idle_seconds=0.05, total_seconds=0.1)
