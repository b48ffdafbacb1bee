//! The owner's answer file for an installer of another system: a text with words to fill in, in double braces.

/// Longest answer file.
const BYTES_MAX: usize = 64 * 1024;

/// An answer file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Word(Word),
}

/// What can be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The node's host name.
    Name,
    /// The cluster's domain.
    Domain,
    /// Its card.
    Mac,
    /// Its address.
    Ip,
    /// How many bits of it are the network's.
    Prefix,
    /// The same as a mask.
    Netmask,
    /// The master's address: gateway, time and names.
    Master,
    /// Its resolvers.
    Dns,
    /// Its time zone.
    Timezone,
    /// Its locale.
    Language,
    /// Its keyboard map.
    Keyboard,
    /// The public keys of those who may log in as root, with `\n` between them as `printf '%b'` reads it.
    AdminKeys,
    /// The URL below which it reports how far it is.
    Report,
    /// Two braces.
    Open,
}

/// Every word, as it is written.
pub const WORDS: [(&str, Word); 14] = [
    ("name", Word::Name),
    ("domain", Word::Domain),
    ("mac", Word::Mac),
    ("ip", Word::Ip),
    ("prefix", Word::Prefix),
    ("netmask", Word::Netmask),
    ("master", Word::Master),
    ("dns", Word::Dns),
    ("timezone", Word::Timezone),
    ("language", Word::Language),
    ("keyboard", Word::Keyboard),
    ("admin_keys", Word::AdminKeys),
    ("report", Word::Report),
    ("open", Word::Open),
];

/// What is wrong with an answer file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswers {
    /// A word that means nothing.
    #[error(
        "line {line}: `{{{{{word}}}}}` is no word of rekindle; known are {}, and {{{{open}}}} writes two braces",
        known()
    )]
    Word {
        /// Where.
        line: usize,
        /// Which.
        word: String,
    },
    /// Braces that are not closed.
    #[error("line {line}: `{{{{` is not closed; {{{{open}}}} writes two braces")]
    Open {
        /// Where.
        line: usize,
    },
    /// Too long.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Long,
}

fn known() -> String {
    WORDS
        .iter()
        .filter(|(_, word)| *word != Word::Open)
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Answers {
    /// Reads the owner's text.
    pub fn parse(text: &str) -> Result<Self, BadAnswers> {
        if text.len() > BYTES_MAX {
            return Err(BadAnswers::Long);
        }
        let (mut pieces, mut rest, mut line) = (vec![], text, 1);
        while let Some((before, behind)) = rest.split_once("{{") {
            line += before.matches('\n').count();
            let (name, after) = behind.split_once("}}").ok_or(BadAnswers::Open { line })?;
            let word = WORDS.iter().find(|(known, _)| *known == name.trim());
            let (_, word) = word.ok_or_else(|| BadAnswers::Word {
                line,
                word: name.chars().take(40).collect::<String>().escape_debug().to_string(),
            })?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Word(*word));
            line += name.matches('\n').count();
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The text with every word filled in.
    pub fn fill(&self, value: impl Fn(Word) -> String) -> String {
        let filled = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Word(word) => value(*word),
        });
        filled.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let answers = Answers::parse(text).map_err(|error| error.to_string())?;
        Ok(answers
            .fill(|word| if word == Word::Open { "{{".to_owned() } else { format!("{word:?}") }))
    }

    #[test]
    fn every_word_is_filled_in() {
        assert_eq!(filled("a {{name}}\n{{ ip }}/{{prefix}}"), Ok("a Name\nIp/Prefix".to_owned()));
        assert_eq!(filled("a {{open}}jinja}} }}"), Ok("a {{jinja}} }}".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert_eq!(
            filled("a\nb {{adress}}"),
            Err("line 2: `{{adress}}` is no word of rekindle; known are name, domain, mac, ip, prefix, netmask, master, dns, timezone, language, keyboard, admin_keys, report, and {{open}} writes two braces".to_owned())
        );
        assert_eq!(
            filled("a\n\n{{name"),
            Err("line 3: `{{` is not closed; {{open}} writes two braces".to_owned())
        );
        assert_eq!(
            filled(&"x".repeat(BYTES_MAX + 1)),
            Err("it is longer than 65536 bytes".to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept(text: String) {
            if let Ok(filled) = filled(&text) && !text.contains("{{") {
                prop_assert_eq!(filled, text);
            }
        }
    }
}
