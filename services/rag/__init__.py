"""The rag service: documents in, grounded answers out."""
