"""Measures the balancer against real peers, on real processes over HTTP.

Seconds are those of the fleet unless a name says `wall`: the stand-ins live `time_scale` times
faster than the clock on the wall, so that a fleet second lasts `1 / time_scale` wall seconds. The
time limits of all contenders are divided by the same factor.

What keeps the comparison fair:

* Each contender gets the same trace: equal seeds give equal arrivals, texts and lengths of answers.
  The length of an answer stands in the prompt, for the stand-in alone to read.
* Requests are sent at their times whatever is still under way, and latency counts from the time at
  which a request was to be sent. A failed request counts as infinitely late.
* The first text is seen by the client, through the contender. Embeddings have the arrival of their
  vectors.
* Each run begins with a cold fleet; what is sent during the warm-up is not counted. Models stay
  loaded until another needs their place.
* `central-fifo` lives in the load generator and costs no hop, which flatters it.
* A run is not to be trusted where the load generator itself was late; the report says so.
"""
