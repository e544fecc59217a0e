"""How much of everything a document may hold."""

from dataclasses import dataclass

from services.rag.core.document_errors import DocumentLimitExceeded

__all__ = ["ParseLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseLimits:
    """Bounds on what parsers work on; the bytes themselves are bounded where they are received.

    Attributes:
        character_count: Stored text.
        page_count: Pages of a PDF.
        member_count: Files in a zip container.
        uncompressed_bytes: All files of a zip container, as its directory states and as unpacked.
        compression_ratio: Uncompressed size of a file in a zip container over its packed size;
            counts from 1 MiB on.
        nesting_depth: Containers of a JSON document around a value; tables of a DOCX in each other.
        column_count: Fields of a table's row.
        value_count: Fields of all rows of a table, or values of a JSON document.
    """

    character_count: int = 32_000_000
    page_count: int = 5_000
    member_count: int = 5_000
    uncompressed_bytes: int = 256 * 1024 * 1024
    compression_ratio: int = 200
    nesting_depth: int = 200
    column_count: int = 16_384
    value_count: int = 3_000_000

    def check(self, limit: str, actual: int) -> None:
        """Compares what a document has with the limit of that name.

        Raises:
            DocumentLimitExceeded: It has more.
        """
        allowed: int = getattr(self, limit)
        if actual > allowed:
            raise DocumentLimitExceeded(limit, allowed=allowed, actual=actual)
