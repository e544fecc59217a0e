# ruff: noqa: RUF001 (words of many alphabets)
"""Words that say nothing about what a question is after, by language."""

from collections.abc import Iterable, Sequence

__all__ = ["STOP_WORDS", "stop_words_of"]

_LISTS = {
    "en": """
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
""",
    "de": """
aber als am an auch auf aus bei beim bin bis bist da damit dann das dass dein deine dem den denn
der des die dies diese diesem diesen dieser dieses doch dort du durch ein eine einem einen einer
eines er es etwas euch euer für gibt hat hatte hatten ich ihm ihn ihnen ihr ihre ihrem ihren ihrer
im in ins ist ja jede jedem jeden jeder jedes kann kein keine können man mein meine mich mir mit
muss nach nicht noch nun nur ob oder ohne sehr sein seine seinem seinen seiner sich sie sind so
soll sollte sondern sowie um und uns unser unsere unter viel vom von vor war waren warum was
welche welchem welchen welcher welches wem wen wenn wer werden weshalb wessen wie wieso wieviel
wird wo wodurch woher wohin womit worden wurde wurden zu zum zur zwischen über
""",
    "fr": """
ai alors au aucun aussi autre aux avait avec avez avons ce cela celle celui ces cet cette
chez combien comme comment dans de depuis des donc dont du elle elles en encore entre
es est est-ce et étaient était été être eu eux fait il ils je la le les leur leurs lors
lui là ma mais me mes moi mon même ne ni nos notre nous on ont ou où par parce pas peut plus
pour pourquoi est-ce quand que quel quelle quelles quels qui quoi
sa sans se selon ses si son sont sous sur ta tant te tes toi ton tous tout toute toutes très tu un
une vers vos votre vous y à
""",
    "es": """
a al algo ante aquel aquella así aunque cada como cómo con contra cual cuál cuáles cuales cuando
cuándo cuanta cuánta cuánto cuántos cuántas de del desde donde dónde dos durante e el él ella ellas
ellos en entre era eran es esa esas ese eso esos esta está están estas este esto estos fue fueron
ha había hace hacia han hasta hay la las le les lo los más me mi mis mucho muy nada ni no nos
nosotros nuestra nuestro o os otra otro para pero por porque puede que qué quién quien quienes se
sea según ser si sí sin sobre son su sus también tan tanto te tenía tiene tienen todo todos tu tus
un una unas uno unos usted ustedes y ya yo
""",
    "it": """
a agli ai al alla alle allo anche che chi ci come con contro cosa così cui da dagli dai dal dalla
dalle dallo degli dei del della delle dello dentro di dopo dove e è ed era erano essere fra gli ha
hanno ho i il in io la le lei li lo loro lui ma mi mia mio ne negli nei nel nella nelle nello
no noi non nostra nostro o ogni per perché però più può quale quali quando quanta quante quanti
quanto quella quelle quelli quello questa queste questi questo qui sé se senza si sia siamo sono
stata stato su sua sue sugli sui sul sulla sulle sullo suo suoi ti tra tu tua tuo tutti tutto un
una uno vi voi
""",
    "pt": """
a ao aos aquela aquele as à às até com como da das de dela dele deles depois do dos e é ela elas
ele eles em entre era eram essa esse esta está estão este eu foi foram há isso isto já lhe mais mas
me mesmo meu minha muito na nas nem no nos nossa nosso num numa não o onde os ou para pela pelas
pelo pelos por porque porquê pode qual quais quando quanta quantas quanto quantos que quê quem se
seja sem ser seu seus só são sobre sua suas também te tem têm teve tinha tu tua um uma você vocês
""",
    "nl": """
aan al alle als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er
ge geen had heb hebben heeft het hem hen hier hij hoe hoeveel hun iemand iets ik in is ja je kan
kunnen kon maar me meer men met mij mijn moet na naar niet niets nog nu of om omdat ons onze ook op
over reeds te tegen toch toen tot u uit uw van veel voor waar waarom wanneer want waren was wat
welk welke werd wezen wie wij wil worden wordt zal ze zelf zich zij zijn zo zonder zou
""",
    "sv": """
alla att av blev bli blir både de dem den denna deras dess det detta dig din dina ditt du där då
efter eller en er ett finns från för ha hade han hans har hon henne hur hennes i icke inom inte ja
jag kan man med mellan men mig min mina mitt mot mycket ni nu när någon något några och om oss på
samma sedan sig sin sina sitt själv ska skall skulle som så till under upp ut utan vad var vara
varför varit varje vart vem vems vi vid vilka vilken vilket vår våra än är åt över
""",
    "da": """
af alle alt anden at blev blive bliver da de dem den denne der deres det dette dig din disse dog du
efter eller en end er et for fra ham han hans har havde have hende her hos hun hvad hvem hvilke
hvilken hvilket hvis hvor hvordan hvorfor hvornår i ikke ind ja jeg kan man mange med meget men mig
min mine mit mod ned noget nogle nu når og også om op os over på selv sig sin sine sit skal skulle
som sådan til ud under var vi vil ville vor være været
""",
    "no": """
alle at av bare begge ble blei bli blir da de deg dem den denne der deres det dette din disse du
eller en enn er et etter for fordi fra før ha hadde han hans har hennes her hun hva hvem hver
hvilke hvilken hvilket hvis hvor hvordan hvorfor hvorhen i ikke inn ja jeg kan kunne man mange med
meg men mer min mine mitt mot mye må ned noe noen nå når og også om opp oss over på samme seg selv
si sin sine sitt skal skulle slik som så til ut uten var vi vil ville vår være vært å
""",
    "fi": """
ei eikä eivät ja jo joka jonka jos josta jota jotka kuin kuinka kuka ketkä kun mikä miksi milloin
minkä minä missä mistä mitä mitkä montako mukaan mutta myös ne niiden niin nyt ole olen olet oli
oliko olivat olla on onko ovat paljonko se sekä sen siellä sinä sitä tai tämä tämän te vai vaan
voi vielä että
""",
    "ru": """
а без более бы был была были было быть в вам вас весь во вот все всего всех вы где да даже для до
его ее её если есть еще ещё же за здесь и из или им их к как какая какие какой каково когда кого
который которая которые которое кто куда ли мне мной мы на над нас не него нее неё нет ни них но о
об он она они оно от откуда по под почему при про с сколько со так также такой там то того тоже
только том тот у уже чего чем что чтобы чья эта эти это этого этой этом этот я
""",
    "pl": """
a aby ale bardzo bez bo był była było były być ci co czego czemu czy dla do gdy gdzie go i ich ile
im ja jak jaka jaki jakie jako je jego jej jest jeszcze jeśli już każdy kiedy kim kogo kto która
które który ku lub ma mają mi mnie mu my na nad nam nas nie nich nim niż o od on ona one oni oraz
po pod poza przed przez przy są się skąd sobie ta tak także tam te tego tej ten to tu tutaj tylko
tym ty u w we więc wy z za ze że
""",
    "cs": """
a aby ale ani až bez bude by byl byla bylo byly být co čem či do ho i jak jaká jaké jaký je jeho
její jejich jen ještě již jsem jsme jsou k kam kde kdo kdy kolik která které který ku má mají mezi
mi mu my na nad nebo než ni o od on ona oni pak po pod podle pokud pro proč protože před přes při s
se si své ta tak také tam ten to toho tom tu ty u už v ve však z za ze že
""",
    "hu": """
a az azok azt csak de e egy el én ennek és ez ezek ezt fel ha hány hogy hogyan hol honnan hova
ki kik kinek is itt le lesz lett már meg mely melyik mennyi mert mi miért mikor milyen mint mit
mivel még ne nem ők ő pedig s sem szerint te vagy van vannak volt voltak
""",
    "ro": """
a acea aceasta acest aceste acești al ale am ar are as au ca că câte câți cât când care ce cea cei
cel cele cine cu cum cui de deci despre din după dar e ea ei el ele era este eu fi fiind fost în
îi îl îmi între la le lor lui mai mi ne nici noi nu o ori pe pentru prin sa să sau se si și sub sunt
te tu un una unde unei unor unui va voi
""",
    "tr": """
acaba ama bana bazı ben bir biz bu bunu da daha de defa değil diye en gibi hangi hem hep her hiç
için ile ise kaç kadar ki kim kimin mi mı mu mü nasıl ne neden nedir nerede nereye niçin niye o
olan olarak oldu olduğu sen siz şey şu ve veya ya yani
""",
    "el": """
αλλά αν από αυτά αυτές αυτή αυτό αυτός για δεν εγώ είναι εκεί ένα ένας επί ή η ήταν θα και κατά με
μετά μη μια μία μου να ο οι όπως όταν ότι πόσα πόσο πόσοι που πού ποια ποιο ποιος ποιοι πώς πότε
προς σαν σε στα στη στην στις στο στον στους τα τη την της τι τις το τον του τους των ως γιατί
""",
    "ar": """
أن أو أي أين إلى إن إذا التي الذي الذين الى ان او بعد بين تلك ثم حتى حول خلال ذلك على عن عند عندما
غير في قبل قد كان كانت كل كما كم كيف لا لقد لكن لم لماذا لن له لها ليس ما ماذا متى مع من منذ هذا
هذه هل هم هناك هو هي و وما يكون
""",
    "hi": """
अपने इस इसके इसे उन उनके उस उसके एक और कब कहाँ का कि कितना कितने की के को कौन क्या क्यों कैसे गया
जब जो तक तो था थी थे द्वारा ने पर भी में यह या ये रहा लिए वह वे साथ से हुआ हुई है हैं हो होता किस किसने
""",
    "id": """
ada adalah agar akan antara apa apakah atau bagaimana bagi bahwa banyak berapa bisa dalam dan dapat
dari dengan di dia hanya ini itu jika juga kami kapan karena kepada kita lebih mana mengapa mereka
oleh pada para saat saya sebagai sebuah siapa tersebut telah tetapi tidak untuk yang
""",
    "ca": """
a al als amb aquest aquesta aquests això com de del dels des el els em en entre era es és està fins
ha hi i ja la les li lo més mes molt no o on per però perquè pot qual quals quan quant quants
que què qui se sense ser si són seu seva sobre també tot un una uns y
""",
}

STOP_WORDS = {language: frozenset(words.casefold().split()) for language, words in _LISTS.items()}
"""Stop words by ISO 639-1 code, casefolded."""


def stop_words_of(words: Iterable[str], languages: Sequence[str]) -> frozenset[str]:
    """Returns the stop words of the language that most of the words are stop words of.

    A question has too few letters to tell its language from these, but hardly one has no
    stop word. Where several languages fit equally well, the first counts.

    Args:
        words: Words of a question, casefolded.
        languages: ISO 639-1 codes, the likeliest first.
    """
    asked = frozenset(words)
    lists = [STOP_WORDS.get(language, frozenset()) for language in languages]
    return max(lists, key=lambda words_of: len(asked & words_of), default=frozenset())
