"""Token estimates follow what models report, and a report far too low tells of a cut prompt."""

import pytest

from services.rag.core.prompt_size import PromptSizes
from services.rag.core.tokens import estimate_tokens

LONG = "The pump of hall nine is serviced by the night crew in May. " * 200
SHORT = "The pump of hall nine."


def test_the_factor_of_a_model_follows_its_reports():
    sizes = PromptSizes()
    assert sizes.factor("a", LONG) == 1.0
    for _ in range(40):
        assert not sizes.report("a", LONG, int(0.8 * estimate_tokens(LONG)))
    assert sizes.factor("a", LONG) == pytest.approx(0.8, abs=0.01)
    assert sizes.estimate("a", SHORT) == pytest.approx(0.8 * estimate_tokens(SHORT), abs=0.2)
    assert sizes.factor("b", LONG) == 1.0


def test_a_cut_prompt_is_noticed_and_teaches_nothing():
    sizes = PromptSizes()
    for _ in range(3):
        sizes.report("a", LONG, estimate_tokens(LONG))
    assert sizes.report("a", LONG, int(0.84 * estimate_tokens(LONG)))
    assert not sizes.report("a", LONG, int(0.86 * estimate_tokens(LONG)))
    assert sizes.factor("a", LONG) > 0.96


def test_before_a_model_is_known_only_a_gross_cut_is_noticed():
    sizes = PromptSizes()
    assert not sizes.report("a", LONG, int(0.6 * estimate_tokens(LONG)))
    assert PromptSizes().report("a", LONG, int(0.4 * estimate_tokens(LONG)))


def test_a_short_prompt_is_never_cut_and_no_report_says_nothing():
    sizes = PromptSizes()
    assert not sizes.report("a", SHORT, 1)
    assert not sizes.report("b", LONG, 0)
    assert sizes.factor("b", LONG) == 1.0


def test_scripts_are_learned_apart():
    sizes = PromptSizes()
    wide = "\u6c34\u6cf5\u5728\u4e94\u6708\u7ef4\u62a4\u3002" * 50
    sizes.report("a", wide, int(0.6 * estimate_tokens(wide)))
    assert sizes.factor("a", wide) == pytest.approx(0.6, abs=0.01)
    assert sizes.factor("a", LONG) == 1.0
