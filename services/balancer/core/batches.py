"""Which texts travel together to a backend, and who gets what of the reply.

A server embeds the texts of a call one after the other. Many texts in a call save what a call
costs besides; too many keep other slots idle, and everybody else waiting.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "MAXIMUM_CHARACTERS",
    "MAXIMUM_TEXTS",
    "Dimensions",
    "Limits",
    "cut",
    "join",
    "token_shares",
]

MAXIMUM_TEXTS = 32
"""Most texts of a call."""
MAXIMUM_CHARACTERS = 32_000
"""Most characters of a call, unless it has a single text that is longer."""
_MINIMUM_TEXTS = 8
# Two pieces per slot: a fast backend takes a third while a slow one has its first.
_PIECES_PER_SLOT = 2
_MAXIMUM_MODEL_COUNT = 1000
# Of each backend: enough to see through one that lies for a while, few enough to forget what no
# longer holds.
_REMEMBERED_REPLIES = 50
_CLEAR_REPLIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may travel together.

    Attributes:
        text_count: Most texts.
        character_count: Most characters.
    """

    text_count: int = MAXIMUM_TEXTS
    character_count: float = MAXIMUM_CHARACTERS


def cut(
    lengths: Sequence[int], *, slot_count: int, character_count: float = MAXIMUM_CHARACTERS
) -> list[slice]:
    """Cuts the texts of a request into pieces for several backends, in their order.

    Args:
        lengths: Characters of each text, at least one text.
        slot_count: Slots of the backends that have the model in memory, at least 1.
        character_count: Most characters of a piece, unless it has a single text that is longer.
    """
    count = len(lengths)
    size = math.ceil(count / (_PIECES_PER_SLOT * slot_count))
    size = min(max(size, _MINIMUM_TEXTS), MAXIMUM_TEXTS)
    fitting = character_count * count / max(sum(lengths), 1)
    size = max(1, math.floor(min(size, fitting)))
    piece_count = math.ceil(count / size)
    bounds = {count * number // piece_count for number in range(piece_count)}
    pieces: list[slice] = []
    start = characters = 0
    for index, length in enumerate(lengths):
        if index > start and (index in bounds or characters + length > character_count):
            pieces.append(slice(start, index))
            start, characters = index, 0
        characters += length
    pieces.append(slice(start, count))
    return pieces


def join(
    texts: Sequence[str], waiting: Iterable[Sequence[str]], limits: Limits
) -> tuple[list[int], list[str]]:
    """Says who of those that wait comes along with a call.

    Nobody is overtaken: the first that does not fit ends it, except for those whose texts are all
    in the call already.

    Args:
        texts: The texts of the call, each once.
        waiting: The texts of each that waits, in order of service.
        limits: How much may travel together.

    Returns:
        The places in `waiting` of those that come along; and the texts of the call then, those of
        `texts` first, each once.
    """
    joined = dict.fromkeys(texts)
    characters = sum(map(len, texts))
    places: list[int] = []
    full = False
    for place, others in enumerate(waiting):
        fresh = [text for text in dict.fromkeys(others) if text not in joined]
        if fresh and not full:
            length = characters + sum(map(len, fresh))
            full = len(joined) + len(fresh) > limits.text_count or length > limits.character_count
            if not full:
                characters = length
                joined.update(dict.fromkeys(fresh))
                fresh = []
        if not fresh:
            places.append(place)
    return places, list(joined)


def token_shares(
    token_count: int, texts: Sequence[str], sharers: Sequence[Collection[str]]
) -> list[int]:
    """Divides the tokens of a call among those whose texts it had.

    Each text has tokens in proportion to its length, and who share a text share its tokens. The
    shares add up to all tokens.

    Args:
        token_count: Tokens of the call.
        texts: Its texts.
        sharers: The texts of each caller; together they are `texts`.
    """
    owner_counts = Counter(text for owned in sharers for text in owned)
    weights = {text: max(len(text), 1) / max(owner_counts[text], 1) for text in texts}
    total = sum(weights[text] for owned in sharers for text in owned)
    exact = [token_count * sum(weights[text] for text in owned) / total for owned in sharers]
    shares = [math.floor(share) for share in exact]
    rest = token_count - sum(shares)
    by_remainder = sorted(range(len(exact)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[:rest]:
        shares[place] += 1
    return shares


@dataclass(slots=True)
class _Shown:
    """How long the last vectors of a model were.

    Attributes:
        by_backend: Lengths of the last replies of each backend, the latest at the end.
        reply_counts: How many of all these have had which length; none has 0.
    """

    by_backend: dict[str, deque[int]] = field(default_factory=dict)
    reply_counts: Counter[int] = field(default_factory=Counter)

    def note(self, backend_id: str, dimension: int) -> None:
        """Takes in a reply."""
        replies = self.by_backend.setdefault(backend_id, deque())
        replies.append(dimension)
        self.reply_counts[dimension] += 1
        if len(replies) > _REMEMBERED_REPLIES:
            forgotten = replies.popleft()
            self.reply_counts[forgotten] -= 1
            if not self.reply_counts[forgotten]:
                del self.reply_counts[forgotten]

    def backend_counts(self) -> Counter[int]:
        """Returns by length how many backends stand for it."""
        said = [Counter(each) for each in self.by_backend.values()]
        # Where a backend has said both equally often, the one that it said first.
        return Counter(each.most_common(1)[0][0] for each in said)


class Dimensions:
    """Learns how long the vectors of a model are, by what most replies of most backends have had.

    A reply of another length is a failure of whoever sent it. A backend stands for the length that
    most of its replies have had, so that it is not believed when it lies now and then, nor ever
    more for lying often. Between lengths that equally many backends stand for, one decides that
    clearly more replies have had, or else the model's description, if there is one.
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[str, int | None], _Shown] = {}

    def note(self, model: str, cut_to: int | None, backend_id: str, dimension: int) -> None:
        """Learns from a reply.

        Args:
            model: Digest of the model.
            cut_to: Length that was asked for; None for whole vectors.
            backend_id: Who replied.
            dimension: Length of the vectors.
        """
        key = (model, cut_to)
        shown = self._shown.get(key)
        if shown is None:
            if len(self._shown) >= _MAXIMUM_MODEL_COUNT:
                del self._shown[next(iter(self._shown))]
            shown = self._shown[key] = _Shown()
        shown.note(backend_id, dimension)

    def is_wrong(self, model: str, cut_to: int | None, dimension: int, described: int) -> bool:
        """Tells whether vectors are of another length than those of most.

        Args:
            model: Digest of the model.
            cut_to: Length that was asked for; None for whole vectors.
            dimension: Length of the vectors.
            described: Length by the model's description; 0 where not known.
        """
        shown = self._shown.get((model, cut_to))
        if shown is None or shown.reply_counts.keys() == {dimension}:
            return False
        backend_counts, reply_counts = shown.backend_counts(), shown.reply_counts
        expected = _expected(cut_to, described)
        for other in reply_counts.keys() - {dimension}:
            lead = backend_counts[other] - backend_counts[dimension]
            if lead == 0:
                lead = reply_counts[other] - reply_counts[dimension]
                if abs(lead) < _CLEAR_REPLIES:
                    lead = (other == expected) - (dimension == expected)
            if lead > 0:
                return True
        return False

    def rightful(
        self, model: str, cut_to: int | None, found: Mapping[int, int], described: int
    ) -> int:
        """Chooses between lengths of vectors that came for one request.

        Args:
            model: Digest of the model.
            cut_to: Length that was asked for; None for whole vectors.
            found: The lengths, with the number of vectors that have each.
            described: Length by the model's description; 0 where not known.
        """
        shown = self._shown.get((model, cut_to), _Shown())
        counts = shown.backend_counts()
        expected = _expected(cut_to, described)
        return max(found, key=lambda each: (counts[each], each == expected, found[each], each))


def _expected(cut_to: int | None, described: int) -> int:
    return min(described, cut_to) if described and cut_to else described
