"""What the rag service computes: pure functions and the values that they work on."""
