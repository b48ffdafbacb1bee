//! The cluster's own key: it signs the index of each repository, and packages that the owner vouches for. gpg and
//! rpmsign do it. The secret half lies in root's folder, so the daemon can neither sign nor lose it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{RepoError, io_at, output};
use crate::change;

/// The public half's file in a repository. Whatever is called `RPM-GPG-KEY…` there is a key for the nodes.
pub const FILE: &str = "RPM-GPG-KEY-rekindle";
/// What people see of it.
const OWNER: &str = "rekindle: packages of this cluster";

/// A key that is made when it is first needed.
#[derive(Debug)]
pub struct Key {
    home: PathBuf,
}

impl Key {
    /// The key in a folder of gpg's.
    pub fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// The cluster's, in the folder of what root did: the daemon does not read there.
    pub fn in_record(dir: &Path) -> Self {
        Self::new(dir.join("gnupg"))
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(&self.home);
        gpg.args(["--batch", "--quiet", "--no-tty", "--yes", "--pinentry-mode", "loopback"]);
        gpg
    }

    fn is_there(&self) -> Result<bool, RepoError> {
        let known = output("gpg", self.gpg().args(["--with-colons", "--list-secret-keys"]))?;
        Ok(known.lines().any(|line| line.starts_with("sec:")))
    }

    /// Makes it unless it is there. RSA, as rpm of Enterprise Linux 7 and 8 knows no EdDSA; no passphrase, as
    /// nobody is there to type one; no end, as nodes would refuse packages from that day on.
    fn make(&self) -> Result<(), RepoError> {
        change::private_dir(&self.home).map_err(io_at(&self.home))?;
        if self.is_there()? {
            return Ok(());
        }
        let mut gpg = self.gpg();
        gpg.args(["--passphrase", "", "--quick-generate-key", OWNER, "rsa3072", "sign", "never"]);
        output("gpg", &mut gpg).map(drop)
    }

    /// The public half, as nodes import it.
    pub fn public(&self) -> Result<String, RepoError> {
        self.make()?;
        output("gpg", self.gpg().args(["--armor", "--export"]))
    }

    /// Signs an index: `repomd.xml.asc` beside `repomd.xml`.
    pub fn sign_index(&self, repomd: &Path) -> Result<(), RepoError> {
        self.make()?;
        let mut gpg = self.gpg();
        output("gpg", gpg.args(["--armor", "--detach-sign"]).arg(repomd)).map(drop)
    }

    /// Puts signatures into packages.
    pub fn sign_packages(&self, files: &[PathBuf]) -> Result<(), RepoError> {
        if files.is_empty() {
            return Ok(());
        }
        self.make()?;
        let mut rpmsign = Command::new("rpmsign");
        let macros = [
            ("__gpg", "/usr/bin/gpg".to_owned()),
            ("_gpg_name", OWNER.to_owned()),
            ("_gpg_path", self.home.display().to_string()),
            ("_gpg_digest_algo", "sha256".to_owned()),
        ];
        for (name, value) in macros {
            rpmsign.arg("--define").arg(format!("{name} {value}"));
        }
        // There is no terminal to type a passphrase at, and none is needed: else it warns.
        rpmsign.env("GPG_TTY", "");
        output("rpmsign", rpmsign.arg("--addsign").args(files)).map(drop)
    }
}

impl Drop for Key {
    /// gpg leaves an agent behind that waits for the next time.
    fn drop(&mut self) {
        let mut gpgconf = Command::new("gpgconf");
        gpgconf.arg("--homedir").arg(&self.home).args(["--kill", "gpg-agent"]);
        if self.home.is_dir() {
            output("gpgconf", &mut gpgconf).map(drop).unwrap_or_default();
        }
    }
}
