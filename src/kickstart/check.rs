//! What ksvalidator does not catch, checked on every rendered kickstart.

/// What makes a kickstart unsound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A carriage return: bash would take it as part of a word.
    #[error("line {line} holds a carriage return")]
    CarriageReturn {
        /// Where.
        line: usize,
    },
    /// A section without `%end`, or a `%end` without a section.
    #[error("line {line}: sections are not closed one by one")]
    Section {
        /// Where.
        line: usize,
    },
    /// A command that may stand there once stands there twice.
    #[error("line {line}: `{command}` is there twice")]
    Twice {
        /// Where.
        line: usize,
        /// Which.
        command: String,
    },
    /// Something that must be there is not.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A program that Anaconda's environment lacks.
    #[error("line {line}: `{program}` does not exist in the installer")]
    NoSuchProgram {
        /// Where.
        line: usize,
        /// Which.
        program: String,
    },
    /// A here-document that does not end where it should: the rest of the script would be in the file.
    #[error("line {line}: the text that begins with {HERE} here does not end")]
    HereDocument {
        /// Where it begins.
        line: usize,
    },
    /// It is larger than any sane kickstart.
    #[error("{bytes} bytes are too many")]
    Size {
        /// How large.
        bytes: usize,
    },
}

const BYTES_MAX: usize = 1 << 20;

/// The word that ends every here-document of ours.
const HERE: &str = "REKINDLE";

/// Commands of which Anaconda takes the last one and says nothing.
const ONCE: [&str; 10] = [
    "url",
    "rootpw",
    "bootloader",
    "timezone",
    "lang",
    "keyboard",
    "clearpart",
    "network",
    "selinux",
    "reboot",
];

/// Removed from the installer's image (lorax, runtime-cleanup.tmpl) in one release or another.
const ABSENT: [&str; 20] = [
    "base64",
    "nproc",
    "timeout",
    "stat",
    "shuf",
    "nohup",
    "install",
    "truncate",
    "sha512sum",
    "whoami",
    "yes",
    "free",
    "pgrep",
    "pkill",
    "uptime",
    "ss",
    "tc",
    "iptables",
    "ssh-keygen",
    "openssl",
];

/// Words that stand before the program in a command.
const BEFORE: [&str; 14] = [
    "if", "then", "elif", "else", "while", "until", "do", "!", "{", "exec", "command", "env",
    "xargs", "time",
];

/// Checks a whole kickstart.
pub(super) fn check(text: &str, fqdn: &str, node_url: &str) -> Result<(), Fault> {
    if text.len() > BYTES_MAX {
        return Err(Fault::Size { bytes: text.len() });
    }
    for needed in [format!("--hostname={fqdn} "), node_url.to_owned(), "\nreboot\n".to_owned()] {
        if !text.contains(&needed) {
            return Err(Fault::Missing(needed.trim().to_owned()));
        }
    }
    here_documents(text)?;
    let mut section: Option<&str> = None;
    let mut seen: Vec<&str> = vec![];
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if content.contains('\r') {
            return Err(Fault::CarriageReturn { line });
        }
        match (section, content.split_whitespace().next()) {
            (Some(_), Some("%end")) => section = None,
            (None, Some("%end")) => return Err(Fault::Section { line }),
            (Some(open), Some(word)) if is_section(word) && !is_script(open) => {
                return Err(Fault::Section { line });
            }
            (Some(open), Some(_)) if outside_target(open) => programs(content, line)?,
            (None, Some(word)) if is_section(word) => section = Some(content),
            (None, Some(word)) if ONCE.contains(&word) => {
                if seen.contains(&word) {
                    return Err(Fault::Twice { line, command: word.to_owned() });
                }
                seen.push(word);
            }
            _ => {}
        }
    }
    if section.is_some() {
        return Err(Fault::Section { line: text.lines().count() });
    }
    Ok(())
}

/// Each is closed by its word alone on a line before the next begins.
fn here_documents(text: &str) -> Result<(), Fault> {
    let mut open: Option<usize> = None;
    for (index, content) in text.lines().enumerate() {
        let opens = content.ends_with(&format!("<<'{HERE}'"));
        match open {
            Some(_) if content == HERE => open = None,
            Some(line) if opens => return Err(Fault::HereDocument { line }),
            None if opens => open = Some(index + 1),
            Some(_) | None => {}
        }
    }
    open.map_or(Ok(()), |line| Err(Fault::HereDocument { line }))
}

fn is_section(word: &str) -> bool {
    word.starts_with('%') && !matches!(word, "%end" | "%include")
}

fn is_script(open: &str) -> bool {
    ["%pre", "%post", "%onerror"].iter().any(|name| open.starts_with(name))
}

/// Scripts that run with the installer's own programs.
fn outside_target(open: &str) -> bool {
    open.starts_with("%pre") || open.starts_with("%onerror") || open.contains("--nochroot")
}

/// Looks at what is run, not at what is said: a serial number or a kernel argument may be called
/// like a program.
fn programs(content: &str, line: usize) -> Result<(), Fault> {
    let code = content.trim();
    if code.starts_with('#') {
        return Ok(());
    }
    let is_before = |word: &&str| BEFORE.contains(word) || word.contains('=');
    let commands = code.split(['|', ';', '&', '(', ')', '`']);
    let mut run =
        commands.filter_map(|command| command.split_whitespace().find(|word| !is_before(word)));
    match run.find(|word| ABSENT.contains(word)) {
        Some(program) => Err(Fault::NoSuchProgram { line, program: program.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "url --url=x\nnetwork --hostname=n.d --activate\nreboot\n%pre\ncurl http://m/node/t/event/pre\n%end\n";

    fn fault(text: &str) -> Option<Fault> {
        check(text, "n.d", "http://m/node/t").err()
    }

    #[test]
    fn a_sound_kickstart_passes() {
        assert_eq!(fault(GOOD), None);
    }

    #[test]
    fn what_ksvalidator_lets_through_is_found() {
        let with = |from: &str, to: &str| fault(&GOOD.replace(from, to));
        assert_eq!(with("reboot\n", "reboot\r\n"), Some(Fault::Missing("reboot".to_owned())));
        assert_eq!(with("curl", "curl\r"), Some(Fault::CarriageReturn { line: 5 }));
        assert_eq!(with("%end\n", ""), Some(Fault::Section { line: 5 }));
        assert_eq!(with("reboot", "reboot\n%end"), Some(Fault::Section { line: 4 }));
        assert_eq!(
            with("reboot", "url --url=y\nreboot"),
            Some(Fault::Twice { line: 3, command: "url".to_owned() })
        );
        assert_eq!(with("n.d", "other"), Some(Fault::Missing("--hostname=n.d".to_owned())));
        let here = "cat >f <<'REKINDLE'\nx\nREKINDLE\ncurl";
        assert_eq!(with("curl", here), None);
        let unclosed = here.replace("x\nREKINDLE", "xREKINDLE");
        assert_eq!(with("curl", &unclosed), Some(Fault::HereDocument { line: 5 }));
        assert_eq!(
            with("curl", "x=$(nproc); curl"),
            Some(Fault::NoSuchProgram { line: 5, program: "nproc".to_owned() })
        );
        for code in ["timeout 5 x", "if ! timeout 5 x", "a || exec timeout 5 x", "A=1 timeout 5 x"]
        {
            let program = "timeout".to_owned();
            let code = format!("{code}; curl");
            assert_eq!(with("curl", &code), Some(Fault::NoSuchProgram { line: 5, program }));
        }
    }

    #[test]
    fn a_value_may_be_called_like_a_program() {
        for code in ["SERIAL='ss' curl", "bootloader --append=\"free\" curl", "echo install curl"] {
            assert_eq!(fault(&GOOD.replace("curl", code)), None, "{code}");
        }
    }
}
