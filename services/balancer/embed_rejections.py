"""Finding the text that a backend refuses among those that it was given together."""

from collections.abc import Awaitable, Callable, Sequence

from services.balancer.core.errors import BackendRejectedRequest
from services.balancer.embed_calls import Answer

__all__ = ["TextRejected", "embed_apart"]

Call = Callable[[Sequence[str]], Awaitable[Answer]]


class TextRejected(Exception):
    """A text that a backend refuses also when it comes alone.

    Args:
        text: The text.
        message: What the backend said.
    """

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        self.text = text
        self.message = message


async def embed_apart(
    call: Call, texts: Sequence[str], rejection: BackendRejectedRequest | None
) -> list[Answer]:
    """Embeds texts in smaller and smaller calls, since they were refused together.

    Where one text is at fault it is found with at most log2(n) + 1 calls: a half that is accepted
    leaves the other one under suspicion, which need not be tried whole.

    Args:
        call: Makes one call.
        texts: The texts.
        rejection: What was said to all of them; None where they are only suspected.

    Returns:
        Answers for parts of the texts, in their order.

    Raises:
        TextRejected: One of them is refused also alone.
        ServiceError: A call has failed otherwise.
    """
    if len(texts) == 1:
        if rejection is not None:
            raise TextRejected(texts[0], rejection.metadata["backend_message"])
        return await _embed_whole(call, texts)
    first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    try:
        answers = [await call(first)]
    except BackendRejectedRequest as error:
        # Where nothing is wrong with any part of it, it was too much at once.
        answers = await embed_apart(call, first, error)
        return answers + await _embed_whole(call, second)
    return answers + await embed_apart(call, second, None)


async def _embed_whole(call: Call, texts: Sequence[str]) -> list[Answer]:
    try:
        return [await call(texts)]
    except BackendRejectedRequest as error:
        return await embed_apart(call, texts, error)
