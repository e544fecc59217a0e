"""From fused candidates to the passages a caller gets: pure steps, each a function of a ranking."""
