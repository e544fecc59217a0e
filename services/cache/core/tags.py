"""What values depend on, in the form in which values and the times of invalidations name it.

Names of documents and collections may be long and are nobody else's business, so that tags hold
digests of them. A tag is at the same time the name of the field that says when it was invalidated;
so are the names made here for what applies to values without being noted in them.
"""

import hashlib
from base64 import urlsafe_b64encode
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
    "model_field",
    "namespace_field",
    "threshold_field",
]

MAXIMUM_TAGS = 16
"""Most tags that a caller may give a value."""

MAXIMUM_NOTED_TAGS = 2 * MAXIMUM_TAGS
"""Most tags noted in a value: a document brings its collection with it."""

EVERYTHING = "*"
"""The field that applies to all values of a tenant."""

_DIGEST_BYTES = 16
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
