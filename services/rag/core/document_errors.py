"""What can be wrong with a document.

ServiceError
+-- DocumentRejected            INVALID_ARGUMENT      DOCUMENT_REJECTED
|   +-- DocumentEmpty           INVALID_ARGUMENT      DOCUMENT_EMPTY
|   +-- DocumentNotUtf8         INVALID_ARGUMENT      DOCUMENT_NOT_UTF8
|   +-- DocumentBinary          INVALID_ARGUMENT      DOCUMENT_BINARY
|   +-- MediaTypeUnsupported    INVALID_ARGUMENT      MEDIA_TYPE_UNSUPPORTED
|   +-- DocumentTooLarge        INVALID_ARGUMENT      DOCUMENT_TOO_LARGE
|   +-- DocumentUnreadable      INVALID_ARGUMENT      DOCUMENT_UNREADABLE
|   +-- DocumentLimitExceeded   INVALID_ARGUMENT      DOCUMENT_TOO_COMPLEX
|   +-- DocumentTooHard         INVALID_ARGUMENT      DOCUMENT_TOO_COMPLEX
"""

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "DocumentBinary",
    "DocumentEmpty",
    "DocumentLimitExceeded",
    "DocumentNotUtf8",
    "DocumentRejected",
    "DocumentTooHard",
    "DocumentTooLarge",
    "DocumentUnreadable",
    "MediaTypeUnsupported",
]


class DocumentRejected(ServiceError):
    """The received bytes cannot become a document."""

    reason = "DOCUMENT_REJECTED"
    code = StatusCode.INVALID_ARGUMENT


class DocumentEmpty(DocumentRejected):
    """There is no text in the document."""

    reason = "DOCUMENT_EMPTY"

    def __init__(self) -> None:
        super().__init__("The document holds no text. Send one with visible characters.")


class DocumentNotUtf8(DocumentRejected):
    """The bytes are not valid UTF-8.

    Args:
        byte_offset: Where the first invalid sequence starts.
    """

    reason = "DOCUMENT_NOT_UTF8"

    def __init__(self, byte_offset: int) -> None:
        super().__init__(
            f"The document is not valid UTF-8 at byte {byte_offset}. Convert it to UTF-8.",
            metadata={"byte_offset": str(byte_offset)},
        )


class DocumentBinary(DocumentRejected):
    """The bytes are not text, whatever the document's name says.

    Args:
        byte_offset: Where the first byte is that no text holds.
    """

    reason = "DOCUMENT_BINARY"

    def __init__(self, byte_offset: int) -> None:
        super().__init__(
            f"The document is binary: byte {byte_offset} belongs in no text. Send its text.",
            metadata={"byte_offset": str(byte_offset)},
        )


class MediaTypeUnsupported(DocumentRejected):
    """There is no parser for this kind of document.

    Args:
        media_type: What the document is, or claims to be.
    """

    reason = "MEDIA_TYPE_UNSUPPORTED"

    def __init__(self, media_type: str) -> None:
        super().__init__(
            f"Documents of type {media_type} cannot be read. "
            "Send PDF, DOCX, HTML, Markdown, JSON, CSV, source code or plain text.",
            metadata={"media_type": media_type},
        )


class DocumentUnreadable(DocumentRejected):
    """The document is of a known kind, but its text cannot be taken out.

    Args:
        media_type: What the document is.
        problem: What is wrong with it, in a word or two, such as `encrypted`.
        advice: What to do, as a full sentence.
    """

    reason = "DOCUMENT_UNREADABLE"

    def __init__(self, media_type: str, *, problem: str, advice: str) -> None:
        super().__init__(
            f"The document of type {media_type} cannot be read: {problem}. {advice}",
            metadata={"media_type": media_type, "problem": problem},
        )


class DocumentLimitExceeded(DocumentRejected):
    """The document has more of something than the service works on.

    Args:
        limit: Name of the limit, such as `page_count`.
        allowed: What it allows.
        actual: What the document has, as far as it was counted.
    """

    reason = "DOCUMENT_TOO_COMPLEX"

    def __init__(self, limit: str, *, allowed: int, actual: int) -> None:
        super().__init__(
            f"The document has a {limit.replace('_', ' ')} of {actual}, the limit is {allowed}. "
            "Split it.",
            metadata={"limit": limit, "allowed": str(allowed), "actual": str(actual)},
        )


class DocumentTooHard(DocumentRejected):
    """Working on the document took more than a document may take.

    Args:
        limit: What ran out: `time_seconds`, `memory_bytes`, or `process` where the process that
            worked on it ended.
        allowed: How much there was; empty for `process`.
    """

    reason = "DOCUMENT_TOO_COMPLEX"

    def __init__(self, limit: str, allowed: str = "") -> None:
        bound = f" ({allowed})" if allowed else ""
        super().__init__(
            f"Working on the document exceeded the limit {limit}{bound}. "
            "Split it, or send its text.",
            metadata={"limit": limit, "allowed": allowed},
        )


class DocumentTooLarge(DocumentRejected):
    """A document has more bytes than the service accepts."""

    reason = "DOCUMENT_TOO_LARGE"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The document has more than {limit_bytes} bytes. Split it.",
            metadata={"limit_bytes": str(limit_bytes)},
        )
