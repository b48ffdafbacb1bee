//! `rekindle init`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Files, Wrong, out};
use crate::cluster::{is_public_key, template};
use crate::host;

/// Write a commented cluster.toml from this machine's own interfaces
#[derive(Debug, Args)]
pub(super) struct Init {
    /// File with the public keys of those who may log in to every node as root (default: the
    /// public keys in ~/.ssh)
    #[arg(long, value_name = "FILE")]
    admin_keys: Option<PathBuf>,
    /// Your home folder, where the public keys are looked for
    #[arg(long, env = "HOME", hide = true, value_name = "DIR")]
    home: Option<PathBuf>,
}

impl Init {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let path = &files.config;
        if path.exists() {
            return Err(
                Wrong(format!("{} exists already and stays as it is", path.display())).into()
            );
        }
        let keys = self.keys()?;
        let interfaces = host::interfaces().context("cannot list the network interfaces")?;
        let text = template::write(&interfaces, &keys);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.write_all(text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        out::text(&format!("{} is written; read it, then run `rekindle check`", path.display()))?;
        if keys.is_empty() {
            out::note(
                "no public key was found in ~/.ssh: put yours into admin_keys, or nobody can log in to the nodes",
            );
        }
        Ok(())
    }

    fn keys(&self) -> anyhow::Result<Vec<String>> {
        let files = match &self.admin_keys {
            Some(file) => vec![file.clone()],
            None => {
                let names = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];
                let home = self
                    .home
                    .iter()
                    .flat_map(|home| names.map(|name| home.join(".ssh").join(name)));
                home.filter(|file| file.is_file()).collect()
            }
        };
        let mut keys = vec![];
        for file in files {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            for (index, line) in text.lines().map(str::trim).enumerate() {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                // A private key must not end up in a file that everybody may read.
                if !is_public_key(line) {
                    return Err(Wrong(format!(
                        "{}:{}: this is no OpenSSH public key (or its comment holds quotes); name a file like ~/.ssh/id_ed25519.pub",
                        file.display(),
                        index + 1
                    ))
                    .into());
                }
                keys.push(line.to_owned());
            }
        }
        Ok(keys)
    }
}
