"""Zip containers, looked at before anything in them is unpacked."""

import zlib
from io import BytesIO
from types import TracebackType
from typing import Self
from zipfile import BadZipFile, ZipFile, ZipInfo

from services.rag.core.document_errors import DocumentLimitExceeded, DocumentUnreadable
from services.rag.core.parsing.limits import ParseLimits

__all__ = ["Container"]

# Small files may pack well; what they unpack to does no harm.
_RATIO_FROM_BYTES = 1024 * 1024
_BLOCK_BYTES = 64 * 1024
_ENCRYPTED_FLAG = 1


class Container:
    """A zip container whose directory is within the limits.

    Args:
        content: Its bytes.
        media_type: What it is called in errors.
        limits: Bounds on its members.

    Raises:
        DocumentLimitExceeded: By its directory it holds too much.
        DocumentUnreadable: It is damaged or encrypted.
    """

    def __init__(self, content: bytes, *, media_type: str, limits: ParseLimits) -> None:
        self._media_type = media_type
        self._limits = limits
        # The end of the directory states how many members there are, before they are listed.
        try:
            self._zip = ZipFile(BytesIO(content))
        except (BadZipFile, OSError, ValueError, NotImplementedError, OverflowError):
            raise self._damaged() from None
        members = self._zip.infolist()
        limits.check("member_count", len(members))
        self._unpacked_bytes = 0
        self._members = {member.filename: member for member in members}
        limits.check("uncompressed_bytes", sum(member.file_size for member in members))
        for member in members:
            self._check_ratio(member.file_size, member.compress_size)

    def __enter__(self) -> Self:
        """Returns the container."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        self._zip.close()

    def names(self) -> frozenset[str]:
        """Returns the names of the members."""
        return frozenset(self._members)

    def read(self, name: str) -> bytes:
        """Returns a member unpacked.

        Raises:
            DocumentLimitExceeded: It is larger than the directory states and the limits allow.
            DocumentUnreadable: It is missing, damaged or encrypted.
        """
        member = self._members.get(name)
        if member is None:
            raise self._damaged()
        if member.flag_bits & _ENCRYPTED_FLAG:
            raise DocumentUnreadable(
                self._media_type,
                problem="encrypted",
                advice="Remove the password and send it again.",
            )
        try:
            return self._unpack(member)
        except (BadZipFile, OSError, EOFError, NotImplementedError, ValueError, zlib.error):
            raise self._damaged() from None

    def _unpack(self, member: ZipInfo) -> bytes:
        parts: list[bytes] = []
        size = 0
        with self._zip.open(member) as file:
            while part := file.read(_BLOCK_BYTES):
                parts.append(part)
                size += len(part)
                self._unpacked_bytes += len(part)
                self._limits.check("uncompressed_bytes", self._unpacked_bytes)
                self._check_ratio(size, member.compress_size)
        return b"".join(parts)

    def _check_ratio(self, size: int, packed_size: int) -> None:
        ratio = size // max(1, packed_size)
        if size > _RATIO_FROM_BYTES and ratio > self._limits.compression_ratio:
            raise DocumentLimitExceeded(
                "compression_ratio", allowed=self._limits.compression_ratio, actual=ratio
            )

    def _damaged(self) -> DocumentUnreadable:
        return DocumentUnreadable(
            self._media_type, problem="damaged", advice="Save it anew and send it again."
        )
