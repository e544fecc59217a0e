"""Words by what they do in a question, apart from naming what it is about."""

from __future__ import annotations

from services.cache.core.semantic.inflection import base_form

__all__ = [
    "ALTERNATIVES",
    "AMOUNTS",
    "AUXILIARIES",
    "DIRECTIONS",
    "FILLERS",
    "FUNCTION_WORDS",
    "LINKING_VERBS",
    "NEGATIONS",
    "PARTICLES",
    "PARTICLE_VERBS",
    "PERSONS",
    "PREPOSITIONS",
    "QUANTIFIERS",
    "STRANDED",
    "SUBJECTS",
    "TARGET_VERBS",
    "TIMES",
    "VAGUE_NOUNS",
    "VAGUE_WORDS",
]


def _base_forms(words: str) -> frozenset[str]:
    return frozenset(map(base_form, words.split()))


FUNCTION_WORDS = _base_forms(
    """a an the this that these those such be do have will would shall can could may might must
    should ought i we you he she it they me us him her them my mine our ours your yours his hers
    its their theirs myself yourself itself themselves ourselves who whom whose which what when
    where why how and or but so if then than as because while whether though although since of
    in on at for with to from by about into onto per via upon among amid toward towards there
    here one oneself any some etc vs versus let"""
)
# Said in passing: with or without them a question is the same.
FILLERS = _base_forms(
    """much many lot plenty obtain please kindly just really actually basically simply very quite
    rather too also already still anyway okay ok well maybe perhaps possibly currently exactly
    precisely specifically properly correctly successfully somehow again ever yet way thing like
    want need wish get try be go able know help wonder hope happen particular specific certain
    actual various own thank hi hello hey sir madam dear sorry regard relate involve suppose
    seem now moment asap immediately urgently away nice think believe guess ahead soon anymore
    wondering tell yes u im"""
)
# One more of these hardly changes what is asked, but together they may.
VAGUE_WORDS = _base_forms(
    """available find see check look show someone somebody anyone anybody person something anything
    provide find_out put attempt list look_up offer good great instruct possible assist check_on
    make"""
)
# Nor one of these, unless it is that which is asked for: "what is the purpose of ...".
VAGUE_NOUNS = _base_forms(
    """process procedure step instruction info detail stuff place case situation type time date
    amount number item option locate location recommendation suggestion purpose idea point"""
)
NEGATIONS = _base_forms(
    """not no never none nobody nothing nowhere neither nor without unless except unable hardly
    cannot nicht kein keine keinen keinem keiner nie niemals ohne pas jamais aucun aucune sans
    nunca ningun ninguna sin nem"""
)
QUANTIFIERS = {
    base_form(word): name
    for name, words in {
        "all": "all every each entire whole everyone everybody everything everywhere always",
        "some": "some several sometimes",
        "both": "both",
        "either": "either",
        "most": "most mostly usually",
        "few": "few rarely seldom",
        "often": "often frequently",
        "only": "only solely exclusively",
        "multiple": "multiple",
        "half": "half",
        "same": "same",
    }.items()
    for word in words.split()
}
PREPOSITIONS = _base_forms(
    """of in on at for with from by about into onto per via using upon among toward towards as to
    before after during since until above below over under inside outside between against
    through beyond within behind across along around near instead like when while if because
    where that which who whose whom"""
)
# What they relate is not the same the other way round.
DIRECTIONS = {
    base_form(word): direction
    for word, direction in {
        "to": "to",
        "into": "to",
        "onto": "to",
        "toward": "to",
        "towards": "to",
        "from": "from",
        "before": "before",
        "after": "after",
        "until": "until",
        "till": "until",
        "since": "since",
        "above": "above",
        "below": "below",
        "beneath": "below",
        "under": "under",
        "over": "over",
        "inside": "inside",
        "outside": "outside",
        "against": "against",
        "beyond": "beyond",
        "within": "within",
        "behind": "behind",
        "than": "than",
        "instead": "instead",
        "during": "during",
        "through": "through",
    }.items()
}
# After them "to" names a target; elsewhere it mostly begins an infinitive.
TARGET_VERBS = _base_forms(
    """transfer send convert move switch change migrate upgrad downgrad travel fly drive translate
    export import connect deliver ship pay give lend sell report assign attach copy sync bind
    map redirect forward deploy push pull merge link submit apply refer flight train bus trip
    ticket route distance exchange return bring take hand come belong subscribe respond reply
    relate equal next close access right add walk ride journey way direction upload download
    write talk speak email call promote demote compare closer similar allergic married senior
    junior superior"""
)
ALTERNATIVES = frozenset({"and", "or", "vs", "versus", "&"})
PERSONS = {
    word: person
    for person, words in {
        "speaker": "i me my mine we us our ours myself",
        "hearer": "you your yours yourself",
        "man": "he him his",
        "woman": "she her hers",
    }.items()
    for word in words.split()
}
PARTICLES = frozenset(["on", "off", "in", "out", "up", "down", "back", "away", "over"])
PARTICLE_VERBS = _base_forms(
    """turn switch power log sign check opt set back top shut start pick drop look fill find give
    take put hand pay call clock phase scale roll speed slow go come get plug lock sell buy move
    break wake clean cut carry hang hold make pass point pull push run send show split stand
    stay step tear throw time try warm wear wind work write zoom cash max boot book lay let burn
    blow bring flip close use sum count add round"""
)
AUXILIARIES = _base_forms("do be have will would can could should may might must")
# They link two things that then may not change places: "is a square a rectangle".
LINKING_VERBS = _base_forms("be have get need want like")
# What a subject begins with, where it follows its verb: "why is not the card ...".
SUBJECTS = _base_forms(
    "i we you he she it they the a an my our your his her their this that these those"
)
# At the end of a question they belong to what is asked for.
STRANDED = frozenset({"of", "by"})
# "What is the price" and "how much" ask for the same, "what is the deadline" and "when" too.
AMOUNTS = _base_forms("cost fee price limit balance amount number total rate dose salary")
TIMES = _base_forms("deadline date time")
