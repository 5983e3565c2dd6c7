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
