//! Public keys of vendors, from where a preset says, when they are the ones that it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::url::{self, Pace};
use super::{ImportError, remove};
use crate::change::open_to_all;
use crate::host;
use crate::media;
use crate::mirrors::Preset;

/// Fetches a preset's keys into a folder. One that is another key is not kept.
pub fn fetch(preset: &Preset, to: &Path, pace: Pace) -> Result<Vec<PathBuf>, ImportError> {
    preset.keys.iter().map(|url| one(preset, url, to, pace)).collect()
}

/// Takes away a tree's own keys that the preset does not know: those of a vendor's tests, for one.
pub(super) fn only_known(preset: &Preset, tree: &Path) -> Result<(), ImportError> {
    for file in media::keys_in(tree) {
        if !preset.knows(&fingerprints(&file)?) {
            remove(&file)?;
        }
    }
    Ok(())
}

fn one(preset: &Preset, url: &str, to: &Path, pace: Pace) -> Result<PathBuf, ImportError> {
    let last = url.rsplit('/').next().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
    // What is called like this counts as a key, see `media::key_files`.
    let name: String = last.trim_start_matches("RPM-GPG-KEY-").chars().filter(is_plain).collect();
    let file = to.join(format!("RPM-GPG-KEY-{name}"));
    remove(&file)?;
    url::file(url, &file, pace)?;
    let found = fingerprints(&file)?;
    if found.is_empty() || !preset.knows(&found) {
        remove(&file)?;
        return Err(ImportError::WrongKey {
            url: url.to_owned(),
            found: if found.is_empty() { "no key".to_owned() } else { found.join(", ") },
            wanted: preset.fingerprints.join(" or "),
        });
    }
    open_to_all(&file).map_err(ImportError::io(&file))?;
    Ok(file)
}

/// Fingerprints of the keys in a file, subkeys' left out: 40 hexadecimal digits each.
fn fingerprints(file: &Path) -> Result<Vec<String>, ImportError> {
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--quiet", "--no-tty", "--with-colons", "--show-keys"]).arg(file);
    let said = gpg.stdin(Stdio::null()).output().map_err(|error| {
        ImportError::Program(format!(
            "gpg: {error}; it comes with the package gnupg (Debian) or gnupg2"
        ))
    })?;
    if !said.status.success() {
        let words = host::last_words(&said.stderr);
        return Err(ImportError::Program(format!("gpg cannot read {}: {words}", file.display())));
    }
    Ok(primary(&String::from_utf8_lossy(&said.stdout)))
}

/// Of gpg's table (DETAILS of GnuPG): `fpr` after `pub` is the key's own, after `sub` a subkey's.
fn primary(table: &str) -> Vec<String> {
    let mut found = vec![];
    let mut is_key = false;
    for line in table.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some("pub") => is_key = true,
            Some("sub") => is_key = false,
            Some("fpr") if is_key => found.extend(fields.nth(8).map(str::to_owned)),
            Some(_) | None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fingerprints_of_whole_keys_count() {
        let table = "pub:-:4096:1:8A3872BF3228467C:1631033579:::-:::escESC::::::23::0:\n\
                     fpr:::::::::FF8AD1344597106ECE813B918A3872BF3228467C:\nuid:-::::1631033579::3EED::Fedora:::::::0:\n\
                     sub:-:4096:1:1111111111111111:1631033579::::::e::::::23:\n\
                     fpr:::::::::0000000000000000000000001111111111111111:\n";
        assert_eq!(primary(table), ["FF8AD1344597106ECE813B918A3872BF3228467C"]);
        assert_eq!(primary(""), Vec::<String>::new());
    }
}
