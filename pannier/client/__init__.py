"""What a program that calls pannier needs besides the generated stubs.

channel = open_channel("127.0.0.1:50051", tenant="acme")
stub = rag_service_pb2_grpc.RagServiceStub(channel)
try:
    response = await stub.Query(request, timeout=120)
except grpc.aio.AioRpcError as error:
    raise RemoteError.from_call(error) from error
"""

from pannier.client.channel import TENANT_HEADER, TRACEPARENT_HEADER, open_channel
from pannier.client.errors import FieldViolation, QuotaViolation, RemoteError
from pannier.client.trace_context import TraceContext
from pannier.client.tracking import ModelCall, track_model_call, tracking_model_call

__all__ = [
    "TENANT_HEADER",
    "TRACEPARENT_HEADER",
    "FieldViolation",
    "ModelCall",
    "QuotaViolation",
    "RemoteError",
    "TraceContext",
    "open_channel",
    "track_model_call",
    "tracking_model_call",
]
