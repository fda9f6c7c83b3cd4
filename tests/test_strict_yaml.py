"""The strict reader: what is written is what is read, or a ConfigError says where it is not; soon, whatever comes."""

import json
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError, Problem, key_path
from bench.suites.strict_yaml import compose, read


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read(text, "x.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+12", 12),
        ("-0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("None", "None"),
        ("nan", "nan"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("1:2", "1:2"),
        ("010", "010"),
        ("0123456", "0123456"),
        ("0x10", "0x10"),
        ("0o7", "0o7"),
        ("1_000", "1_000"),
        ("0-2", "0-2"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("{a: [1, {b: ~}]}", {"a": [1, {"b": None}]}),
        ("a: |\n  1\n  2\n", {"a": "1\n2\n"}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_scalars_mean_what_they_look_like(written, meant):
    value = read(written, "x.yaml").value
    assert value == meant
    assert type(value) is type(meant)


def test_positions_are_those_of_keys_and_items():
    document = read("# a comment\na: 1\nb:\n  - x\n  - {c: 2}\n", "x.yaml")
    assert document.position(("a",)) == (2, 1)
    assert document.position(("b", 1)) == (5, 5)
    assert document.position(("b", 1, "c")) == (5, 6)
    assert document.position(("b", 1, "missing", "deeper")) == (5, 5)
    assert document.position(("missing",)) == (1, 1)


def test_a_key_written_twice_is_refused_with_both_positions():
    (problem,) = problems("a:\n  b: 1\n  c: 2\n  b: {b: 3}\n")
    assert (problem.line, problem.column, problem.path) == (4, 3, ("a", "b"))
    assert str(problem) == "x.yaml:4: a.b: key written twice, first on line 2, column 3"


def test_all_problems_come_at_once_and_the_rest_is_still_read():
    text = (
        "a: .nan\nb: !!python/name:os.system 1\nc: &c [1]\nd: *c\n1: x\n<<: {}\nf: 1e999\ng: 9999999999999999999\nh: 2"
    )
    document = compose(text, "x.yaml")
    assert [problem.line for problem in document.problems] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert document.value["h"] == 2
    assert document.value["a"] is None
    with pytest.raises(ConfigError) as caught:
        read(text, "x.yaml")
    assert caught.value.problems == document.problems
    assert str(caught.value).count("\n") == 7


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: [1, 2\n", 3, "expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, r"'\t'"),
        ("a: 1\nb: c: 2\n", 2, "mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a: 1\nb: \x07\n", 2, r"'\x07'"),
        ("a: 1\n? [b]\n: 2\n", 2, "a string as key"),
        ("a: 1\n? ? ? ? b", 2, "a string as key"),
        ('a: "\\Uffffffff"', 1, "not YAML"),
        ('a: "\\ud800"', 1, "half a surrogate pair"),
        ("%YAML 1." + "1" * 5000 + "\n--- 1", 1, "not YAML"),
        ("a: 1\nb: *x", 2, "aliases"),
        ("true: 1", 1, "got true; quote it"),
        ("a: .inf", 1, "finite"),
        ("a: " + "9" * 5000, 1, "64-bit integer"),
    ],
)
def test_what_is_refused_is_refused_on_its_line(text, line, says):
    (problem,) = problems(text)
    assert problem.line == line
    assert says in problem.message


ATTACKS = {
    "flow nesting": "[" * 1_000_000,
    "flow mappings": "{a: " * 5000,
    "block nesting": "- " * 5000,
    "indentation": "\n".join("  " * depth + "a:" for depth in range(600)),
    "complex keys": "? " * 5000,
    "alias bomb": "a: &a [x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)),
    "merge bomb": "a: &a {k: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join(['*a'] * 9)}]}}\n" for i in range(9)),
    "loop": "&a [*a]",
    "many values": "- 1\n" * 200_000,
    "many repeated keys": "a: 1\n" * 50_000,
    "too large": "a" * 2_000_000,
    "digits": "1" * 1_000_000,
    "object": "!!python/object/apply:os.system ['exit']",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_soon(attack, slack):
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read(ATTACKS[attack], "x.yaml")
    assert len(str(caught.value)) < 10_000
    assert time.process_time() - started < slack


@pytest.mark.parametrize(("depth", "readable"), [(32, True), (33, False)])
def test_depth_has_a_limit(depth, readable):
    text = "[" * (depth + 1) + "]" * (depth + 1)
    assert bool(compose(text, "x.yaml").value) if readable else "32 levels" in problems(text)[0].message


class Dumper(yaml.SafeDumper):
    """PyYAML writes for YAML 1.1, where the string 1e5 needs no quotes: quote every string."""

    def ignore_aliases(self, data):
        return True


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
scalars |= st.floats(allow_nan=False, allow_infinity=False)
plain_data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@given(plain_data, st.sampled_from([None, True, False]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_written_out_is_read_back(data, flow, unicode):
    text = yaml.dump(data, Dumper=Dumper, default_flow_style=flow, allow_unicode=unicode, sort_keys=False)
    assert json.dumps(read(text, "x.yaml").value) == json.dumps(data)


pieces = [
    "a",
    "- ",
    ": ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x",
    "*x",
    "!t ",
    "<<",
    "? ",
    "|",
    ">",
    "#",
    "'",
    '"',
    "%",
]
pieces += [
    "1",
    "0",
    ".",
    "e",
    "\\",
    "\\u",
    "\t",
    "\r",
    "\x85",
    "---",
    "...",
    "~",
    "true",
    ".nan",
    "\ud800",
    "\0",
    "\ufeff",
]


@given(st.text() | st.lists(st.sampled_from(pieces), max_size=40).map("".join))
@example('"\\U00110000"')
@example("!<%FF> a")
@settings(max_examples=300, deadline=None)
def test_any_text_is_plain_data_or_a_config_error(text):
    try:
        document = read(text, "x.yaml")
    except ConfigError as error:
        assert all(isinstance(problem, Problem) and problem.line >= 1 for problem in error.problems)
        str(error)
    else:
        assert json.loads(json.dumps(document.value, allow_nan=False).encode()) == document.value


def test_key_paths_are_safe_to_print():
    assert key_path(("encoders", 2, "epochs")) == "encoders[2].epochs"
    assert key_path(("a", "\x1b[31m", "b c")) == r"a['\x1b[31m']['b c']"
