"""Source code of languages without a parser here: cut at definitions.

Brackets tell how deep a line lies in languages that use them, indentation in the others. Lines that
name a definition at the top, or one level below it, open a section.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from services.rag.core.parsing.parsed import BlockKind, Draft, Mark, shorten_heading

__all__ = ["parse_source"]

_BY_INDENTATION = frozenset(
    f"text/x-{name}" for name in ("elixir", "haskell", "julia", "lua", "ruby", "shellscript", "sql")
)
_HASH_COMMENTS = _BY_INDENTATION | {"text/x-perl", "text/x-php", "text/x-r"}
_STRINGS = r'"(?:[^"\\\n]|\\.)*+"?|`(?:[^`\\]|\\.)*+`?'
# Bounded, because a lone quotation mark means something else in some languages.
_SINGLE_QUOTED = r"'(?:[^'\\\n]|\\.){0,120}+'"
_SLASH_COMMENT = r"/\*(?:[^*]|\*(?!/))*+(?:\*/)?|//[^\n]*"
_BRACKET = r"[{}()\[\]]"
_SLASHED = re.compile(f"{_SLASH_COMMENT}|{_STRINGS}|{_SINGLE_QUOTED}|{_BRACKET}", re.S)
_HASHED = re.compile(f"{_SLASH_COMMENT}|#[^\n]*|{_STRINGS}|{_SINGLE_QUOTED}|{_BRACKET}", re.S)

_MODIFIERS = """
abstract async create data declare def default export extern final fileprivate global inline inner
internal local open or override partial private protected pub public readonly replace sealed static
suspend temporary unique unsafe virtual
"""
_DEFINERS = """
class contract def defmodule defp enum extension fn fun func function impl index interface
macro_rules! message mod module namespace object procedure protocol record rpc service struct sub
table trait trigger type typedef union view
"""
_MODIFIER = r"(?:(?:{})(?:\([^()\n]*\))?[ \t]+)".format("|".join(_MODIFIERS.split()))
_KEYWORD_DEFINITION = re.compile(
    rf"[ \t]*{_MODIFIER}{{0,8}}(?:enum[ \t]+)?(?:{'|'.join(_DEFINERS.split())})"
    r"(?:[ \t]*<[^<>\n]{0,80}>)?[ \t]+(?:if[ \t]+not[ \t]+exists[ \t]+)?"
    r"(?:\([^()\n]{0,120}\)[ \t]*)?(?P<name>[\w$][\w$.:~]*)",
    re.I,
)
# `export const load = async (id) => {`
_BOUND_FUNCTION = re.compile(
    r"[ \t]*(?:export[ \t]+)?(?:const|let|var)[ \t]+(?P<name>[\w$]+)[^=\n]{0,80}="
    r"(?=[^\n]*(?:=>|\bfunction\b))"
)
# `int main(...)`, `void Engine::start(...)`, `private static List<String> names(...)`, `name() {`.
_TYPED_DEFINITION = re.compile(
    r"[ \t]*(?:[\w$<>\[\],:*&~?.]+[ \t]+){0,6}?[*&]*(?P<name>~?[\w$]+(?:::~?\w+)*)[ \t]*\("
)
_DEFINITION_ENDS = ("{", "(", ",", ")", "}")
# The type of a function on the line above its name.
_LEADING_LINE = re.compile(r"[A-Za-z_][\w \t*&<>:]*\Z")
_STATEMENT_WORDS = """
and assert await case catch del do elif else for if import lock new not require return sizeof switch
throw try until using when while with yield
"""
_STATEMENTS = frozenset(_STATEMENT_WORDS.split())
_COMMENT_LINE = re.compile(
    r"[ \t]*(?://|/\*|\*|#(?!include|define|import|pragma|if|else|endif)|--|;;|@\w|\[\w)"
)
_FIRST_WORD = re.compile(r"[ \t]*(\w+)")
_MAX_LINE_CHARACTERS = 400
_DEEPEST = 1


def parse_source(text: str, *, media_type: str, file_name: str) -> Draft:
    """Finds the definitions of a source file.

    Args:
        text: The source.
        media_type: Its language.
        file_name: The title.
    """
    lines = text.split("\n")
    if media_type in _BY_INDENTATION:
        depths = _depths_by_indentation(lines)
    else:
        depths = _depths_by_brackets(text, lines, media_type)
    return Draft(text, file_name, list(_marks(lines, depths)))


def _marks(lines: list[str], depths: list[int]) -> Iterator[Mark]:
    yield Mark(0, BlockKind.VERBATIM)
    position = comment_start = 0
    has_comment = after_blank = inside = False
    container = ""
    for line, depth in zip(lines, depths, strict=True):
        is_blank = not line.strip()
        leads = _COMMENT_LINE.match(line) or (
            not depth and _LEADING_LINE.match(line[:_MAX_LINE_CHARACTERS])
        )
        name = _defined_name(line) if depth <= _DEEPEST and not is_blank else ""
        if leads and not name and depth <= _DEEPEST:
            if not has_comment:
                comment_start, has_comment = position, True
        elif not is_blank:
            start = comment_start if has_comment else position
            if name and depth and container:
                yield Mark(start, BlockKind.VERBATIM, f"{container}.{name}", 2)
            elif name:
                container = name if not depth else ""
                inside = True
                yield Mark(start, BlockKind.VERBATIM, name, 1)
            elif not depth and after_blank and not line.startswith((")", "]", "}", "end")):
                yield Mark(start, BlockKind.VERBATIM, "", int(inside))
                inside, container = False, ""
            has_comment = False
        if is_blank:
            has_comment = False
        after_blank = is_blank or (after_blank and has_comment)
        position += len(line) + 1


def _defined_name(line: str) -> str:
    """Returns what a line defines; empty if it defines nothing."""
    head = line[:_MAX_LINE_CHARACTERS]
    found = _KEYWORD_DEFINITION.match(head) or _BOUND_FUNCTION.match(head)
    if found is None:
        first = _FIRST_WORD.match(head)
        if (first and first[1] in _STATEMENTS) or not head.rstrip().endswith(_DEFINITION_ENDS):
            return ""
        found = _TYPED_DEFINITION.match(head)
    name = found["name"].strip(":.") if found else ""
    return "" if name in _STATEMENTS else shorten_heading(name)


def _depths_by_indentation(lines: list[str]) -> list[int]:
    """Returns how many different indentations lie around each line, up to two."""
    depths: list[int] = []
    step = 0
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if indentation and not step:
            step = indentation
        depths.append(0 if not indentation else 1 if indentation <= step else 2)
    return depths


def _depths_by_brackets(text: str, lines: list[str], media_type: str) -> list[int]:
    """Returns how many brackets are open at the start of each line."""
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))[:-1]
    pattern = _HASHED if media_type in _HASH_COMMENTS else _SLASHED
    depths = [0] * len(lines)
    depth = line_index = 0
    for token in pattern.finditer(text):
        if token[0] not in "{}()[]":
            inner = bisect_right(starts, token.end() - 1) - 1
            first = bisect_right(starts, token.start()) - 1
            # What lies inside a comment or a string of several lines defines nothing.
            if inner > first and not token[0].startswith("/"):
                for index in range(max(first + 1, line_index + 1), inner + 1):
                    depths[index] = _DEEPEST + 1
                for index in range(line_index + 1, first + 1):
                    depths[index] = depth
                line_index = inner
            continue
        here = bisect_right(starts, token.start()) - 1
        for index in range(line_index + 1, here + 1):
            depths[index] = depth
        line_index = here
        depth = max(0, depth + (1 if token[0] in "{([" else -1))
    for index in range(line_index + 1, len(lines)):
        depths[index] = depth
    return depths
