# ruff: noqa: RUF001 (full-width digits are what is tested)

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.analysis import (
    MAX_TERM_CHARACTERS,
    analyse_chunks,
    analyse_document,
    analyse_query,
)
from services.rag.core.documents import Chunk, TermFrequencies

# Controls have no place in the store, and spaces stand between terms on their way there.
NEVER_IN_TERMS = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("getHTTPResponse", {"gethttprespons", "get", "http", "respons"}),
        ("max_retry_count", {"max_retry_count", "max", "retri", "count"}),
        ("os.path.join", {"os.path.join", "os", "path", "join"}),
        ("utf-8", {"utf-8", "utf", "8"}),
        ("sha256", {"sha256", "sha", "256"}),
        ("v3.11.2", {"v3.11.2", "v3", "3", "11", "2"}),
        ("__init__", {"init"}),
    ],
)
def test_identifiers_are_kept_whole_and_split(text: str, terms: set[str]) -> None:
    assert terms <= set(analyse_document(text).counts)


@pytest.mark.parametrize("text", ["1,000", "1000", "１０００", "١٠٠٠", "01000"])
def test_numbers_are_written_one_way(text: str) -> None:
    assert analyse_query(text) == ("1000",)


def test_words_meet_in_their_stem_whatever_their_case() -> None:
    assert analyse_query("Connections CONNECTED connecting") == ("connect",)


def test_other_languages_have_their_own_stems() -> None:
    assert analyse_query("Häuser", languages=["de"]) == ("haus",)
    assert analyse_query("maisons", languages=["fr"]) == ("maison",)


def test_a_language_without_stems_keeps_its_words() -> None:
    assert analyse_query("vlastnosti", languages=["sk"]) == ("vlastnosti",)


def test_elided_articles_are_no_part_of_a_word() -> None:
    assert analyse_query("l'eau et dell\u2019acqua", languages=["fr", "it"])[0] == "eau"
    assert "acqua" in analyse_document("dell'acqua", language="").counts
    assert analyse_query("don't o'neill", languages=["en"]) == ("o'neil",)


def test_an_unknown_language_counts_as_english() -> None:
    assert analyse_document("connections", language="").counts == {"connect": 1}
    assert analyse_query("connections", languages=["", "en"]) == ("connect",)


def test_english_words_among_letters_of_another_script_are_stemmed() -> None:
    assert set(analyse_document("настройка connections", language="ru").counts) == {
        "настройк",
        "connect",
    }
    assert "connect" in analyse_document("管理connections", language="zh").counts


def test_a_question_is_stemmed_in_every_language_of_the_collection() -> None:
    question = analyse_query("configurations", languages=["fr", "de", "en"])
    for language in ("fr", "de", "en"):
        assert set(analyse_document("configurations", language=language).counts) & set(question)


def test_stop_words_are_those_of_the_question_s_language() -> None:
    languages = ["en", "de"]
    assert analyse_query("Was ist der Auftrieb?", languages=languages) == ("auftrieb",)
    # "die" and "war" say nothing in German only.
    assert {"die", "war"} <= set(analyse_query("Why did they die in the war?", languages=languages))


def test_languages_beyond_the_limit_are_not_considered() -> None:
    first = ["en", "de", "fr", "es"]
    assert analyse_query("nations", languages=[*first, "it"]) == analyse_query(
        "nations", languages=first
    )


def test_scripts_without_spaces_become_bigrams() -> None:
    assert analyse_query("机器学习") == ("机器", "器学", "学习")
    assert "ไท" in analyse_query("ภาษาไทย")
    assert analyse_query("学") == ("学",)
    assert {"python", "语言"} <= set(analyse_query("Python语言"))


def test_scripts_with_combining_vowels_keep_whole_words() -> None:
    assert analyse_query("हिन्दी में") == ("हिन्दी", "में")


def test_stop_words_go_from_questions_only() -> None:
    assert analyse_query("What is the timeout of it?") == ("timeout",)
    assert "the" in analyse_document("the timeout").counts


def test_a_question_of_stop_words_keeps_them() -> None:
    assert analyse_query("to be or not to be") == ("to", "be", "or", "not")


def test_lone_latin_letters_are_dropped_but_digits_are_not() -> None:
    assert analyse_query("x 7 y") == ("7",)


def test_invisible_and_bidirectional_controls_vanish_inside_words() -> None:
    assert analyse_query("pass\u200bword \u202eevil\u202c") == ("password", "evil")


def test_question_terms_are_distinct_and_in_order() -> None:
    assert analyse_query("beta alpha beta alpha") == ("beta", "alpha")


def test_length_is_the_sum_of_the_counts() -> None:
    analysed = analyse_document("retry the retry of retries")
    assert analysed.counts["retri"] == 3
    assert analysed.length == sum(analysed.counts.values()) == 5


@given(st.text())
def test_terms_suit_the_store(text: str) -> None:
    for term in analyse_document(text).counts:
        assert 0 < len(term) <= MAX_TERM_CHARACTERS + 8  # a stem may grow by a letter or so
        assert not {unicodedata.category(character) for character in term} & NEVER_IN_TERMS


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_every_question_term_is_a_document_term(text: str) -> None:
    assert set(analyse_query(text)) <= set(analyse_document(text).counts)


@given(
    st.text(alphabet=st.characters(codec="utf-8")),
    st.lists(st.sampled_from(["", "en", "de", "ru", "zh", "sk", "tr", "xx"]), max_size=6),
)
def test_every_term_of_a_question_is_one_of_a_document_in_one_of_the_languages(
    text: str, languages: list[str]
) -> None:
    terms = set()
    for language in languages or [""]:
        terms |= set(analyse_document(text, language=language).counts)
    assert set(analyse_query(text, languages=languages)) <= terms


def test_a_chunk_has_the_terms_of_what_it_stands_under_and_of_its_document_s_head() -> None:
    def chunk(ordinal: int, text: str) -> Chunk:
        return Chunk(
            ordinal=ordinal,
            char_start=0,
            char_end=len(text),
            text=text,
            heading_path=(),
            header="Manual",
            token_estimate=9,
            text_digest="00",
        )

    chunks = [chunk(0, "manual of pumps"), chunk(1, "valves"), chunk(2, "pumps")]
    first, *others = analyse_chunks(chunks, language="en", head="manual of pumps")
    assert first == TermFrequencies({"manual": 3, "of": 1, "pump": 1}, 5)
    assert others[0] == TermFrequencies({"valv": 1, "manual": 3, "of": 1, "pump": 1}, 6)
    assert others[1] == TermFrequencies({"pump": 2, "manual": 3, "of": 1}, 6)
