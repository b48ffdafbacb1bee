//! Tokens and keys: who may fetch what, and how nodes know each other.

use std::fmt;

/// The one-time token of an arming: 32 lower-case hexadecimal digits. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(String);

impl Token {
    /// What stands in its place where a person reads along.
    pub fn masked() -> Self {
        Self("TOKEN-MASKED".to_owned())
    }

    /// The text that goes into a URL path.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(masked)")
    }
}

/// The public half of the cluster's keys, as it is baked into nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeys {
    /// The key of the authority that signs host certificates (OpenSSH one-line form).
    pub host_ca: String,
    /// The master's root key, which may log in to every node as root (OpenSSH one-line form).
    pub master_root: String,
}
