"""Words that say the opposite of each other, and words of degree."""

from __future__ import annotations

import re

from services.cache.core.semantic.inflection import base_form
from services.cache.core.semantic.synonyms import standing_for

__all__ = ["are_opposites", "is_of_degree"]

_PAIRS = """
    on off|activate deactivate|enable disable|in out|up down|before after|above below|over under
    inside outside|indoor outdoor|indoors outdoors|start stop|begin end|open close|buy sell
    lend borrow|push pull|enter exit|arrive depart|arrival departure|come go|import export
    upload download|lock unlock|block unblock|mute unmute|subscribe unsubscribe|install uninstall
    encrypt decrypt|compress decompress|mount unmount|attach detach|connect disconnect|link unlink
    pair unpair|grant revoke|allow forbid|allow deny|permit forbid|permit deny|accept reject
    approve reject|accept decline|accept refuse|include exclude|inclusive exclusive
    increase decrease|increase reduce|raise lower|raise reduce|raise cut|rise fall|grow shrink
    gain lose|win lose|earn spend|save spend|deposit withdraw|credit debit|income expense
    profit loss|asset liability|asset debt|send receive|give take|give receive|get give|add remove
    add delete|add subtract|add deduct|insert delete|create delete|create destroy|build demolish
    multiply divide|plus minus|hire fire|join leave|register cancel|subscribe cancel|renew cancel
    freeze unfreeze|freeze thaw|heat cool|warm cool|hot cold|dry wet|wash dry|fill empty|full empty
    light dark|light heavy|bright dark|early late|first last|old new|old young|fast slow|long short
    tall short|high low|big small|large small|wide narrow|thick thin|deep shallow|strong weak
    hard soft|hard easy|easy difficult|simple complex|safe dangerous|safe unsafe|legal illegal
    valid invalid|right left|right wrong|correct incorrect|true false|positive negative|good bad
    best worst|better worse|cheap expensive|rich poor|free paid|public private|internal external
    inbound outbound|incoming outgoing|domestic international|national international|local remote
    local global|online offline|manual automatic|synchronous asynchronous|static dynamic
    active inactive|visible hidden|show hide|expand collapse|maximize minimize|maximum minimum
    max min|upper lower|top bottom|front back|forward backward|forwards backwards|next previous
    following previous|ascending descending|horizontal vertical|row column|vertically horizontally
    even odd|same different|similar different|equal unequal|always never|all none|everyone nobody
    male female|man woman|boy girl|husband wife|mother father|son daughter|brother sister
    buyer seller|lender borrower|landlord tenant|employer employee|teacher student|doctor patient
    plaintiff defendant|seller purchaser|sender recipient|sender receiver|host guest|parent child
    master replica|primary secondary|primary replica|source destination|source target
    origin destination|client server|read write|input output|encode decode|serialize deserialize
    push pop|enqueue dequeue|acquire release|allocate free|promote demote|upgrade downgrade
    love hate|like dislike|cause prevent|cause cure|cause relieve|improve worsen|help harm
    alive dead|birth death|born die|marry divorce|married single|married divorced
    pregnant nonpregnant|asleep awake|sleep wake|inhale exhale|morning evening|day night
    summer winter|weekday weekend|north south|east west|northern southern|eastern western
    sunrise sunset|single double|single return|single multiple|prepaid postpaid|gross net
    fixed variable|temporary permanent|full_time part_time|voluntary mandatory|optional mandatory
    optional require|pass fail|succeed fail|success failure|work fail|fresh stale|fresh frozen
    raw cook|sweet sour|sweet savory|vegetarian meat|peel unpeel|boil freeze|tighten loosen
    zip unzip|pack unpack|wrap unwrap|load unload|turn_up turn_down|speed_up slow_down
    scale_up scale_down|scale_out scale_in|roll_out roll_back|check_in check_out|login logout
    opt_in opt_out|clock_in clock_out|pick_up drop_off|take_off land|plug_in unplug
    startup shutdown|start shutdown|put_on take_off|go_up go_down|zoom_in zoom_out
    open_up close_down|more less|most least|many few|at_least at_most|more_than less_than
    longer shorter|higher lower|with without|for against|win defeat|attack defend|guilty innocent
    civil criminal|major minor|adult minor|adult child|qualify disqualify|comply violate
    obey violate
    """.strip()
_PREFIXES = re.compile(r"(?:un|in|im|il|ir|dis|de|non|non_|mis|anti|counter|re_?)$")
_DEGREES = frozenset(
    base_form(word)
    for word in re.findall(
        r"\S+",
        """more less most least fewer few better worse best worst maximum minimum max min
        at_least at_most more_than less_than further farther top bottom""",
    )
)
_DEGREE_ENDING = re.compile(
    r"(?:big|small|large|great|high|low|long|short|old|young|new|fast|slow|quick|cheap|hot|cold"
    r"|warm"
    r"|cool|hard|soft|easy|easi|early|earli|late|lat|near|close|clos|wide|wid|deep|thick|thin"
    r"|strong|weak|heavy"
    r"|heavi|light|bright|dark|safe|saf|rich|poor|dry|dri|wet|simple|simpl|busy|busi|clean|tall"
    r"|loud|quiet"
    r"|small|few|nice|nic|healthi|costli|happi|nasti|friendli|steep|broad|narrow|tough|rough"
    r"|sharp|smart"
    r"|larg|tight|loose|loos|fresh|sweet|sour|kind|calm|bigg|hott|thinn|wett)(?:er|est)$"
)


def _form(word: str) -> str:
    return standing_for("_".join(base_form(part) for part in word.split("_")))


_OPPOSITES = frozenset(
    frozenset(map(_form, pair.split())) for pair in _PAIRS.replace("\n", "|").split("|")
)


def are_opposites(word: str, other: str) -> bool:
    """Whether two words say the opposite of each other; base forms that stand for their groups."""
    if frozenset((word, other)) in _OPPOSITES:
        return True
    short, long = sorted((word, other), key=len)
    return (
        len(short) > 4
        and long.endswith(short)
        and _PREFIXES.fullmatch(long.removesuffix(short)) is not None
    )


def is_of_degree(word: str) -> bool:
    """Whether a word compares: "more", "cheapest", "at least"."""
    return word in _DEGREES or _DEGREE_ENDING.fullmatch(word) is not None
