"""The Dockerfile: what it copies must be what the install targets made, and its commands must work."""

import json
import pathlib
import re

import layout


def problems(dockerfile: pathlib.Path, images: dict[str, pathlib.Path], ask, prefix):
    """Stages are images; the build stage must install for each, and each must copy its own tree."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    stages, commands = {}, []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            commands = stages[rest.split(" AS ")[1]] = []
        else:
            commands.append((instruction, rest))

    build = " ".join(rest for instruction, rest in stages.get("build", []) if instruction == "RUN")
    for image, root in images.items():
        stage = image.removeprefix("dysvr-")
        where = f"Dockerfile, {image}"
        if stage not in stages:
            yield f"{where}: there is no such stage"
            continue
        values = dict(stages[stage])
        if f"make install-{stage} DESTDIR=/out/{stage}" not in build or values.get("COPY") != f"--from=build /out/{stage}/ /":
            yield f"{where}: does not carry what install-{stage} installs"
        words = json.loads(values.get("ENTRYPOINT", "[]")) + json.loads(values.get("CMD", "[]"))
        if not words or not layout.exists(root, words[0]):
            yield f"{where}: starts {words[:1]}, which is not in it"
        else:
            yield from ask.problems(where, words, prefix)
    if dict(stages.get("node", [])).get("STOPSIGNAL") != "SIGQUIT":
        yield "Dockerfile, dysvr-node: without STOPSIGNAL SIGQUIT a stop cuts requests"
