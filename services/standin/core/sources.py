"""Reading a prompt: its source blocks, its question, and the sentences of a text."""

import html
import re
from dataclasses import dataclass

_SOURCE = re.compile(r"<source\b([^>]*)>(.*?)</source>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_QUESTION = re.compile(r"^[ \t]*Question:[ \t]*(.+?)(?=\n[ \t]*\n|\Z)", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[^\n]*$", re.MULTILINE | re.DOTALL)
_BLOCK_BREAK = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*+•]|\d+[.)]|#+)[ \t])")
_MARKUP = re.compile(r"^(?:[-*+•]|\d+[.)]|#+|>)[ \t]+")
_RULE = re.compile(r"^[ \t]*([=\-~^\"'*#+_.])\1{2,}[ \t]*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`*]*[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Dr|No|Fig|approx)\.|\b[A-Z]\.)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text that a prompt offers to answer from.

    Args:
        marker: What to cite it as, or "" for text that is not cited.
        title: Its title, or "".
        text: Its content.
    """

    marker: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence as it stands in its source, runs of blanks made one.

    Args:
        source: Index of its source.
        text: The sentence.
    """

    source: int
    text: str


def find_sources(prompt: str) -> list[Source]:
    """The `<source id="1" title="...">` blocks of a prompt, in order."""
    sources = []
    for match in _SOURCE.finditer(prompt):
        attributes = dict(_ATTRIBUTE.findall(match[1]))
        title = html.unescape(attributes.get("title", ""))
        sources.append(Source(marker=attributes.get("id", ""), title=title, text=match[2]))
    return sources


def find_question(prompt: str) -> str | None:
    """The last paragraph that begins with `Question:`, outside the source blocks."""
    questions = _QUESTION.findall(_SOURCE.sub("\n\n", prompt))
    return str(questions[-1]).strip() if questions else None


def split_sentences(text: str) -> list[str]:
    """Split prose into sentences; headings and list items stand alone, fenced code is left out."""
    sentences: list[str] = []
    for block in _BLOCK_BREAK.split(_RULE.sub("\n", _FENCE.sub("\n\n", text))):
        paragraph = _MARKUP.sub("", " ".join(block.split()))
        begin = 0
        for end in _SENTENCE_END.finditer(paragraph):
            if _ABBREVIATION.search(paragraph, begin, end.start()):
                continue
            sentences.append(paragraph[begin : end.end()].strip())
            begin = end.end()
        if paragraph[begin:].strip():
            sentences.append(paragraph[begin:].strip())
    return sentences
