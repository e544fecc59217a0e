"""What the stand-in answers."""

import re

from services.standin.core.extract import NO_ANSWER, NO_MODEL, answer
from services.standin.core.sources import find_question, find_sources, split_sentences

JSON_TEXT = """The json module encodes Python objects as JSON text. It was added in version 2.6.

To write an object to an open file, call
json.dump with the object and the file.

    >>> json.dump({"encode": [object]}, file)
"""
PICKLE_TEXT = "The pickle module serialises objects as bytes. Unpickling untrusted data is unsafe."


def prompt(question, *texts, titles=("json", "pickle")):
    blocks = [
        f'<source id="{number}" title="{title}">\n{text}\n</source>'
        for number, (title, text) in enumerate(zip(titles, texts, strict=False), 1)
    ]
    return "Answer from the sources only.\n\n" + "\n".join(blocks) + f"\n\nQuestion: {question}"


def test_the_best_sentence_comes_first_with_the_marker_of_its_source():
    text = answer(prompt("How do I encode objects as JSON?", JSON_TEXT, PICKLE_TEXT))
    assert text.startswith("The json module encodes Python objects as JSON text [1].")


def test_each_sentence_cites_the_source_that_it_comes_from():
    text = answer(prompt("Is unpickling untrusted data unsafe?", JSON_TEXT, PICKLE_TEXT))
    assert text.startswith("Unpickling untrusted data is unsafe [2].")


def test_an_answer_has_at_most_four_sentences():
    things = "files folders sockets pipes queues streams"
    text = " ".join(f"This class reads {thing} for you." for thing in things.split())
    assert len(re.findall(r"\[1\]", answer(prompt(f"How to read {things}?", text)))) == 4


def test_a_second_sentence_is_added_if_it_matches_too():
    text = answer(prompt("How do I encode objects as JSON?", JSON_TEXT, PICKLE_TEXT))
    assert len(re.findall(r"\[\d\]", text)) >= 2


def test_a_sentence_may_span_lines():
    text = answer(prompt("How do I write an object to an open file?", JSON_TEXT))
    assert "call json.dump with the object and the file [1]." in text


def test_prose_is_preferred_to_code():
    text = "if (socket.timeout > limit) { socket.close(); }\n\nA socket may have a timeout limit."
    assert answer(prompt("socket timeout limit", text)).startswith("A socket may have")


def test_a_title_decides_between_equal_sentences():
    text = "The function returns the size of the buffer."
    asked = prompt(
        "What does the buffer function of zlib return?",
        "This function returns the size of the buffer.",
        text,
        titles=("socket", "zlib"),
    )
    assert answer(asked).startswith("The function returns the size of the buffer [2].")


def test_an_overlong_sentence_is_cut_at_a_word():
    sentence = answer(prompt("Which words?", "words " * 200))
    assert len(sentence) < 410
    assert sentence.endswith("words [1].")


def test_sources_that_do_not_match_give_no_answer():
    assert answer(prompt("Who won the football match?", JSON_TEXT, PICKLE_TEXT)) == NO_ANSWER


def test_sources_in_the_system_text_count():
    system, _, question = prompt("Is unpickling unsafe?", "", PICKLE_TEXT).rpartition("\n\n")
    assert "[2]" in answer(question, system)


def test_without_sources_the_prompt_itself_is_the_source():
    text = "Paris is the capital of France. Rome is the capital of Italy. Capital of Italy?"
    assert answer(text).startswith("Rome is the capital of Italy.")


def test_without_anything_to_extract_it_says_what_it_is():
    assert answer("Hello!", "You are a helpful assistant. Answer all questions.") == NO_MODEL
    assert answer("") == NO_MODEL
    assert answer("What is the meaning of life?") == NO_MODEL


def test_the_same_prompt_always_gets_the_same_answer():
    asked = prompt("How are objects serialised?", JSON_TEXT, PICKLE_TEXT)
    assert len({answer(asked) for _ in range(5)}) == 1


def test_a_question_inside_a_source_is_not_the_question():
    asked = prompt("Is unpickling unsafe?", "Question: what is this?\n\nText.", PICKLE_TEXT)
    assert find_question(asked) == "Is unpickling unsafe?"


def test_source_attributes_are_read_in_any_order_and_unescaped():
    [source] = find_sources('<source title="a &amp; b" score="0.5" id="7">text</source>')
    assert (source.marker, source.title, source.text) == ("7", "a & b", "text")


def test_sentences_end_at_stops_but_not_at_abbreviations_or_decimals():
    text = "Use e.g. version 3.11 here. Then (see above.) Go on! Why? J. Smith knows."
    assert split_sentences(text) == [
        "Use e.g. version 3.11 here.",
        "Then (see above.)",
        "Go on!",
        "Why?",
        "J. Smith knows.",
    ]


def test_headings_lists_and_fences_are_not_joined_with_sentences():
    text = "# Title\n\nFirst line\ngoes on.\n- item one\n- item two\n\n```\ncode()\n```\nEnd."
    assert split_sentences(text) == [
        "Title",
        "First line goes on.",
        "item one",
        "item two",
        "End.",
    ]
