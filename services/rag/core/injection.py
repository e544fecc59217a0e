"""Texts of documents that speak to a model instead of to a reader.

The patterns find wording that instructs: orders to forget what was said, tags that mark a speaker,
the syntax of tool calls, words that only a model would be told, and such texts in encoded form.
A match is a reason for care, not a proof: a manual on prompts matches as well, so what matches
counts less and is named, and is not left out.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from services.rag.core.passages import Passage, RankedPassage

__all__ = ["Suspicion", "SuspicionKind", "are_known", "clean", "demote_suspects", "suspicion"]

SUSPECT_FACTOR = 0.5
"""What the score of a suspect passage is multiplied by."""

_EXCERPT_CHARACTERS = 80
_LEAST_PRINTABLE_RATIO = 0.95
# Runs of encoded text are decoded up to here.
_DECODED_CHARACTERS = 4096
# So many invisible characters in a row spell something out.
_HIDDEN_RUN_CHARACTERS = 8

_MOST_KNOWN = 2048

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE_CLASS = (
    "\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_INVISIBLE = re.compile(f"[{_INVISIBLE_CLASS}]")
_HIDDEN_RUN = re.compile(rf"[{_INVISIBLE_CLASS}\u200c\u200d]{{{_HIDDEN_RUN_CHARACTERS},}}")
# Joiners shape letters of some scripts and pictures; between Latin letters they only hide.
_LATIN_JOINER = re.compile(r"(?<=[\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?=[\x00-\x7f])")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_BLOB = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}={0,2}(?![A-Za-z0-9+/_-])")
_SPACE = re.compile(r"\s+")


class SuspicionKind(Enum):
    """What makes a text suspect; the values are shown to callers."""

    OVERRIDE = "orders to forget instructions"
    ROLE_TAG = "marks another speaker"
    TOOL_SYNTAX = "holds the syntax of a tool call"
    ADDRESS = "speaks to an assistant"
    DISCLOSURE = "asks for the instructions or for data to be sent"
    HIDDEN = "holds a run of invisible characters"
    ENCODED = "holds encoded instructions"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stretch of a text that looks like instructions to a model."""

    kind: SuspicionKind
    excerpt: str


_NEAR = r"[^.!?\n]{0,40}?"
_EARLIER = (
    r"(?:previous(?:ly)?|prior|above|earlier|preceding|foregoing|former|existing|original|initial)"
)
_ORDERS = (
    r"(?:instructions?|prompts?|rules|directions|guidelines|directives|commands|orders|"
    r"constraints|policies|training|context)"
)
_AI = (
    r"(?:AIs?|A\.I\.|LLMs?|(?:large )?language models?|(?:AI |virtual |digital )?assistants?|"
    r"chat ?bots?|(?:chat)?GPT(?:-\d\w*)?|copilots?|(?:AI|language) (?:models?|systems?|agents?))"
)
_NAMED_AI = (
    r"(?:AIs?|A\.I\.|LLMs?|language models?|AI (?:assistants?|agents?|models?|systems?)|"
    r"chat ?bots?|ChatGPT|(?:an? )?assistants?)"
)

_OVERRIDES = (
    rf"\b(?:ignore|disregard|forget|overlook|bypass|override|neglect|drop|discard|skip)\b{_NEAR}"
    rf"\b(?:{_EARLIER}\b[^.!?\n]{{0,30}}?\b{_ORDERS}|(?:all|any|your|every|these|those)\s"
    rf"(?:(?:of\s)?(?:the|your|other|system)\s)*{_ORDERS}|"
    rf"(?:everything|anything|all|what|whatever)\b[^.!?\n]{{0,30}}\b(?:above|before|previously|"
    r"earlier|so far|told))\b",
    rf"\b(?:do not|don't|never|stop) (?:follow|obey|adher\w+ to|following|obeying)\b{_NEAR}"
    rf"\b(?:{_EARLIER}|your|system)\b{_NEAR}\b{_ORDERS}\b",
    rf"\b(?:new|updated|revised|real|actual|true|important|secret|special|hidden) "
    rf"(?:system )?(?:instructions?|prompt|directives?)\b\s*(?:for (?:you|the {_AI})\b)?"
    r"\s*[:\uff1a]",
    rf"\bsystem (?:override|prompt override)\b|\boverride\b{_NEAR}\bsystem prompt\b",
    # German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian, Turkish.
    r"\b(?:ignorier\w*|missacht\w*|vergiss|vergessen sie|überge?h\w*)\b[^.!?\n]{0,60}"
    r"\b(?:anweisung\w*|instruktion\w*|vorgaben|regeln|befehle?n?|prompts?)\b",
    r"\b(?:ignore[zr]?|oublie[zr]?|négligez|ne tenez pas compte)\b[^.!?\n]{0,60}"
    r"\b(?:instructions?|consignes?|directives?|règles)\b",
    r"\b(?:ignor[ae]\w*|olvid[ae]\w*|descart[ae]\w*|esque[çc][ae]\w*|desconsider\w*|dimentic\w*|"
    r"tralasci\w*)\b"
    r"[^.!?\n]{0,60}\b(?:instruccion\w*|órdenes|indicacion\w*|reglas|instruç\w*|regras|istruzion\w*"
    r"|regole|direttiv\w*)\b",
    r"\b(?:negeer|vergeet)\b[^.!?\n]{0,60}\b(?:instructies?|opdrachten|regels|aanwijzingen)\b",
    r"\b(?:zignoruj|ignoruj|zapomnij)\w*[^.!?\n]{0,60}\b(?:instrukcj\w*|poleceni\w*|polece\w*)",
    r"(?:игнорируй\w*|проигнорируй\w*|забудь\w*|не обращай\w* внимани\w*)[^.!?\n]{0,60}"
    r"(?:инструкци\w*|указани\w*|правил\w*|команд\w*)",
    r"\b(?:önceki|yukar\u0131daki|tüm)\b[^.!?\n]{0,40}\b(?:talimat\w*|yönerge\w*)[^.!?\n]{0,20}"
    r"\b(?:yok say|unut|görmezden)\w*",
    # Chinese, Japanese, Korean, Arabic.
    r"(?:忽略|无视|無視|忘记|忘掉|不要理会)[^。!?\n]{0,20}(?:指令|指示|说明|提示|规则|要求)",
    r"(?:指示|命令|指令|プロンプト)[^。!?\n]{0,15}(?:無視|忘れ)",
    r"(?:이전|위의|모든)[^.!?\n]{0,20}(?:지시|명령|지침)[^.!?\n]{0,12}(?:무시|잊)",
    r"(?:تجاهل|انس)[^.!?\n]{0,40}(?:التعليمات|الأوامر|السابقة)",
)
_OVERRIDE_CUES = (
    "ignore disregard forget overlook bypass override neglect drop discard skip",
    "follow obey adher",
    "instruction prompt directive",
    "override",
    "ignorier missacht vergiss vergessen übergeh überge",
    "ignore oublie négligez tenez",
    "ignor olvid descart esque desconsider dimentic tralasci",
    "negeer vergeet",
    "ignoruj zapomnij",
    "игнор забудь обращай",
    "talimat yönerge",
    "忽略 无视 無視 忘记 忘掉 不要理会",
    "無視 忘れ",
    "무시 잊",
    "تجاهل انس",
)
_ROLE_TAGS = (
    r"<\|(?:im_start|im_end|system|user|assistant|start_header_id|end_header_id|eot_id|"
    r"endoftext|end|begin_of_text|channel|message)\|>",
    r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\[/?SYSTEM(?:_PROMPT)?\]",
    r"</?(?:system|assistant)(?:[_-]?(?:prompt|message|instructions?))?\s*>",
    r"(?m)^[ \t>#*]*(?:\*\*)?(?:system|assistant)(?: (?:prompt|message|note))?(?:\*\*)?[ \t]*"
    r"[:\uff1a](?:\*\*)?[ \t]*"
    r"(?=you\b|ignore|from now|the |your |always|never|answer|respond|reply|sure\b)",
    r"</?\s*sources?\b[^>\n]{0,80}>\s*(?:question|user|system|assistant|ignore)\b",
)
_ROLE_TAG_CUES = (
    "<|",
    "[inst [/inst <<sys <</sys _of_turn [system [/system",
    "<system <assistant </system </assistant",
    "system assistant",
    "source",
)
_TOOL_SYNTAXES = (
    r"</?(?:tool_call|tool_response|tool_result|function_calls?|invoke|tool_use)\b[^>\n]{0,80}>",
    r"<\|(?:tool_call|tool_calls_begin|python_tag|plugin)\|>|\[TOOL_CALLS\]",
    r"\{\s*\"(?:tool|function|name)\"\s*:\s*\"[\w.-]{1,64}\"\s*,\s*\"(?:arguments|parameters|args)\""
    r"\s*:\s*\{",
)
_TOOL_SYNTAX_CUES = (
    "tool_ function_call invoke",
    "<| [tool_calls]",
    '"arguments" "parameters" "args"',
)
_ADDRESSES = (
    rf"\b(?:attention|note|notice|message|instructions?|important|dear|hey|hello|warning)\b"
    rf"[,:]?\s+(?:to|for)?\s*(?:all |any |every |the |you,? )*{_NAMED_AI}\b"
    rf"(?=\s*[:,.!\u2014-]|\s+(?:reading|processing|that|who|summari|answer|must|should|when))",
    rf"\bif you are (?:an? |the )?{_AI}\b",
    r"\b(?:as|being) an? (?:AI|(?:large )?language model)\b[^.!?\n]{0,40}\byou (?:must|should|will|"
    r"shall|need|have to|are)\b",
    r"\byou are now (?:an? |the |in |known |acting |operating |DAN\b|free\b|unrestricted\b)"
    r"(?!\w{0,3}ready)",
    r"\bfrom now on,? (?:you|always|answer|respond|reply|act|only)\b",
    r"\b(?:pretend|act|behave|roleplay)\b[^.!?\n]{0,20}\b(?:as if you|as though you|to be|like you)"
    r"\b[^.!?\n]{0,60}\b(?:AI|assistant|model|restrict\w+|rules|DAN|filters?|guidelines)\b",
    r"\b(?:when|if|whenever)\b[^.!?\n]{0,40}\b(?:asked|a user asks|the user asks|answering|"
    r"summari[sz]ing|you (?:answer|respond|summari[sz]e|reply))\b[^.!?\n]{0,80}?,\s*(?:you )?"
    r"(?:must |should |always |only |just |instead |please |simply )*(?:say|answer|respond|reply|"
    r"state|output|write|print|tell|include|recommend|mention|insert|append|end)\b",
    r"\b(?:do not|don't|never)\b (?:tell|inform|mention|reveal|disclose|let|warn|show|say)\b"
    r"[^.!?\n]{0,40}\b(?:the user|users? about|to the user|to anyone|this (?:message|note|"
    r"instruction|text))\b",
    r"\b(?:your|the) (?:only )?(?:answer|response|reply|output|summary)\b[^.!?\n]{0,20}\b"
    r"(?:must|should|has to|needs to|is to|shall|will) (?:only |always |also )*(?:be (?:exactly|"
    r"only|the (?:word|phrase|sentence|string))|contain the (?:word|phrase|string|sentence|code|"
    r"token)|include the (?:word|phrase|string|sentence|code|token|following)|"
    r"(?:begin|start|end) with|say|consist of)\b",
    r"\b(?:answer|respond|reply)\b (?:to )?(?:every|all|any|each|the user'?s?|this|my|questions?)"
    r"?[^.!?\n]{0,30}\b(?:only |exactly |solely |just )*with\b (?:only |exactly |just )*"
    r"(?:the (?:word|phrase|sentence|string|text|code|token)|[\"'\u201c][^\"'\u201d\n]{1,60})",
    r"\b(?:output|print|write|say|repeat|include|insert|append|reply|respond with|answer with)\b"
    r"[^.!?\n]{0,30}\b(?:the )?(?:word|phrase|string|token|code|text|sentence|marker)s?\b"
    r"[^.!?\n]{0,60}\b(?:in|into|to|at the (?:end|start|beginning) of|and nothing else|as) "
    r"(?:your|the|every|each|all) ?(?:final |whole )?(?:answers?|responses?|repl\w+|outputs?)?",
    r"\b(?:and|say) nothing else\b[^.!?\n]{0,40}\b(?:answer|respon[ds]\w*|repl\w+|output)\b"
    r"|\b(?:answer|respond|reply|output|say|print)\b[^.!?\n]{0,60}\band nothing else\b",
    r"\b(?:jailbreak|developer mode|DAN mode|god mode)\b[^.!?\n]{0,30}"
    r"\b(?:enabled|activated|on|now)\b",
    # German, French, Spanish, Italian, Portuguese, Russian.
    r"\b(?:du bist|sie sind|tu es|vous êtes|eres|sei|você é|ты) (?:jetzt|nun|ab sofort|désormais|"
    r"maintenant|ahora|ora|adesso|agora|теперь)\b",
    r"\b(?:antworte|antworten sie|répond[sz]?|répondez|responde|responda|rispondi|ответь|отвечай)\b"
    r"[^.!?\n]{0,30}\b(?:nur|immer|ausschließlich|uniquement|toujours|seulement|sólo|solo|solamente|"
    r"siempre|sempre|soltanto|apenas|только|всегда)\b",
)
_ADDRESS_CUES = (
    "ai assistant llm model gpt bot a.i.",
    "if+you+are",
    "as+an being+an as+a being+a",
    "you+are+now",
    "from+now+on",
    "pretend act behave roleplay",
    "asked asks answer summari respond reply",
    "user anyone message note instruction",
    "answer response reply output summary",
    "answer respond reply",
    "answer response repl output",
    "nothing+else",
    "jailbreak developer+mode dan+mode god+mode",
    "jetzt nun sofort désormais maintenant ahora ora adesso agora теперь",
    "antwort répond respond rispondi ответь отвечай",
)
_DISCLOSURES = (
    r"\b(?:reveal|repeat|print|show|output|disclose|leak|display|recite|give me|tell me|return)\b"
    r"[^.!?\n]{0,40}\b(?:system prompt|(?:your|initial|hidden|secret|original|system) "
    r"(?:instructions?|prompts?|message))\b",
    r"\b(?:verrate|zeige?|nenne|révèle[zr]?|affiche[zr]?|revela|muestra|mostra)\b[^.!?\n]{0,40}"
    r"\b(?:system-?prompts?|systemanweisung\w*|prompt (?:système|d[eio]l? sistema))\b",
    r"\b(?:send|forward|post|upload|exfiltrate|transmit|email|leak)\b[^.!?\n]{0,40}\b(?:conversation|"
    r"chat history|user'?s? (?:question|data|name|email|password|query|input)|system prompt|"
    r"credentials|api keys?|secrets?)\b[^.!?\n]{0,40}\b(?:to|at|via)\b",
    r"!\[[^\]\n]{0,80}\]\(https?://[^)\s]{0,200}[?&][\w-]{1,32}=(?:\{|\[|<|%7B|\$|data|secret|answer)",
)
_DISCLOSURE_CUES = (
    "prompt instruction message",
    "prompt systemanweisung",
    "conversation history user prompt credential key secret",
    "![",
)


@dataclass(frozen=True, slots=True)
class _Wording:
    """A kind of wording.

    Attributes:
        kind: What it is.
        cues: Texts of which one must be there before the pattern is tried, which takes longer.
        pattern: The wording.
    """

    kind: SuspicionKind
    cues: tuple[str, ...]
    pattern: re.Pattern[str]


def _wordings(
    kind: SuspicionKind, patterns: Sequence[str], cues: Sequence[str]
) -> Iterator[_Wording]:
    for pattern, words in zip(patterns, cues, strict=True):
        yield _Wording(
            kind,
            tuple(word.replace("+", " ") for word in words.split()),
            re.compile(pattern.replace("(?m)", ""), re.IGNORECASE | re.MULTILINE),
        )


_WORDINGS = (
    *_wordings(SuspicionKind.OVERRIDE, _OVERRIDES, _OVERRIDE_CUES),
    *_wordings(SuspicionKind.ROLE_TAG, _ROLE_TAGS, _ROLE_TAG_CUES),
    *_wordings(SuspicionKind.TOOL_SYNTAX, _TOOL_SYNTAXES, _TOOL_SYNTAX_CUES),
    *_wordings(SuspicionKind.ADDRESS, _ADDRESSES, _ADDRESS_CUES),
    *_wordings(SuspicionKind.DISCLOSURE, _DISCLOSURES, _DISCLOSURE_CUES),
)


def clean(text: str) -> str:
    """Takes out what no reader of a text sees: controls, invisible characters, HTML comments.

    Tabs and line ends stay, and so do the joiners of scripts that need them. What is clean stays
    as it is.
    """
    if text.isascii() and "<!--" not in text and _CONTROL.search(text) is None:
        return text
    return _LATIN_JOINER.sub("", _INVISIBLE.sub("", _CONTROL.sub("", _COMMENT.sub("", text))))


def suspicion(text: str) -> Suspicion | None:
    """Returns the first stretch of a text that looks like instructions to a model, if any.

    Args:
        text: A passage or a whole document; the work is linear in its length.
    """
    return _known_suspicions[text]


def are_known(passages: Iterable[RankedPassage]) -> bool:
    """Says whether all passages were judged not long ago, so that it takes no time to do it again.

    Args:
        passages: In any order.
    """
    return all(_judged_text(each.passage) in _known_suspicions for each in passages)


class _KnownSuspicions(dict[str, Suspicion | None]):
    """What was found in texts that have been met, for passages are found again and again."""

    def __missing__(self, text: str) -> Suspicion | None:
        found = _suspicion(text)
        if len(self) >= _MOST_KNOWN:
            self.clear()
        self[text] = found
        return found


_known_suspicions = _KnownSuspicions()


def _suspicion(text: str) -> Suspicion | None:
    if not text.isascii():
        hidden = _HIDDEN_RUN.search(text)
        if hidden is not None:
            return Suspicion(SuspicionKind.HIDDEN, f"{len(hidden[0])} characters")
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return _told(text) or _encoded(text)


def demote_suspects(passages: Iterable[RankedPassage]) -> tuple[RankedPassage, ...]:
    """Marks the passages that look like instructions and halves their scores.

    Args:
        passages: Best first.

    Returns:
        The passages, best first; where none is suspect as they were.
    """
    judged = tuple(map(_judged, passages))
    if not any(each.passage.injection_suspected for each in judged):
        return judged
    return tuple(sorted(judged, key=lambda each: -each.ranking.score))


def _judged(ranked: RankedPassage) -> RankedPassage:
    passage = ranked.passage
    if not passage.injection_suspected:
        if suspicion(_judged_text(passage)) is None:
            return ranked
        passage = replace(passage, injection_suspected=True)
    ranking = replace(ranked.ranking, score=ranked.ranking.score * SUSPECT_FACTOR)
    return RankedPassage(passage, ranking)


def _judged_text(passage: Passage) -> str:
    return f"{passage.header}\n{passage.text}"


def _told(text: str) -> Suspicion | None:
    lowered = text.lower()
    for wording in _WORDINGS:
        if any(map(lowered.__contains__, wording.cues)):
            found = wording.pattern.search(text)
            if found is not None:
                excerpt = _SPACE.sub(" ", found[0]).strip()
                return Suspicion(wording.kind, excerpt[:_EXCERPT_CHARACTERS])
    return None


def _encoded(text: str) -> Suspicion | None:
    """Looks into runs of base64; a picture or a key decodes to nothing that can be read."""
    for blob in _BLOB.findall(text):
        body = blob[:_DECODED_CHARACTERS].rstrip("=")
        body = body[: len(body) // 4 * 4].replace("-", "+").replace("_", "/")
        try:
            decoded = base64.b64decode(body).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            continue
        printable = sum(character.isprintable() for character in decoded)
        if " " in decoded and printable >= _LEAST_PRINTABLE_RATIO * len(decoded):
            return Suspicion(SuspicionKind.ENCODED, decoded[:_EXCERPT_CHARACTERS])
    return None
