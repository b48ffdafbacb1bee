//! Names that reach files, scripts and URLs: checked once at the edge, harmless ever after.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text cannot be a name of the given kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be a {kind}; {rule}", text.escape_debug())]
pub struct BadName {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

/// Whether a text is one line to every reader: Python, and so pykickstart, ends lines at U+2028 and
/// U+2029 too.
pub fn is_one_line(text: &str) -> bool {
    !text.contains(|letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}'))
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    return Ok(Self(text.to_owned()));
                }
                let text = text.chars().take(80).collect();
                Err(BadName { text, kind: $kind, rule: $rule })
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A node's host name: one DNS label (RFC 1123 section 2.1) that begins with a letter, since
    /// Torque's nodes file refuses all others.
    NodeName, "node name",
    "use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters",
    |text| is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

name! {
    /// The key of an `[os.…]` table; also a path segment of the tree's URL.
    OsName, "name of an os",
    "use lower-case letters, digits and hyphens, like el9",
    is_label
}

name! {
    /// A DNS domain in lower case.
    DomainName, "domain",
    "use lower-case labels with dots between, like cluster.lan",
    |text| text.len() <= 190 && text.split('.').all(is_label)
}

name! {
    /// A network interface of this machine (`IFNAMSIZ` bounds it to 15 bytes).
    IfName, "interface name",
    "use the name that `ip link` shows, at most 15 characters",
    |text| (1..=15).contains(&text.len()) && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

name! {
    /// A DHCP client identifier (RFC 2132 section 9.14) as a text that needs no quoting anywhere.
    ClientId, "client id",
    "use letters, digits, - and _, begin with a letter, 2 to 63 characters",
    |text| (2..=63).contains(&text.len()) && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

name! {
    /// A login name as `useradd` takes it.
    UserName, "user name",
    "use lower-case letters, digits, - and _, begin with a letter, at most 31 characters",
    |text| (1..=31).contains(&text.len()) && text != "root"
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

name! {
    /// A mount point whose partition is kept, like `/data`. Short: its file system's label is made of it,
    /// and XFS allows twelve characters.
    KeptMount, "mount point to keep",
    "use one folder like /data: a slash and at most nine lower-case letters and digits, none of the system's own",
    |text| text.strip_prefix('/').is_some_and(|name| (1..=9).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !matches!(name, "bin" | "boot" | "dev" | "etc" | "lib" | "lib64" | "mnt" | "proc" | "root"
            | "run" | "sbin" | "sys" | "tmp" | "usr" | "var"))
}

name! {
    /// What a node is for; free, one word.
    Role, "role",
    "use lower-case letters, digits and hyphens, like compute",
    is_label
}

#[cfg(test)]
mod tests;
