"""The balancer: sends each request to the Ollama server expected to be done with it first."""
