"""How much of a text an embedding model reads."""

__all__ = ["embedding_window"]

# Families that read less than they report, since Ollama's library sets `num_ctx` for them.
_SHORTER = {"all-minilm": 256}


def embedding_window(model: str, context_token_count: int) -> int:
    """Returns how many tokens of a text a model reads; 0 where that is not known.

    Ollama cuts what is longer without a word.

    Args:
        model: Name of the model, with or without registry, folder and tag.
        context_token_count: What the fleet says its context is; 0 where it does not say.
    """
    family = model.lower().rpartition("/")[2].partition(":")[0]
    known = [count for count in (_SHORTER.get(family, 0), context_token_count) if count > 0]
    return min(known, default=0)
