"""Words and phrases that name the same thing in a question, whatever it is about.

Each line is a group, led by the word that stands for it. A word is in one group only. Groups are
narrow on purpose: what is near but not the same ("fee" and "rate", "pause" and "stop") stays apart.
"""

from __future__ import annotations

from services.cache.core.semantic.inflection import base_form

__all__ = ["PHRASES", "standing_for"]

_GROUPS = """
activate enable activation turn_on switch_on power_on enablement
deactivate disable deactivation turn_off switch_off power_off
login log_in logon log_on sign_in signin logging_in log_into sign_into
logout log_out logoff log_off sign_out signout
register registration sign_up signup enroll enrol enrollment enrolment
subscribe subscription
cancel cancellation call_off terminate termination
begin start commence get_started initiate
end finish conclude
delete deletion remove removal erase get_rid_of
create creation set_up setup establish
buy purchase acquire
pay make_payment make_a_payment pay_for
transfer make_a_transfer money_transfer
withdraw withdrawal take_out make_a_withdrawal cash_withdrawal withdraw_cash withdraw_money
deposit pay_in paid_in
top_up topup topping
refund money_back reimburse reimbursement get_my_money_back
fee charge
cost price
change modify alter amend modification alteration
fix repair solve resolve troubleshoot remedy
verify verification confirm confirmation validate validation
identity id identification
show display
choose select pick selection choice
permit allow
forbid prohibit ban disallow
require requirement necessary required mandatory compulsory
assist help_with assistance
error failure fault
work function operate
broken out_of_order
install installation
backup back_up
restore restoration
configure configuration
settings preferences setting
picture photo photograph image
movie film
car automobile auto
bike bicycle
plane airplane aeroplane aircraft
phone telephone
cellphone mobile_phone cell_phone mobile smartphone
tv television telly
fridge refrigerator
laptop notebook
computer pc
website web_site site webpage
email e_mail mail_address electronic_mail
password passcode pass_word
username user_name
physician doctor
medicine medication drug
attorney lawyer
employee staff_member worker
vacation holiday annual_leave pto paid_time_off
resign quit resignation quitting
hire recruit
fire dismiss dismissal
child kid
mother mom mum mommy
father dad daddy
infant baby
movie_theater cinema
apartment flat
elevator lift
trash garbage rubbish
gasoline petrol
store shop
restroom toilet bathroom
big large
small little
fast quick quickly rapidly rapid
difference differ different distinction distinguish
guarantee warranty
near close_to nearby
approximately roughly
maximum max maximal upper_limit
minimum min minimal lower_limit
at_least no_less_than not_less_than no_fewer_than minimum_of
at_most no_more_than not_more_than up_to maximum_of
more_than greater_than exceeding in_excess_of
less_than fewer_than
deliver delivery
arrive arrival
depart departure
reserve reservation booking book
approve approval
reject rejection decline
deny denial refuse refusal
steal theft
live reside
occur take_place
recover recovery
request ask_for
return give_back bring_back send_back
replace replacement
shutdown shut_down power_down
restart reboot
expire expiry expiration
renew renewal
extend extension
contact reach_out_to get_in_touch_with get_hold_of
customer client
support customer_support customer_service
country nation
abroad overseas
united_states usa US us_of_a united_states_of_america u_s
united_kingdom uk great_britain
european_union eu
instead_of rather_than in_place_of
before prior_to ahead_of
until till
because_of due_to owing_to
daily every_day each_day per_day a_day
weekly every_week each_week per_week a_week
monthly every_month each_month per_month a_month
yearly every_year each_year per_year a_year annual annually per_annum
hourly every_hour each_hour per_hour
treat treatment
prevent prevention avoid
diagnose diagnosis
calculate compute calculation computation work_out figure_out
measure measurement
translate translation
define definition
speak talk
nearest closest
kubernetes k8s
javascript js
typescript ts
postgresql postgres
database db
operating_system os
artificial_intelligence ai
virtual_machine vm
2_factor_authentication 2fa 2_factor_auth 2_step_verification
multi_factor_authentication mfa
1_time_password otp 1_time_code
human_resources hr
automated_teller_machine atm cash_machine cashpoint cash_point
debit_card bank_card
wifi wi_fi
checkin check_in
checkout check_out
startup start_up
contain include
eat consume
hazardous dangerous
illegal unlawful against_the_law
legal lawful
sick ill
illness disease
cheap inexpensive
expensive costly
wrong incorrect
extra additional
use utilize utilise
increase raise
find locate
remain left leftover
frequently often
type kind
""".strip().split("\n")

_STANDS_FOR: dict[str, str] = {}
PHRASES: dict[str, list[tuple[tuple[str, ...], str]]] = {}
"""Groups' phrases in base forms by their first word, the longest first, and what each stands
    for."""


def _learn(group: str) -> None:
    leader, *others = group.split()
    leader = "_".join(map(base_form, leader.split("_")))
    for name in (leader, *others):
        words = tuple(map(base_form, name.split("_")))
        _STANDS_FOR["_".join(words)] = leader
        if len(words) > 1:
            PHRASES.setdefault(words[0], []).append((words[1:], leader))


for _group in _GROUPS:
    _learn(_group)
for _rests in PHRASES.values():
    _rests.sort(key=lambda rest: -len(rest[0]))


def standing_for(word: str) -> str:
    """Returns the word that stands for a word's group, or the word itself.

    Args:
        word: In its base form; a phrase's words joined by "_".
    """
    return _STANDS_FOR.get(word, word)
