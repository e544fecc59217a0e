from services.rag.core.parsing import ParsedDocument, parse_document

SOURCE = '''\
"""A module."""

import os

# Explains the class.
@decorator
class Engine(Base):
    """Runs."""

    size = 1

    async def start(self):
        def inner():
            pass

    limit = 2


def stop(engine):
    return os
LAST = 1
'''


def parse(source: str, name: str = "pkg/engine.py") -> ParsedDocument:
    return parse_document(source.encode(), file_name=name)


def sections(document: ParsedDocument) -> list[tuple[tuple[str, ...], str]]:
    return [
        (
            section.heading_path,
            document.text[section.blocks[0].char_start : section.blocks[-1].char_end],
        )
        for section in document.sections
    ]


def test_classes_and_functions_are_sections_with_qualified_names() -> None:
    found = sections(parse(SOURCE))
    assert [path for path, _ in found] == [
        (),
        ("Engine",),
        ("Engine", "Engine.start"),
        ("Engine",),
        ("stop",),
        (),
    ]


def test_decorators_and_comments_above_belong_to_the_definition() -> None:
    texts = [text for _, text in sections(parse(SOURCE))]
    assert texts[1].startswith("# Explains the class.\n@decorator\nclass Engine(Base):")
    assert texts[0] == '"""A module."""\n\nimport os'
    assert texts[3] == "    limit = 2"
    assert texts[5] == "LAST = 1"


def test_the_title_is_the_name_of_the_module() -> None:
    assert parse(SOURCE).title == "engine"
    assert parse(SOURCE, "pkg/engine/__init__.py").title == "engine"


def test_source_that_does_not_parse_is_plain_text() -> None:
    document = parse("def broken(:\n\nNOTES\n    something\n")
    assert document.media_type == "text/x-python"
    assert [section.heading_path for section in document.sections] == [(), ("NOTES",)]
