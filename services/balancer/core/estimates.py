"""What reading, generating and loading are expected to take, learned from what they have taken."""

import math

from services.balancer.core.figures import Figure
from services.balancer.core.slowdown import Slowdown
from services.balancer.core.spread import Spread

__all__ = ["Estimates"]

# Priors, of a model of 5 GB on a middling graphics card: reading is bound by arithmetic and
# generating by memory, both in proportion to the weights; loading, by the disk.
_PRIOR_SIZE_BYTES = 5e9
# Small models are not quicker in proportion: other costs than reading weights come to the fore.
_SMALLEST_PRIOR_BYTES = 1e9
_PRIOR_PROMPT_TOKEN_SECONDS = 1.0 / 2500.0
_PRIOR_OUTPUT_TOKEN_SECONDS = 1.0 / 60.0
_PRIOR_OVERHEAD_SECONDS = 0.01
# A request to a loaded model costs this at most besides its tokens. Without a limit, calls of much
# the same length could all be laid to it, and the next long one would come as a surprise.
_LONGEST_OVERHEAD_SECONDS = 0.1
_LARGEST_OVERHEAD_SHARE = 0.8
_PRIOR_LOAD_START_SECONDS = 1.0
_PRIOR_LOAD_BYTES_PER_SECOND = 1e9
_PRIOR_CHARACTERS_PER_TOKEN = 4.0
_SMALLEST_MODEL_BYTES = 5e7
_LARGEST_MODEL_BYTES = 2e12

# Loads are rare, and disks do not change.
_LOAD_FADE_SECONDS = 6 * 3600.0
# The template around a short text is a good part of its tokens.
_TELLING_TEXT_TOKENS = 256.0
# The clock is coarse beside a few tokens.
_TELLING_OUTPUT_TOKENS = 32.0
# A prompt read so many times as fast as expected was remembered from another, unless as many in a
# row are: then reading is fast here, and the slowest of them shows how fast at the least.
_HIT_FACTOR = math.log(3.0)
_HIT_RUN_LENGTH = 5

_SHORTEST_SECONDS = 1e-7
_LONGEST_SECONDS = 1e5
_CHARACTERS_PER_TOKEN_RANGE = (0.1, 40.0)
# So many standard deviations above the estimate lie 99 of 100 texts; what is off by more than the
# largest margin, which is also that of models of which nothing is known, is not planned for.
_MARGIN_DEVIATIONS = 2.33
_LARGEST_MARGIN = 1.15
_LEAST_MARGIN = 1.02
_SPREAD_PRIOR_WEIGHT = 5.0
# Characters per token are the same wherever a model runs.
_ANYWHERE = ""


class Estimates:
    """Learns how fast backends are with models, and says what to expect.

    Durations that cannot be true, not positive or not finite, teach nothing.
    """

    def __init__(self) -> None:
        self._size_logs: dict[str, float] = {}
        self._prompt_token = Figure(self._prior_prompt_token)
        self._overhead = Figure(lambda _: math.log(_PRIOR_OVERHEAD_SECONDS))
        self._output_token = Figure(self._prior_output_token)
        self._slowdown = Slowdown()
        self._load = Figure(lambda _: 0.0, fade_seconds=_LOAD_FADE_SECONDS)
        self._characters = Figure(lambda _: math.log(_PRIOR_CHARACTERS_PER_TOKEN))
        self._spread = Spread(math.log(_LARGEST_MARGIN) / _MARGIN_DEVIATIONS, _SPREAD_PRIOR_WEIGHT)
        self._fast_runs: dict[tuple[str, str], list[float]] = {}

    # What is learned.

    def note_size(self, model: str, size_bytes: int) -> None:
        """Learns the size of a model, by which priors are scaled.

        Args:
            model: Placement key.
            size_bytes: What it takes in memory; 0 where not known.
        """
        if size_bytes <= 0:
            return
        size = min(max(size_bytes, _SMALLEST_MODEL_BYTES), _LARGEST_MODEL_BYTES)
        size_log = math.log(max(size, _SMALLEST_PRIOR_BYTES) / _PRIOR_SIZE_BYTES)
        if self._size_logs.get(model) != size_log:
            self._size_logs[model] = size_log
            self._prompt_token.solve()
            self._output_token.solve()

    def note_generation(
        self,
        backend_id: str,
        model: str,
        *,
        concurrency: int,
        prompt_token_count: int,
        expected_hit_token_count: int,
        prompt_seconds: float,
        output_token_count: int,
        output_seconds: float,
        now: float,
    ) -> None:
        """Learns from a complete answer.

        Args:
            backend_id: Who gave it.
            model: Placement key.
            concurrency: Requests active on the backend meanwhile, this one included.
            prompt_token_count: Tokens of the prompt, remembered ones included.
            expected_hit_token_count: Those that the backend was thought to remember.
            prompt_seconds: What reading the prompt took.
            output_token_count: Tokens generated.
            output_seconds: What generating took.
            now: Monotonic seconds.
        """
        if prompt_token_count > 0 and _credible(prompt_seconds):
            hit = min(max(expected_hit_token_count, 0), prompt_token_count - 1)
            key, read = (backend_id, model), prompt_token_count - hit
            self._note_prompt(key, read, prompt_token_count, prompt_seconds, now)
        if output_token_count > 1 and _credible(output_seconds):
            token_log = _log_seconds(output_seconds / output_token_count)
            weight = min(1.0, output_token_count / _TELLING_OUTPUT_TOKENS)
            self._note_answer((backend_id, model), max(concurrency, 1), token_log, weight, now)

    def note_texts(
        self,
        backend_id: str,
        model: str,
        *,
        token_count: int,
        text_count: int,
        seconds: float,
        now: float,
    ) -> None:
        """Learns from a reply with vectors.

        Args:
            backend_id: Who gave it.
            model: Placement key.
            token_count: Tokens of all texts.
            text_count: Texts; a call without any teaches nothing.
            seconds: From the request, alone in its slot, to the reply; loading excluded.
            now: Monotonic seconds.
        """
        if text_count > 0 and _credible(seconds):
            self._note_reading((backend_id, model), max(token_count, 1), _log_seconds(seconds), now)

    def note_load(
        self, backend_id: str, model: str, *, seconds: float, size_bytes: int, now: float
    ) -> None:
        """Learns from a load.

        Args:
            backend_id: Who has loaded.
            model: Placement key.
            seconds: What it took.
            size_bytes: What the model takes in memory; 0 where not known.
            now: Monotonic seconds.
        """
        self.note_size(model, size_bytes)
        if _credible(seconds):
            sample = _log_seconds(seconds) - math.log(self._prior_load_seconds(size_bytes))
            self._load.note(backend_id, model, sample, now)

    def note_characters(
        self, model: str, *, character_count: int, token_count: int, now: float
    ) -> None:
        """Learns how many characters a model makes a token of.

        Args:
            model: Placement key.
            character_count: Characters of a text.
            token_count: Tokens that it was read as.
            now: Monotonic seconds.
        """
        if character_count <= 0 or token_count <= 0:
            return
        least, most = _CHARACTERS_PER_TOKEN_RANGE
        sample = math.log(min(max(character_count / token_count, least), most))
        weight = min(1.0, token_count / _TELLING_TEXT_TOKENS)
        difference = sample - self._characters.expected(_ANYWHERE, model, now)
        self._spread.note(model, difference, weight=weight)
        self._characters.note(_ANYWHERE, model, sample, now, weight=weight)

    def forget_backend(self, backend_id: str) -> None:
        """Forgets a backend."""
        for figure in (self._prompt_token, self._overhead, self._output_token, self._load):
            figure.forget(backend_id)
        self._slowdown.forget(backend_id)
        self._fast_runs = {key: run for key, run in self._fast_runs.items() if key[0] != backend_id}

    # What is expected.

    def prefill_rate(self, backend_id: str, model: str, now: float) -> float:
        """Returns the tokens per second of a prompt, or of texts to embed, nothing remembered.

        Args:
            backend_id: Where.
            model: Placement key.
            now: Monotonic seconds.
        """
        return math.exp(-self._prompt_token.expected(backend_id, model, now))

    def decode_rate(self, backend_id: str, model: str, concurrency: int, now: float) -> float:
        """Returns the tokens per second of one answer.

        Args:
            backend_id: Where.
            model: Placement key.
            concurrency: Requests active on the backend, this one included, at least 1.
            now: Monotonic seconds.
        """
        alone = self._output_token.expected(backend_id, model, now)
        return math.exp(-alone - self._slowdown.expected((backend_id, model), concurrency))

    def load_seconds(self, backend_id: str, model: str, size_bytes: int, now: float) -> float:
        """Returns what loading a model takes.

        Args:
            backend_id: Where.
            model: Placement key.
            size_bytes: What it takes in memory; 0 where not known.
            now: Monotonic seconds.
        """
        factor = math.exp(self._load.expected(backend_id, model, now))
        return factor * self._prior_load_seconds(size_bytes)

    def text_overhead_seconds(self, backend_id: str, model: str, now: float) -> float:
        """Returns what a call takes besides its tokens.

        Args:
            backend_id: Where.
            model: Placement key.
            now: Monotonic seconds.
        """
        return math.exp(self._overhead.expected(backend_id, model, now))

    def token_count(self, model: str, character_count: int, now: float) -> int:
        """Returns how many tokens a text is for a model, at least 1.

        Args:
            model: Placement key.
            character_count: Characters of the text.
            now: Monotonic seconds.
        """
        ratio = math.exp(self._characters.expected(_ANYWHERE, model, now))
        return max(1, math.ceil(character_count / ratio))

    def most_tokens(self, model: str, token_count: int) -> int:
        """Returns how many tokens a text hardly exceeds that is estimated to have some.

        Args:
            model: Placement key.
            token_count: The estimate.
        """
        margin = math.exp(_MARGIN_DEVIATIONS * self._spread.deviation(model))
        return math.ceil(token_count * min(max(margin, _LEAST_MARGIN), _LARGEST_MARGIN))

    # Priors.

    def _prior_prompt_token(self, model: str) -> float:
        return math.log(_PRIOR_PROMPT_TOKEN_SECONDS) + self._size_logs.get(model, 0.0)

    def _prior_output_token(self, model: str) -> float:
        return math.log(_PRIOR_OUTPUT_TOKEN_SECONDS) + self._size_logs.get(model, 0.0)

    def _prior_load_seconds(self, size_bytes: int) -> float:
        size = min(size_bytes, _LARGEST_MODEL_BYTES) if size_bytes > 0 else _PRIOR_SIZE_BYTES
        return _PRIOR_LOAD_START_SECONDS + size / _PRIOR_LOAD_BYTES_PER_SECOND

    # How generating is learned.

    def _note_answer(
        self, key: tuple[str, str], concurrency: int, token_log: float, weight: float, now: float
    ) -> None:
        alone = token_log - self._slowdown.expected(key, concurrency)
        shown = self._output_token.note(*key, alone, now, weight=weight)
        self._slowdown.note(key, concurrency, token_log - shown, weight)

    # How reading is learned.

    def _note_prompt(
        self, key: tuple[str, str], least_tokens: int, most_tokens: int, seconds: float, now: float
    ) -> None:
        """Learns from a prompt of which between `least_tokens` and `most_tokens` were read.

        Where the time fits some number between, it says how many were remembered and nothing of
        the rate.
        """
        sample = _log_seconds(seconds)
        if sample < self._reading_log(key, least_tokens, now):
            tokens = least_tokens
        elif least_tokens == most_tokens or sample > self._reading_log(key, most_tokens, now):
            tokens = most_tokens
        else:
            self._fast_runs.pop(key, None)
            return
        expected = self._reading_log(key, tokens, now)
        if sample >= expected - _HIT_FACTOR:
            self._fast_runs.pop(key, None)
            self._note_reading(key, tokens, sample, now)
            return
        run = self._fast_runs.setdefault(key, [])
        run.append(sample - expected)
        if len(run) >= _HIT_RUN_LENGTH:
            del run[:-_HIT_RUN_LENGTH]
            self._note_reading(key, tokens, expected + max(run), now)

    def _note_reading(
        self, key: tuple[str, str], token_count: int, seconds_log: float, now: float
    ) -> None:
        """Learns from a call that read so many tokens.

        What it took beyond expectation is laid to its tokens and to its fixed cost alike, each
        believed by its share of the time: long calls tell of the one and short calls of the other.
        """
        expected = self._reading_log(key, token_count, now)
        overhead = self._overhead.expected(*key, now)
        prompt_token = self._prompt_token.expected(*key, now)
        share = min(max(math.exp(overhead - expected), 1e-3), _LARGEST_OVERHEAD_SHARE)
        excess = seconds_log - expected
        self._prompt_token.note(*key, prompt_token + excess, now, weight=1.0 - share)
        longest = math.log(_LONGEST_OVERHEAD_SECONDS)
        self._overhead.note(*key, min(overhead + excess, longest), now, weight=share)

    def _reading_log(self, key: tuple[str, str], token_count: int, now: float) -> float:
        reading = token_count * math.exp(self._prompt_token.expected(*key, now))
        return math.log(reading + math.exp(self._overhead.expected(*key, now)))


def _credible(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0


def _log_seconds(seconds: float) -> float:
    return math.log(min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS))
