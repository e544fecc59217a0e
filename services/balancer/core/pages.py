"""Pages of a sorted list, bound together by opaque tokens."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from services.common.errors import PageTokenMismatch

__all__ = ["page_of"]

T = TypeVar("T")

_CHECK_BYTES = 6


def page_of(
    items: Sequence[T], *, key: Callable[[T], str], size: int, token: str, request: str
) -> tuple[Sequence[T], str]:
    """Cuts a page.

    A token names the last item shown, so that items which come and go between two calls shift
    nothing.

    Args:
        items: All items, sorted by key.
        key: Identifies an item.
        size: Most items of the page, at least 1.
        token: The token that came with the page before; empty for the first page.
        request: What the token is bound to: the method with its filters.

    Returns:
        The items, and the token of the next page; empty after the last.

    Raises:
        PageTokenMismatch: The token was not issued for this request.
    """
    after = _read(token, request) if token else ""
    rest = [item for item in items if not token or key(item) > after]
    page = rest[:size]
    return page, _write(key(page[-1]), request) if len(rest) > size else ""


def _write(last_key: str, request: str) -> str:
    data = last_key.encode()
    return base64.urlsafe_b64encode(_check(data, request) + data).decode().rstrip("=")


def _read(token: str, request: str) -> str:
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        check, data = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(data, request):
            raise PageTokenMismatch
        return data.decode()
    except (binascii.Error, UnicodeError) as error:
        raise PageTokenMismatch from error


def _check(data: bytes, request: str) -> bytes:
    # Finds mistakes, keeps no secret: whoever forges a token only chooses where a page begins.
    return hashlib.blake2b(data, digest_size=_CHECK_BYTES, person=request.encode()[:16]).digest()
