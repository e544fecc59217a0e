"""The words that tell whether a question leans on what was said before, by language."""

import re
from dataclasses import dataclass

__all__ = ["ENGLISH", "GERMAN", "FollowUpWords"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUpWords:
    """What gives away a question that does not stand alone. All words are in lower case.

    Attributes:
        function_words: Words that name nothing.
        question_words: Words that begin a question.
        pronouns: Words that stand for something named elsewhere.
        possessives: Those of them that stand before what belongs to it.
        plurals: Those of them that stand for several things; empty where that does not show.
        connectives: Words at the beginning that go on with something, in short questions.
        determiners: Words that a noun follows.
        definite: Those of them that speak of something known.
        separators: Words between two parts of a sentence.
        prepositions: Words that a part of a sentence begins with, but hardly ever a question.
        relational: Words that are always of something, such as `price`.
        impersonal: Uses of pronouns that stand for nothing.
        pointers: Phrases that point at something said before.
        openings: Beginnings that only a follow-up question has.
    """

    function_words: frozenset[str]
    question_words: frozenset[str]
    pronouns: frozenset[str]
    possessives: frozenset[str]
    plurals: frozenset[str]
    connectives: frozenset[str]
    determiners: frozenset[str]
    definite: frozenset[str]
    separators: frozenset[str]
    prepositions: frozenset[str]
    relational: frozenset[str]
    impersonal: re.Pattern[str]
    pointers: re.Pattern[str]
    openings: re.Pattern[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENGLISH_QUESTION_WORDS = _words("what which who whom whose when where why how what's who's how's")
_ENGLISH_PRONOUNS = _words(
    "it it's they them they're he she him her its their his hers theirs itself themselves"
)
ENGLISH = FollowUpWords(
    function_words=_ENGLISH_QUESTION_WORDS
    | _ENGLISH_PRONOUNS
    | _words(
        """
        a about again all also am an and another any anything are aren't as at be because
        been before being between but by can can't could couldn't did didn't do does
        doesn't doing don't else for from get give given had has have he's how i i'd i'll
        i'm i've if in instead into is isn't it's just let like many may me might more
        most much must my no not of off ok okay on one ones only or other others our out
        over own per please really same say shall she's should so some something still
        such tell than thank thanks that that's the then there there's these they're this
        those through to too under up us use used using very want was wasn't we were will
        with without won't would yes you your
        """
    ),
    question_words=_ENGLISH_QUESTION_WORDS
    | _words(
        "is are was were do does did can could will would should has have had may might must am "
        "explain describe list show tell compare define find summarize give name"
    ),
    pronouns=_ENGLISH_PRONOUNS,
    possessives=_words("its their his her"),
    plurals=_words("they they're them their theirs themselves"),
    connectives=_words("and but or also then plus so"),
    determiners=_words("a an the my our your any some each every no this that which two both all"),
    definite=_words("the its their his her these those this"),
    separators=_words(
        "when if after before while because and but then that which unless until once or since "
        "whenever where so who whether as"
    ),
    prepositions=_words("for in on with without at from under by via using to of between"),
    relational=_words(
        """
        advantage advantages alternative alternatives answer answers applications author authors
        background benefit benefits best bigger biggest cause caused causes change changed changes
        characteristics characters cheaper cheapest common con cons consequence consequences cost
        costs date default defaults definition detail details differ difference differences
        different disadvantage disadvantages downside downsides effect effects error errors
        example examples exception exceptions expensive explain factor factors famous fast faster
        fastest features findings first fix founded founder future happen happened happening
        happens help history importance important influenced invented key kind kinds last latest
        limit limitation limitations limits list long main mean meaning means next number option
        options origin origins popular possible price prices pro problem problems pros purpose
        reason reasons requirement requirements result results risk risks role roots second short
        show side similarities similarity size solution solutions source sources start started
        step steps summarize symptom symptoms themes third type types typical value values version
        versions way ways work worked works wrong year
        """
    ),
    impersonal=re.compile(
        r"\b(?:is|was|be|isn't|it's|would|will|make|makes|made|find)\s+(?:it\s+)?(?:be\s+)?"
        r"(?:(?:ever|really|still|also|not|even) )?(?:ok|okay|possible|impossible|safe|necessary|"
        r"needed|better|best|worth|legal|illegal|bad|good|important|true|normal|wise|allowed|"
        r"required|recommended|easy|easier|hard|harder|difficult|useful|common|cheaper|faster|"
        r"enough|mandatory|advisable|time|right|wrong)\s+(?:\w+\s+){0,3}?"
        r"(?:to|that|for|if|when|\w+ing)\b(?!.*\bthan\b)"
        r"|\b(?:does|did|will|would|can)\s+it\s+(?:take|cost|mean|make sense|matter|hurt|help)"
        r"(?:\s+\S+){0,5}?\s+(?:to|if|when|whether|that|for)\b"
        r"|\bit\s+(?:takes|took|costs|means|seems|appears|rains|is (?:likely|said|known))\b"
        r"|\bwhat\s+(?:time|day|date)\s+is\s+it\b"
        r"|\bis\s+it\s+(?:raining|snowing|cold|warm|hot)\b"
    ),
    pointers=re.compile(
        r"\bthe (?:former|latter|same(?! time)|others?|above|rest|(?:first|second|third|last|next|"
        r"previous|other) (?:one|two|option|point|part|step|answer|question|example)s?|"
        r"(?:first|second|third|last|two)(?=$)|(?:first|last|only|\w+est) (?:ever|invented|made|"
        r"caught|built|found|known)|\w+est (?:to)?(?=$))\b"
        r"|\b(?:which|this|that|another|any other|every|each|\w+er|new|old|good|bad|best|latest) "
        r"ones?\b|\bones\b"
        r"|\b(?:anything|something|someone|anyone|what|who|where|how|nothing|nowhere) else\b"
        r"|\b(?:tell me|say|know|explain|learn|hear) (?:a bit |a little )?more"
        r"(?: about (?:it|this|that))?$"
        r"|\bmore (?:details?|examples?|information|info|about it|specific(?:ally)?)\b"
        r"|\bgo on\b|\bcontinue\b|\belaborate\b|\bin (?:more|greater) detail\b"
        r"|\b(?:these|those)\b(?! (?:who|days)\b)"
        r"|\bthis\b(?! (?:year|week|month|morning|evening|century|decade|time|afternoon)\b)"
        r"|\b(?:is|was) that(?: \w+)?$"
        r"|\b(?:is|was|does|did|do|about|like|of|with|for|why|how|after|before|from|to|than|"
        r"besides|if|mean|has|can|will|would|could|should|on|at|by|doing|solve|fix) that\b"
        r"(?= (?:is|was|are|were|has|have|had|mean|means|work|works|cost|take|takes|possible|"
        r"true|the|to|for|in|on|with|still|also|not|do|does|apply|include|happen|so|be|"
        r"affect|all|different|better|enough|supported|compare|differ|configured|done|"
        r"come|called|and|or|at|by|from|as|get|go)\b)"
        r"|\bthat (?:one|case|way|option|error|method|model|version|feature|setting|value|file|"
        r"company|person|place|year|document|time|book|problem|step|part|issue|film|movie)\b"
        r"|\bthat$|\b(?:do|does|did|why|think) so\b|\bsuch (?!as\b|a lot\b)\w+"
        r"|(?<!is )(?<!are )(?<!was )(?<!were )(?<!be )(?<!has )(?<!have )(?<!been )(?<!will )"
        r"\bthere\b(?! (?:is|are|was|were|be|exist|a|any|no)\b)"
        r"|\b(?:aforementioned|mentioned|previous(?:ly)? (?:answer|question|step|message))\b"
        r"|\bboth\b(?!.*\band\b)|\bneither\b(?!.*\bnor\b)|\beach other\b|\binstead\b(?! of\b)"
        r"|\b(?:what|which|any|some) (?:are )?(?:the |some )?other\b(?!.*\b(?:than|besides|to)\b)"
        r"|\b(?:differ|differs|different|compare|compares)\b"
        r"(?!.*\b(?:from|than|to|with|against|between|and|types|kinds|ways)\b)"
        r"|\bwhich (?:is|are|one is) (?:more )?\w+er\b(?!.*\b(?:or|than|of)\b)"
        r"|\bthe \w+est (?:in|on|ever)\b"
        r"|\b(?:then|too|as well)$"
    ),
    openings=re.compile(
        r"(?:and |but |so |ok |okay )?(?:(?:what|how) about|(?:what if|what for)"
        r"(?=(?: \S+){0,5}$)|how (?:so|come)|why not|in (?:that|which) case|"
        r"same (?:for|with|question)|if (?:so|not)|really|are you sure|tell me more(?=$)|"
        r"(?:can|could) you (?:explain|elaborate|summarize|repeat|be more)\b"
        r"(?! (?:what|how|why|the|a|an|when|to)\b))\b"
    ),
)

_GERMAN_QUESTION_WORDS = _words(
    "was wer wen wem wessen welche welcher welches welchen welchem wann wo wohin woher warum wieso "
    "weshalb wie wieviel wozu womit wodurch wofür worauf woran wobei"
)
_GERMAN_PRONOUNS = _words(
    """
    dabei dadurch dafür dagegen dahinter damit danach daneben daran darauf daraus darin
    darunter darüber davon davor dazu deren dessen diese diesem diesen dieser dieses dort
    dorthin er es ihm ihn ihnen ihre ihrem ihren ihrer ihres jene jenem jenen jener jenes
    seine seinem seinen seiner seines sie solche solchen solcher solches
    """
)
GERMAN = FollowUpWords(
    function_words=_GERMAN_QUESTION_WORDS
    | _GERMAN_PRONOUNS
    | _words(
        """
        aber alle alles als also am an andere anderen anderer auch auf aus bei beim bin
        bis bitte da danke dann das dass dein dem den denn der des die doch du ein eine
        einem einen einer eines einmal erst etwas für gab geht genau gern gibt habe haben
        hat hatte ich ihr im in ist ja jetzt kann kannst können könnte machen man mehr
        mein meine meinem meinen meiner mich mir mit muss müssen nach nein nicht nichts
        noch nun nur ob oder ohne ok okay sag schon sehr sein seit sich sind so soll
        sollte sonst tun um und uns unter viel viele vom von vor war waren warum weiter
        wenn werden wir wird wirklich wurde wurden würde zu zum zur zwischen über
        """
    ),
    question_words=_GERMAN_QUESTION_WORDS
    | _words(
        "ist sind war waren hat haben kann können darf muss müssen soll wird werden gibt gab geht "
        "erkläre nenne zeige beschreibe vergleiche liste fasse"
    ),
    pronouns=_GERMAN_PRONOUNS,
    possessives=_words(
        "seine seiner seinen seinem seines ihre ihrer ihren ihrem ihres deren dessen"
    ),
    plurals=frozenset(),
    connectives=_words("und aber oder also dann denn sowie"),
    determiners=_words(
        "der die das den dem des ein eine einen einem einer eines mein meine meinen meinem meiner "
        "kein keine keinen jede jeder jedes alle welche welcher welches im am zum zur vom beim"
    ),
    definite=_words("der die das den dem des"),
    separators=_words(
        "wenn falls nachdem bevor während weil und aber dass ob sobald bis oder da obwohl indem als"
    ),
    prepositions=_words("für in im auf mit ohne bei beim unter unter von vom per zu zum zur an am"),
    relational=_words(
        """
        alternative alternativen anfang anforderungen anzahl art arten aufwand
        auswirkungen autor bedeutet bedeutung beispiel beispiele besser beste dauer dauert
        details einschränkungen ende ergebnis fehler folgen funktioniert geschichte grund
        größe größer gründe gründung günstiger höhe kosten kostet lange lösung möglich
        möglichkeiten nachteil nachteile nächste nächsten nächster optionen passiert
        passierte preis preise problem probleme quelle quellen risiken risiko rolle
        schneller schritt schritte standardwert symptome teuer typen unterschied
        unterschiede ursache ursachen version versionen voraussetzungen vorteil vorteile
        wert wichtig wichtigsten wirkung ziel ziele zweck
        """
    ),
    impersonal=re.compile(
        r"\b(?:gibt|gab|gäbe) es\b|\bes (?:gibt|gab|gäbe|dauert|lohnt|geht um|handelt)\b"
        r"|\b(?:ist|wäre|war) es (?:\w+ )?(?:möglich|erlaubt|sinnvoll|besser|nötig|notwendig|gut|"
        r"schlecht|wichtig|sicher|legal|ratsam|üblich|normal|wahr|schwer|einfach|leicht|schwierig)\b"
        r"|\b(?:dauert|lohnt|handelt|kommt|braucht|heißt|regnet|macht) es\b(?! \w+\s*$)"
        r"|\bwie spät ist es\b|\bgeht es (?:dir|ihnen|um)\b"
    ),
    pointers=re.compile(
        r"\b(?:der|die|das) (?:erste|zweite|dritte|letzte|andere|gleiche|selbe|obige|genannte)n?"
        r"(?=\s*$)|\b(?:dasselbe|derselbe|dieselbe[n]?|letztere[rs]?|erstere[rs]?|obige[nr]?|"
        r"genannte[nr]?|erwähnte[nr]?|vorherige[nr]?|beides|beiden?|stattdessen|ebenso|sonst noch|"
        r"was sonst|wer sonst|wo sonst)\b"
        r"|\b(?:noch mehr|mehr (?:details?|beispiele?|infos?|informationen|dazu|darüber)|"
        r"genauer|ausführlicher|weitere (?:beispiele|details|optionen|möglichkeiten|gründe))\b"
        r"|\b(?:der|die|das|den|dem)\s*$|\bso (?:etwas|was)\b|\bauch\s*$|\bdann\s*$|\bda\s*$"
    ),
    openings=re.compile(
        r"(?:und |aber |ok |okay )?(?:was ist mit|wie (?:sieht|steht|ist) es (?:mit|bei)|"
        r"warum (?:nicht|das)|wieso das|wirklich|bist du sicher|gilt das|geht das|"
        r"mach weiter|erzähl mehr|kannst du das|"
        r"zum beispiel|wenn ja|wenn nicht|falls nicht|falls ja)\b"
    ),
)
