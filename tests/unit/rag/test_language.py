from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.language import detect_language

TEXTS = {
    "en": "The balancer sends each request to the server that will answer it first.",
    "de": "Der Verteiler schickt jede Anfrage an den Server, der sie zuerst beantwortet.",
    "fr": "Le répartiteur envoie chaque demande au serveur qui y répondra le premier.",
    "es": "El distribuidor envía cada petición al servidor que la contestará primero.",
    "ru": "Балансировщик отправляет каждый запрос серверу, который ответит первым.",
    "uk": "Балансувальник надсилає кожен запит серверу, який відповість першим.",
    "zh": "负载均衡器把每个请求发送到最先回答的服务器。",
    "ja": "ロードバランサーは最初に答えるサーバーに要求を送ります。",
    "th": "ระบบส่งคำขอแต่ละรายการไปยังเซิร์ฟเวอร์ที่จะตอบก่อน",
}


@pytest.mark.parametrize(("language", "text"), TEXTS.items())
def test_a_sentence_tells_its_language(language: str, text: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    "text", ["", "timeout", "1,024 5.0", "https://example.org/a/b?c=d", "x = y"]
)
def test_what_is_no_prose_has_no_language(text: str) -> None:
    assert detect_language(text) == ""


def test_a_long_text_is_judged_by_all_its_parts() -> None:
    code = "x_1 = f(y_2)\n" * 100
    assert detect_language(code + TEXTS["de"] * 400 + code) == "de"


def test_several_threads_may_ask_at_once() -> None:
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(detect_language, TEXTS.values())) == list(TEXTS)


@given(st.text())
def test_any_text_has_a_code_of_two_letters_or_none(text: str) -> None:
    assert len(detect_language(text)) in (0, 2)
