import json

import pytest

from services.rag.core.document_errors import DocumentLimitExceeded
from services.rag.core.parsing import ParsedDocument, ParseLimits, parse_document


def parse(source: str, name: str = "a.json", **limits: int) -> ParsedDocument:
    return parse_document(source.encode(), file_name=name, limits=ParseLimits(**limits))


def blocks(document: ParsedDocument) -> list[tuple[tuple[str, ...], str]]:
    return [
        (section.heading_path, document.text[block.char_start : block.char_end])
        for section in document.sections
        for block in section.blocks
    ]


def test_values_stand_behind_their_paths_and_objects_in_arrays_are_records() -> None:
    document = parse(
        '{"name": "svc", "server": {"port": 8080, "hosts": ["a", "b"]}, "on": true,'
        '"users": [{"id": 1, "tags": []}, {"id": 2, "x": {"y": null}}], "none": {}}'
    )
    assert document.title == "svc"
    assert blocks(document) == [
        ((), "name: svc\non: true\nnone: {}"),
        (("server",), "server.port: 8080\nserver.hosts: a, b"),
        (("users",), "users[0]\nid: 1\ntags: []"),
        (("users",), "users[1]\nid: 2\nx.y: null"),
    ]


def test_each_line_of_json_lines_is_a_record_and_a_broken_one_stays_with_a_warning() -> None:
    document = parse('{"a": 1}\n{"a": 2}\n{"a": \n', "a.jsonl")
    assert [text for _, text in blocks(document)] == ["a: 1", "a: 2", '{"a":']
    assert "1 lines" in document.warnings[0]


@pytest.mark.parametrize(
    ("source", "limit", "actual"),
    [
        ("[" * 90_000 + "]" * 90_000, "nesting_depth", "90000"),
        ('{"a":' * 300 + "1" + "}" * 300, "nesting_depth", "201"),
        ('["' + '\\"' * 50_000 + '",' + "[" * 90_000, "nesting_depth", "90001"),
    ],
)
def test_too_deep_nesting_is_refused_with_its_depth(source: str, limit: str, actual: str) -> None:
    with pytest.raises(DocumentLimitExceeded) as caught:
        parse(source)
    assert caught.value.metadata == {"limit": limit, "allowed": "200", "actual": actual}


def test_too_many_values_are_refused_and_commas_in_strings_do_not_count() -> None:
    with pytest.raises(DocumentLimitExceeded):
        parse(json.dumps(list(range(1001))), value_count=1000)
    assert parse(json.dumps(["," * 5000]), value_count=1000).text


def test_keys_repeated_in_every_path_stay_within_the_limit_of_text() -> None:
    source = json.dumps({"k" * 50_000: [{"a": 1}] * 500})
    assert len(parse(source).text) < 500_000
    with pytest.raises(DocumentLimitExceeded, match="character count"):
        parse(source, character_count=60_000)
