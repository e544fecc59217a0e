"""What can go wrong with reading an answer as it comes, beside what goes wrong with the answer.

ServiceError
+-- AnswerOutOfTime             DEADLINE_EXCEEDED     DEADLINE_EXCEEDED
+-- QueryNotFound               NOT_FOUND             QUERY_NOT_FOUND
+-- QueryEventsLost             ABORTED               QUERY_EVENTS_LOST
+-- QueryReaderReplaced         ABORTED               QUERY_READER_REPLACED
"""

from services.common.errors import ServiceError, StatusCode

__all__ = ["AnswerOutOfTime", "QueryEventsLost", "QueryNotFound", "QueryReaderReplaced"]


class AnswerOutOfTime(ServiceError):
    """The call's deadline came before the answer was complete."""

    reason = "DEADLINE_EXCEEDED"
    code = StatusCode.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__(
            "The answer was not complete when the deadline came. Set a later deadline, or ask for "
            "a shorter answer."
        )


class QueryNotFound(ServiceError):
    """This replica has no answer of that id that the caller may read.

    Args:
        query_id: The id asked for.
    """

    reason = "QUERY_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, query_id: str) -> None:
        super().__init__(
            f"This replica has no answer {query_id!r} of yours that could be gone on with: its "
            "request was not resumable, it was given up or has expired, or it lives on another "
            "replica. Ask the question again.",
            metadata={"query_id": query_id},
        )


class QueryEventsLost(ServiceError):
    """Events that a reader has not got yet are not kept any more.

    Args:
        query_id: The answer.
        first_sequence: Number of the first event that is kept.
    """

    reason = "QUERY_EVENTS_LOST"
    code = StatusCode.ABORTED

    def __init__(self, query_id: str, first_sequence: int) -> None:
        super().__init__(
            f"The events of answer {query_id!r} are kept from number {first_sequence} on only: "
            "they were not read fast enough. Ask the question again.",
            metadata={"query_id": query_id, "first_sequence": str(first_sequence)},
        )


class QueryReaderReplaced(ServiceError):
    """Others have begun to read the same answer since.

    Args:
        query_id: The answer.
    """

    reason = "QUERY_READER_REPLACED"
    code = StatusCode.ABORTED

    def __init__(self, query_id: str) -> None:
        super().__init__(
            f"Two others have begun to read answer {query_id!r} since, which is as many as may.",
            metadata={"query_id": query_id},
        )
