//! Tokens and keys: who may fetch what, and how nodes know each other.
//!
//! Pure: the secrets come in as bytes. Making, keeping and reading the files is [`store`]'s work.

pub mod store;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::rand_core::OsRng;
use ssh_key::{PrivateKey, PublicKey};

use crate::boot::Grant;
use crate::cluster::{Cluster, Node};

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

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
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

/// Everything secret. Never printed by `Debug`.
#[derive(Clone)]
pub struct Secrets {
    token_key: [u8; 32],
    host_ca: PrivateKey,
    munge_key: Vec<u8>,
    public: PublicKeys,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why no host certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The node sent something else.
    #[error("that is no OpenSSH public key of type ssh-ed25519")]
    NotAKey,
    /// Signing failed.
    #[error("cannot sign the host key: {0}")]
    Sign(#[from] ssh_key::Error),
}

impl Secrets {
    /// The public half.
    pub fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// The key that munge signs credentials with, the same on all nodes.
    pub fn munge_key(&self) -> &[u8] {
        &self.munge_key
    }

    /// The token of an arming. Derived, so that nothing secret needs to be in the journal and a
    /// restarted master knows the tokens it gave out.
    pub fn token(&self, grant: Grant) -> Token {
        // An HMAC takes a key of any length; 32 bytes cannot be refused.
        let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(&self.token_key) else {
            return Token::masked();
        };
        hmac.update(b"rekindle token 1\0");
        hmac.update(&grant.mac.octets());
        hmac.update(&grant.arm.to_be_bytes());
        let digest = hmac.finalize().into_bytes();
        Token(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Signs the public half of a node's host key, so that every node knows it without asking:
    /// `ssh-keygen -s ca -h -n names` (sshd(8), "SSH certificates"). Valid for ever from 1970,
    /// because the clocks of old machines start anywhere.
    pub fn sign_host_key(
        &self,
        cluster: &Cluster,
        node: &Node,
        public_key: &str,
    ) -> Result<String, CertificateError> {
        let key = PublicKey::from_openssh(public_key.trim())
            .ok()
            .filter(|key| key.algorithm() == ssh_key::Algorithm::Ed25519)
            .ok_or(CertificateError::NotAKey)?;
        let latest = u64::try_from(i64::MAX).unwrap_or_default();
        let mut builder = Builder::new_with_random_nonce(&mut OsRng, &key, 0, latest)?;
        builder.cert_type(CertType::Host)?.key_id(node.name.as_str())?;
        for principal in host_principals(cluster, node) {
            builder.valid_principal(principal)?;
        }
        Ok(builder.sign(&self.host_ca)?.to_openssh()?)
    }
}

/// The names that a node's host certificate is good for.
fn host_principals(cluster: &Cluster, node: &Node) -> [String; 3] {
    let fqdn = format!("{}.{}", node.name, cluster.network().domain);
    [node.name.to_string(), fqdn, node.ip.to_string()]
}

#[cfg(test)]
pub(crate) mod tests;
