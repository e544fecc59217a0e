"""Which questions may share an answer: pure text, vectors and counts."""
