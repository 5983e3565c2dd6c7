"""The command lines that the documentation shows."""

import pathlib
import re
import shlex

# Programs whose command lines can be asked for without a prefix.
SHOWN = ("dysvrctl", "dysvr-node", "dysvr-controller")


def problems(top: pathlib.Path, ask, prefix):
    """Every line of a fenced block that starts one of SHOWN must be one that it understands."""
    for document in [*top.glob("*.md"), *top.glob("deploy/*.md")]:
        for block in re.findall(r"^ *```.*?\n(.*?)^ *```", document.read_text(), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.strip().startswith(SHOWN) or not line.isascii():  # pictures are not ASCII
                    continue
                words = []
                for word in shlex.split(line, comments=True):
                    if word in ("&", "&&", "|", ">", ";", "||"):
                        break
                    words.append(word)
                yield from ask.problems(document.name, words, prefix)


def directive_problems(top: pathlib.Path):
    """README's table of directives must be that of the code, no more and no less."""
    tables = (source.read_text() for folder in ("http", "main_conf") for source in (top / "conf/src" / folder).glob("**/*.rs"))
    real = {name for text in tables for name in re.findall(r'\bDirective::new\(\s*"(\w+)"', text)}
    section = (top / "README.md").read_text().partition("\n## Directives\n")[2].partition("\n\nOurs:")[0]
    shown = {name for row in re.findall(r"^\| .* \| (.*) \|$", section, re.M) for name in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))}
    yield from (f"README.md: the directive {name} is missing" for name in sorted(real - shown))
    yield from (f"README.md: there is no directive {name}" for name in sorted(shown - real))
