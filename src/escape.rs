//! Words that fit where they stand: a value becomes a typed word of its context, or an error.
//!
//! Templates get only these, checked names and numbers, so that a value can neither end a line
//! nor start a command. [`OneLine`] is the net below: no line break passes.

use std::fmt;

use crate::name::is_one_line;

/// The word that ends every here-document of the templates.
const HERE_WORD: &str = "REKINDLE";

/// Why a value cannot stand in a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field}: `{shown}` cannot be written into a {context}; remove quotes, control and other special characters"
)]
pub struct Unwritable {
    /// Which value.
    pub field: &'static str,
    shown: String,
    context: &'static str,
}

fn unwritable(field: &'static str, text: &str, context: &'static str) -> Unwritable {
    let shown = text.chars().take(40).collect::<String>().escape_debug().to_string();
    Unwritable { field, shown, context }
}

/// One word of a kickstart command, quoted when it must be (pykickstart splits with shlex).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KsWord(String);

impl KsWord {
    /// Fails on line breaks and other control characters, which no quotes hold together.
    pub fn new(field: &'static str, text: &str) -> Result<Self, Unwritable> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "@%_+=:,./-".contains(letter);
        if !is_one_line(text) {
            return Err(unwritable(field, text, "kickstart"));
        }
        if !text.is_empty() && text.chars().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Ok(Self(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))))
    }
}

/// A line of the `%packages` section: a name, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageWord(String);

impl PackageWord {
    /// Fails on everything that is no name, group or glob.
    pub fn new(text: &str) -> Result<Self, Unwritable> {
        let good = |letter: char| letter.is_ascii_alphanumeric() || "._-+*@^".contains(letter);
        if !text.is_empty() && text.chars().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(unwritable("packages", text, "package list"))
    }
}

/// One word of a POSIX shell, in single quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShWord(String);

impl ShWord {
    /// Fails on what is not one line: a NUL ends the script, a line break ends a kickstart section.
    pub fn new(field: &'static str, text: &str) -> Result<Self, Unwritable> {
        if !is_one_line(text) {
            return Err(unwritable(field, text, "shell script"));
        }
        Ok(Self(format!("'{}'", text.replace('\'', r"'\''"))))
    }
}

/// One line of a here-document whose word is quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereLine(String);

impl HereLine {
    /// Fails on what is not one line, and on what would end the document or the section around it.
    pub fn new(field: &'static str, text: &str) -> Result<Self, Unwritable> {
        let ends = text == HERE_WORD || text.starts_with('%');
        if ends || !is_one_line(text) {
            return Err(unwritable(field, text, "file of the node"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Kernel arguments inside a kickstart's double quotes and an unquoted here-document, and as
/// words of an iPXE command: no character that any of the three gives a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArgs(Vec<String>);

impl KernelArgs {
    /// Fails on the first argument that is not plain.
    pub fn new(args: &[String]) -> Result<Self, Unwritable> {
        let plain = |letter: char| letter.is_ascii_graphic() && !"\"'`$\\{}|&;<>#".contains(letter);
        match args.iter().find(|arg| arg.is_empty() || !arg.chars().all(plain)) {
            Some(bad) => Err(unwritable("kernel_args", bad, "kernel command line")),
            None => Ok(Self(args.to_vec())),
        }
    }

    /// `--append="…"` of the kickstart's `bootloader`, with a blank before it; empty without any.
    pub fn append(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            format!(" --append=\"{}\"", self.0.join(" "))
        }
    }
}

/// A blank before each, as they stand at the end of a command line.
impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

/// Text on the screen of iPXE, which expands `${…}` and splits at `&&` and `||`, or in single quotes on that of GRUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenText(String);

impl ScreenText {
    /// What either would understand becomes a blank: it is only text for a person.
    pub fn new(text: &str) -> Self {
        let plain = |letter: char| {
            let means = "$&|{}\"'\\#;".contains(letter);
            if (letter.is_ascii_graphic() || letter == ' ') && !means { letter } else { ' ' }
        };
        Self(text.chars().map(plain).collect())
    }
}

macro_rules! display {
    ($($word:ident),*) => {$(
        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

display!(KsWord, PackageWord, ShWord, HereLine, ScreenText);

/// The escaper of all templates: passes text on as it is and fails on what is not one line.
#[derive(Debug, Clone, Copy)]
pub struct OneLine;

impl askama::filters::Escaper for OneLine {
    fn write_escaped_str<W: fmt::Write>(&self, mut out: W, text: &str) -> fmt::Result {
        if !is_one_line(text) {
            return Err(fmt::Error);
        }
        out.write_str(text)
    }
}

#[cfg(test)]
mod tests;
