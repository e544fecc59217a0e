"""English words that say nothing about what a question is after."""

__all__ = ["ENGLISH_STOP_WORDS"]

_WORDS = """
a about above after again against all also am an and any are aren't as at be because been
before being below between both but by can can't cannot could couldn't did didn't do does
doesn't doing don't down during each either else ever few for from further get gets give given
had hadn't has hasn't have haven't having he he's her here hers herself him himself his how
however i i'd i'll i'm i've if in into is isn't it it's its itself just let let's like may me
might mine more most much must my myself neither nor not of off on once one only onto or other
others our ours ourselves out over own per please quite rather really same she she's should
shouldn't so some such tell than that that's the their theirs them themselves then there
there's therefore these they they're they've this those though through thus to too under until
up upon us very was wasn't we we're we've were weren't what what's when where whether which
while who whom whose why will with within without won't would wouldn't yet you you'd you'll
you're you've your yours yourself yourselves
"""
ENGLISH_STOP_WORDS = frozenset(_WORDS.split())
