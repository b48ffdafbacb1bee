//! Hardware addresses: any notation people and firmware write them in <-> [`Mac`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet hardware address, the one key by which rekindle knows a machine: UUIDs and client
/// identifiers are zero, duplicated, or change between ROM, iPXE and installer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is no hardware address of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    /// Not twelve hexadecimal digits, or separators where none belong.
    #[error("`{}` is not a MAC address; write it like 52:54:00:aa:bb:01", .0.escape_debug())]
    Form(String),
    /// A group address, or all zeros: no network card has it.
    #[error("`{0}` is a group or empty address, no network card has it; read it off the card")]
    NotACard(String),
}

impl Mac {
    /// Takes six bytes as they stand on the wire; `None` for group and zero addresses, which no
    /// card sends from.
    pub fn from_wire(bytes: [u8; 6]) -> Option<Self> {
        let [first, ..] = bytes;
        (first & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The six bytes as they stand on the wire.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// `52-54-00-aa-bb-01`: iPXE's `hexhyp`, PXELINUX's and BOOTIF's form.
    pub fn hyphens(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    /// Reads `52:54:00:aa:bb:01`, `52-54-00-AA-BB-01`, `5254.00aa.bb01`, `525400aabb01` and the
    /// seven-group BOOTIF form `01-52-54-00-aa-bb-01`.
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac::Form(text.chars().take(40).collect());
        let trimmed = text.trim();
        let groups: Vec<&str> = trimmed.split([':', '-', '.']).collect();
        let digits: String = match groups.as_slice() {
            [one] if one.len() == 12 => (*one).to_owned(),
            [a, b, c] if [a, b, c].iter().all(|group| group.len() == 4) => groups.concat(),
            [_, _, _, _, _, _] if groups.iter().all(|group| matches!(group.len(), 1 | 2)) => {
                groups.iter().map(|group| format!("{group:0>2}")).collect()
            }
            ["01", rest @ ..] if rest.len() == 6 && rest.iter().all(|group| group.len() == 2) => {
                rest.concat()
            }
            _ => return Err(bad()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let number = u64::from_str_radix(&digits, 16).ok().ok_or_else(bad)?;
        let [_, _, octets @ ..] = number.to_be_bytes();
        Self::from_wire(octets).ok_or_else(|| BadMac::NotACard(trimmed.to_owned()))
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests;
