"""An Ollama-like HTTP server for development, tests and benchmarks; it runs no language model."""
