import json

import pytest

from pannier.commands.judged_sets import BadJudgedSet, JudgedDocument, open_judged_set

DOCUMENTS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "d2", "title": None, "text": " "},
    {"_id": "d3", "text": "third"},
]
QUERIES = [{"_id": name, "text": f"question {name}"} for name in ("q1", "q2", "q3")]
JUDGEMENTS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td3\t0\nq3\td3\t2\n"


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text(JUDGEMENTS)
    return tmp_path


def test_a_folder_gives_its_judged_queries_and_its_documents(folder):
    found = open_judged_set(folder)
    assert found.split == "train"
    assert [(each.query_id, dict(each.grades)) for each in found.queries] == [
        ("q1", {"d1": 1, "d3": 0}),
        ("q3", {"d3": 2}),
    ]
    assert found.document_count == 2
    assert list(found.documents()) == [
        JudgedDocument("d1", "One", "first"),
        JudgedDocument("d3", "", "third"),
    ]


def test_judgements_of_the_test_come_first_and_need_no_heading(folder):
    (folder / "qrels" / "test.tsv").write_text("q2\td1\t1\n")
    assert [each.query_id for each in open_judged_set(folder).queries] == ["q2"]
    assert [each.query_id for each in open_judged_set(folder, split="train", limit=1).queries] == [
        "q1"
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.jsonl", "{}\n", "line 1"),
        ("corpus.jsonl", '{"_id": "d", "text": "x"}\n{broken\n', "line 2"),
        ("queries.jsonl", '{"_id": 5, "text": "x"}\n', "line 1"),
        ("queries.jsonl", '{"_id": "q9", "text": "x"}\n', "no query"),
        ("queries.jsonl", None, "cannot be read"),
        ("qrels/train.tsv", "q1\td1\t1\nq1\td1\n", "line 2"),
        ("qrels/train.tsv", None, "no .tsv"),
    ],
)
def test_what_a_folder_lacks_is_named(folder, name, content, message):
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadJudgedSet, match=message):
        open_judged_set(folder)
