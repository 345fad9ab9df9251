"""Claims about $name: the doctor sees the values that Postfix itself uses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from postfix_archive.postfix.configuration import Configuration

pytestmark = pytest.mark.live

MAIN = {
    "a": "A",
    "b": "B",
    "empty": "",
    "ref": "$empty",
    "loop": "$loop",
    "ring": "x${a?{$ring}}",
    "dollar": "$$x",
    "both": "$a${b?{-$a}}",
    "chain": "$chain0",  # as long as a chain may be
    **{f"chain{n}": f"$chain{n + 1}" for n in range(98)},
    "chain98": "end",
    "longer": "$chain",
    "longest": "$longer",
    "nested": "${a?{" * 40 + "x" + "}}" * 40,
    "deeper": "${a?{" * 110 + "x" + "}}" * 110,
}
CASES = """
$a  ${a}  $(a)  ${ a }  $a-b  $a.b  $a_b  $a$empty$a  x${a}y  $aa  $A  $5  $none
$$a  $$$a  $$$$  $a$$  price $$5  $dollar  ${dollar?{$dollar}}  $both
${a?x}  ${a?{x}}  ${a?{x}:{y}}  ${empty?{x}:{y}}  ${none?{x}:{y}}  ${none:d}
${empty:d ef}  ${empty:{d ef}}  ${empty:x:y}  ${a:x}  ${a?}  ${a:}  ${a?:}  ${empty?x:y}
${a?x:y}  ${a?{x}:y}  ${empty?{x}:y}  ${a?{x}:}  ${empty?{x}:}  ${a?x}:{y}
${a ? {x} : {y}}  ${empty ? {x} : {y}}  ${a ?x}  ${a?{x} }  [${a?{ x }:{ y }}]
[${a? x }]  ${a?{{x}}}  ${a?{x}:{y}}}  ${a?$b$$c}  ${a?{$$}}  {$a}  ${a}{$b}
${ref?{yes}:{no}}  ${ref:yes}  $ref  ${loop?{yes}}  ${a:$loop}  ${empty?$loop}
${a?{${empty?{1}:{2}}}}  ${a?{${b?{${ref}x}}}}  $(a?{x}:{y})  $(a?{p(q)})  $(a?(x))
${{$a} == {A}}  ${{$a} == {B}}  ${{$a}=={A}?{yes}:{no}}  ${{$a}!={A}?{yes}:{no}}
${{ $a } == {A}?{yes}:{no}}  ${{a}=={a}:{c}}  ${{a}!={a}:{c}}  ${{a}== {a} ? {x}}
${{10}<{9}?{yes}:{no}}  ${{9}<{10}?{yes}:{no}}  ${{b}<{a}?{yes}:{no}}
${{abc}>{ab}?{x}:{y}}  ${{a}>={a}?yes}  ${{a}<={b}?yes}  ${{09}=={9}?{yes}:{no}}
${{-1}<{2}?{x}:{y}}  ${{99999999999}<{1}?{x}:{y}}  ${{$none}=={}?{y}:{n}}
${{}=={}?t:f}  ${{é}=={é}?{x}:{y}}
$chain1  $nested
"""
ERRORS = """
$  ${  ${a  $(a  ${}  $()  $-  $ a  $a$  $é  ${a-b}  ${a.b}  ${a!x}  ${a{x}}  ${a b}
${a?{x}y}  ${a?{x}?{y}}  ${a?{x}:{y} z}  ${a:{x}:{y}}  ${empty:{x}:{y}}  ${a?{x}:{y
${{a} = {a}?x:y}  ${{a}<<{b}?x}  ${{a}=={b}?{c}:{d}x}  ${{a}==$a?x}  ${{a}==a?x}
${{1}<{2}  ${{a}=={b}?{x}  ${{a}}  $loop  x $loop y
$deeper  $longer  $ring  ${{$loop}=={a}?x}
"""


def postconf(directory: Path, values: dict[str, str]) -> subprocess.Popen[str]:
    """Have postconf expand these parameters; relayhost refers to them all."""
    parameters = {
        **MAIN,
        "relayhost": " ".join(f"${name}" for name in values),
        **values,
    }
    lines = [f"{name} = {text}\n" for name, text in parameters.items()]
    directory.mkdir()
    (directory / "main.cf").write_text("compatibility_level = 3.6\n" + "".join(lines))
    os.utime(directory / "main.cf", (0, 0))  # postconf waits for a file just changed
    (directory / "master.cf").touch()
    command = ["postconf", "-c", str(directory), "-xh", *values]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def cases(text: str) -> list[str]:
    return [each for line in text.split("\n") for each in line.split("  ") if each]


def expand(values: list[str]) -> dict[str, str]:
    config = Configuration("/etc/postfix", MAIN, {}, ())
    return {each: config.expand(each) for each in values}


def test_a_value_expands_as_postconf_x_prints_it(tmp_path: Path) -> None:
    values = cases(CASES)
    parameters = {f"case{n}": line for n, line in enumerate(values)}
    with postconf(tmp_path / "etc", parameters) as process:
        output = process.communicate()[0]
    assert process.returncode == 0
    printed = [line.strip() for line in output.splitlines()]
    assert len(printed) == len(values) > 80
    assert expand(values) == dict(zip(values, printed, strict=True))


def test_a_chain_of_names_may_be_as_long_as_for_postfix(tmp_path: Path) -> None:
    with postconf(tmp_path / "etc", {"relayhost": "$chain"}) as process:
        assert process.communicate()[0] == "end\n"
    assert expand(["$chain"]) == {"$chain": "end"}


def test_what_postconf_rejects_stays_as_written(tmp_path: Path) -> None:
    """postconf sleeps for a second when it has failed: all run at once."""
    values = cases(ERRORS)
    assert len(values) > 30
    processes = [
        postconf(tmp_path / str(n), {"relayhost": each})
        for n, each in enumerate(values)
    ]
    for process in processes:
        process.communicate()
    accepted = zip(values, processes, strict=True)
    assert [value for value, each in accepted if each.returncode != 1] == []
    assert expand(values) == {each: each for each in values}
