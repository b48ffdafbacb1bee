"""What pykickstart makes of many kickstarts, in one process.

stdin:  {"version": "RHEL9", "kickstarts": [text, ...], "words": [[word, value], ...]}
stdout: {"shapes": [shape or message, ...], "words": [each pair where the word does not mean the value]}
"""

import json
import shlex
import sys
import warnings

from pykickstart.errors import KickstartParseWarning
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

warnings.filterwarnings("error", category=KickstartParseWarning)
order = json.load(sys.stdin)


class Parser(KickstartParser):
    """Notes which command stands where."""

    def handleCommand(self, lineno, args):
        self.commands.append([lineno, args[0]])
        return super().handleCommand(lineno, args)


def shape(text):
    parser = Parser(makeVersion(order["version"]), followIncludes=False)
    parser.commands = []
    try:
        parser.readKickstartFromString(text)
    except Exception as error:
        return str(error)
    packages = parser.handler.packages
    lists = (packages.packageList, packages.groupList, packages.excludedList, packages.excludedGroupList)
    return {
        "commands": parser.commands,
        "packages": sum(len(names) for names in lists),
        "scripts": [[one.type, one.lineno, one.script.count("\n")] for one in parser.handler.scripts],
    }


def is_value(word, value):
    line = f"command {word}\n"
    try:
        return len(line.splitlines()) == 1 and shlex.split(line, comments=True) == ["command", value]
    except ValueError:
        return False


json.dump(
    {
        "shapes": [shape(text) for text in order["kickstarts"]],
        "words": [pair for pair in order["words"] if not is_value(*pair)],
    },
    sys.stdout,
)
