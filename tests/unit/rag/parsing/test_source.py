import pytest

from services.rag.core.parsing import parse_document

SOURCES = {
    "Engine.java": (
        """package x;

/** Runs. */
@Service
public class Engine<T> extends Base {
    private final int x = 1;

    /** Starts. */
    public void start(String a) {
        if (a) { run("}"); }
    }

    static List<String> names() { return null; }
}

interface Foo {}
""",
        ["", "Engine", "Engine.start", "Engine.names", "Foo"],
    ),
    "a.rs": (
        "use std;\n\n/// doc {\npub fn main<'a>() {\n    let c = '{';\n}\n\n"
        "impl<T> Foo for Bar<T> {\n    fn go(&self) -> u8 { 1 }\n}\nstruct S;\n",
        ["", "main", "Foo", "Foo.go", "S"],
    ),
    "a.c": (
        "#include <x.h>\n\n/* { */\nstatic int\nadd(int a, int b)\n{\n    return f(a);\n}\n\n"
        "int main(void) {\n    char c = '{';\n    for (;;) {}\n}\n",
        ["", "add", "main"],
    ),
    "a.ts": (
        "import {a} from 'b';\nexport const load = async (x) => {\n  return x;\n};\n"
        "function g() {\n  return `a\nfunction no() {}\n`;\n}\n"
        "export default class K extends L {\n  constructor() {}\n  async load(x) {\n  }\n}\n",
        ["", "load", "g", "K", "K.constructor", "K.load"],
    ),
    "a.go": (
        "package main\n\nfunc (s *Server) Start(ctx C) error {\n\treturn nil\n}\n\n"
        "type Foo struct {\n\tA int\n}\n",
        ["", "Start", "Foo"],
    ),
    "a.sh": (
        "#!/bin/bash\nset -e\n# runs\nrun() {\n  echo hi\n}\nfunction stop {\n  :\n}\n",
        ["", "run", "stop"],
    ),
    "a.rb": ("class Foo\n  def bar\n    1\n  end\nend\n", ["Foo", "Foo.bar"]),
    "a.sql": (
        "CREATE TABLE IF NOT EXISTS users (\n  id int\n);\n\nCREATE OR REPLACE VIEW v AS\n"
        "  SELECT 1;\n",
        ["users", "v"],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_definitions_open_sections_and_the_text_stays_as_it_is(name: str) -> None:
    source, expected = SOURCES[name]
    document = parse_document(source.encode(), file_name=f"src/{name}", title="t")
    assert document.text == source
    assert [(s.heading_path or ("",))[-1] for s in document.sections] == expected


def test_a_comment_belongs_to_the_definition_below_it() -> None:
    document = parse_document(SOURCES["Engine.java"][0].encode(), file_name="Engine.java")
    first = document.sections[1].blocks[0]
    assert document.text[first.char_start :].startswith("/** Runs. */\n@Service\npublic class")
