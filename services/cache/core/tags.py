"""What values depend on, in the form in which values and the times of invalidations name it.

Names of documents and collections may be long and are nobody else's business, so that tags hold
digests of them. A tag is at the same time the name of the field that says when it was invalidated;
so are the names made here for what applies to values without being noted in them.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from enum import Enum

__all__ = [
    "EVERYTHING",
    "MAXIMUM_NOTED_TAGS",
    "MAXIMUM_TAGS",
    "TargetKind",
    "collection_tag",
    "custom_tag",
    "document_tag",
    "grown_field",
    "handed_over_ms",
    "handed_over_tag",
    "model_field",
    "namespace_field",
    "threshold_field",
]

MAXIMUM_TAGS = 16
"""Most tags that a caller may give a value."""

MAXIMUM_NOTED_TAGS = 2 * MAXIMUM_TAGS + 1
"""Most tags noted in a value: a document brings its collection; and see `handed_over_tag`."""

EVERYTHING = "*"
"""The field that applies to all values of a tenant."""

_DIGEST_BYTES = 16
_HANDED_OVER = "h:"
_PURPOSE = b"pannier.tag"


class TargetKind(Enum):
    """What can be invalidated; the name is the label of its metrics."""

    EVERYTHING = "everything"
    NAMESPACE = "namespace"
    MODEL_DIGEST = "model_digest"
    DOCUMENT = "document"
    COLLECTION = "collection"
    CUSTOM = "custom"
    GROWN_COLLECTION = "grown_collection"


def document_tag(collection: str, document_id: str) -> str:
    """Returns the tag of a document; of equal names in two collections, each has its own."""
    # The length comes first, so that nothing slips from one name into the other.
    return f"d:{_digest(f'{len(collection)}:{collection}{document_id}')}"


def collection_tag(collection: str) -> str:
    """Returns the tag of a collection."""
    return f"c:{_digest(collection)}"


def custom_tag(name: str) -> str:
    """Returns the tag of something else."""
    return f"x:{_digest(name)}"


def handed_over_tag(now_ms: int) -> str:
    """Returns the tag of a value that is for those only who wait for it by now.

    Args:
        now_ms: The time, by the store's clock, milliseconds since the Unix epoch.
    """
    return f"{_HANDED_OVER}{now_ms}"


def handed_over_ms(tags: Iterable[str]) -> int | None:
    """Returns when a value was handed over to those who waited for it; None where it is kept."""
    times = (tag.removeprefix(_HANDED_OVER) for tag in tags if tag.startswith(_HANDED_OVER))
    return next((int(each) for each in times if each.isdecimal()), None)


def namespace_field(namespace: str) -> str:
    """Returns the field that applies to a namespace's values; empty for those that name none."""
    return f"n:{namespace}"


def model_field(model_digest: str) -> str:
    """Returns the field that applies to a model's values."""
    return f"m:{model_digest.lower()}"


def grown_field(collection: str) -> str:
    """Returns the field that says when a collection last grew."""
    return f"g:{_digest(collection)}"


def threshold_field(namespace: str) -> str:
    """Returns the field that holds a namespace's threshold."""
    return f"t:{namespace}"


def _digest(text: str) -> str:
    data = text.encode(errors="surrogatepass")
    digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES, person=_PURPOSE)
    return urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
