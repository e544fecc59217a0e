"""Opaque page tokens that are bound to the request they were issued for."""

import base64
import binascii
import json
from hashlib import blake2b

from services.common.errors import PageTokenMismatch
from services.common.validation import Violations

__all__ = ["check_page_size", "decode_page_number", "decode_page_token", "encode_page_token"]

DEFAULT_PAGE_SIZE = 100
MAXIMUM_PAGE_SIZE = 1000

# A position is an id of up to 512 characters, written in JSON and base64.
_MAXIMUM_TOKEN_LENGTH = 16_384
# Stores count in 64 bits, one of them for the sign.
_MOST_DIGITS = 18


def check_page_size(page_size: int, violations: Violations) -> int:
    """Returns the size to use: the default for 0, the maximum for more than that."""
    violations.require(page_size >= 0, "page_size", "Must not be negative.")
    return min(page_size or DEFAULT_PAGE_SIZE, MAXIMUM_PAGE_SIZE)


def encode_page_token(request: str, position: str) -> str:
    """Makes the token of the next page.

    Args:
        request: Everything of the request that decides what is listed, but for the page's size.
        position: Where the next page begins.
    """
    token = json.dumps([_digest(request), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(token.encode()).decode()


def decode_page_token(request: str, token: str) -> str:
    """Reads where a page begins; empty for an empty token.

    Raises:
        PageTokenMismatch: The token was issued for another request, or by nobody.
    """
    if not token:
        return ""
    if len(token) > _MAXIMUM_TOKEN_LENGTH:
        raise PageTokenMismatch
    try:
        digest, position = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise PageTokenMismatch from None
    if digest != _digest(request) or not isinstance(position, str):
        raise PageTokenMismatch
    # No position of ours holds what no store can compare.
    if "\0" in position or any("\ud800" <= each <= "\udfff" for each in position):
        raise PageTokenMismatch
    return position


def decode_page_number(request: str, token: str) -> int | None:
    """Reads where a page begins whose place is a number from 0 on; None for an empty token.

    Anybody can make a token up: whoever uses the number checks that it is within what is listed.

    Raises:
        PageTokenMismatch: The token was issued for another request, or by nobody.
    """
    position = decode_page_token(request, token)
    if not position:
        return None
    if len(position) > _MOST_DIGITS or not (position.isascii() and position.isdecimal()):
        raise PageTokenMismatch
    return int(position)


def _digest(request: str) -> str:
    return blake2b(request.encode(), digest_size=8).hexdigest()
