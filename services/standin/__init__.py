"""An Ollama-like HTTP server for development, tests and benchmarks; it runs no language model.

It follows the HTTP API, the scheduler, the slots and the prompt cache of release 0.33. What it
does not imitate:

* `/v1/...`, push, sign-in, cloud models, web search, compressed request bodies, Modelfile
  templates (prompts are joined by blank lines), adapters and quantisation; `/api/create` from
  files makes a synthetic model of the right kind, whatever the weights.
* Devices: no split between processor and graphics memory (`size_vram` is 0), no wait for memory
  to be reported free, no smaller context instead of a failed load. A model takes its
  `size_bytes`, whatever its context and its slots.
* A child that is stopped but alive: the ten seconds that its health check takes per request, and
  the blocked `/api/ps`. `hang` holds a slot, and a fault on `/api/ps` delays that.
* Disconnects: they are noticed at once, also while a prompt is read. A slot leaks only if a fault
  orders it, not by chance.
* Prompt cache: it compares the characters of a prompt (four to a token) and not token ids; a
  restored prompt costs nothing, and its limit is in tokens and not in bytes.
* Time: the rate of a stream does not fall with its length. Real embeddings (all-minilm) take the
  time that they take to compute; speed, time scale and contention do not apply to them.
"""
