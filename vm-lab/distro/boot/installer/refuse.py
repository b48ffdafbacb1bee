"""What of kickstart is carried out. All else is an error, so that a green run never means "ignored"."""

import shlex
from pathlib import Path

from common import Refused

ANY = None

# Command -> option -> the values it is carried out with (ANY: every value). "" stands for words
# that are no option. Which release knows which of them is pykickstart's to say.
CARRIED_OUT = {
    "cmdline": {}, "text": {}, "skipx": {}, "reboot": {}, "zerombr": {},
    "lang": {"": ANY}, "keyboard": {"--vckeymap": ANY},
    "timezone": {"": ANY, "--utc": {""}, "--ntpservers": ANY}, "timesource": {"--ntp-server": ANY},
    # Shadow passwords and SHA-512 are what this distribution has anyway.
    "authconfig": {"--enableshadow": {""}, "--passalgo": {"sha512"}},
    "url": {"--url": ANY}, "repo": {"--name": ANY, "--baseurl": ANY, "--cost": ANY},
    "rootpw": {"--lock": {""}}, "user": {"--name": ANY, "--uid": ANY, "--gid": ANY, "--lock": {""}},
    "selinux": {"--enforcing": {""}, "--permissive": {""}}, "firewall": {"--disabled": {""}},
    "services": {"--enabled": ANY, "--disabled": ANY}, "firstboot": {"--disable": {""}},
    "eula": {"--agreed": {""}},
    "network": {"--device": ANY, "--bindto": {"mac"}, "--bootproto": {"static"}, "--ip": ANY,
                "--netmask": ANY, "--gateway": ANY, "--nameserver": ANY, "--hostname": ANY,
                "--noipv6": {""}, "--onboot": {"yes"}, "--activate": {""}},
    "ignoredisk": {"--only-use": ANY},
    "clearpart": {"--all": {""}, "--none": {""}, "--list": ANY, "--drives": ANY, "--initlabel": {""},
                  "--disklabel": {"gpt", "msdos"}},
    "bootloader": {"--location": {"mbr"}, "--boot-drive": ANY, "--append": ANY, "--timeout": ANY},
    "reqpart": {"--add-boot": {""}},
    "part": {"": ANY, "--fstype": {"xfs", "ext4", "swap"}, "--size": ANY, "--grow": {""},
             "--recommended": {""}, "--label": ANY, "--onpart": ANY, "--noformat": {""}},
}
SECTIONS = {
    "%packages": {"--exclude-weakdeps", "--excludeWeakdeps", "--excludedocs", "--inst-langs", "--instLangs"},
    "%pre": {"--interpreter", "--log"},
    "%post": {"--interpreter", "--log", "--nochroot", "--erroronfail"},
    "%onerror": {"--interpreter", "--log"},
    "%addon": {"com_redhat_kdump", "--disable"},
}


def refuse_what_is_not_carried_out(path: str, depth: int = 0) -> None:
    """Reads the kickstart line by line, as it stands, before anything believes in it."""
    section = None
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        where = f"{path}:{number}"
        if section:
            if line.split() == ["%end"]:
                section = None
            continue
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "%include":
            if depth or len(words) != 2 or not words[1].startswith("/tmp/"):
                raise Refused(f"{where}: only one level of %include of /tmp is carried out")
            refuse_what_is_not_carried_out(words[1], depth + 1)
        elif words[0].startswith("%"):
            refuse_section(where, words)
            section = words[0]
        else:
            refuse_command(where, words)


def refuse_section(where: str, words: list[str]) -> None:
    """A section with an option that is not carried out."""
    if words[0] not in SECTIONS:
        raise Refused(f"{where}: section {words[0]} is not carried out")
    for word in words[1:]:
        if word.split("=")[0] not in SECTIONS[words[0]]:
            raise Refused(f"{where}: {words[0]} {word} is not carried out")


def refuse_command(where: str, words: list[str]) -> None:
    """A command with an option or value that is not carried out."""
    command, *rest = words
    if command not in CARRIED_OUT:
        raise Refused(f"{where}: command {command} is not carried out")
    known = CARRIED_OUT[command]
    for word in rest:
        option, _, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if option not in known or (known[option] is not ANY and value not in known[option]):
            raise Refused(f"{where}: {command} {word} is not carried out")
