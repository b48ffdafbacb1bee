//! Where Enterprise Linux comes from: `packaging/mirrors.toml` and the owner's own beside `cluster.toml` -> names
//! with URLs, and what the vendor's keys must be. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is shipped.
const SHIPPED: &str = include_str!("../packaging/mirrors.toml");

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The root of an install tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// Repositories of the tree that come from elsewhere, by their variant's name.
    #[serde(default)]
    pub repos: BTreeMap<String, String>,
    /// A repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// URLs of public keys.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Fingerprints that these keys must have, 40 hexadecimal digits each.
    #[serde(default)]
    pub fingerprints: Vec<String>,
}

/// Why a `mirrors.toml` is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMirrors {
    /// Not TOML, or an unknown key.
    #[error("{0}")]
    Syntax(String),
    /// Neither a tree nor a repository.
    #[error("[{0}] has neither a tree nor a repo")]
    Nothing(String),
    /// No URL.
    #[error("[{name}]: `{url}` is no URL: it begins with http:// or https://")]
    Url {
        /// Of which.
        name: String,
        /// The value.
        url: String,
    },
    /// Keys that anybody may have put there.
    #[error(
        "[{0}] has keys and no fingerprints: `gpg --show-keys FILE` tells them, the vendor's page confirms them"
    )]
    Unpinned(String),
    /// No fingerprint.
    #[error("[{name}]: `{word}` is no fingerprint: it has 40 hexadecimal digits")]
    Fingerprint {
        /// Of which.
        name: String,
        /// The value.
        word: String,
    },
}

/// Reads what is shipped, with the owner's own text on top.
pub fn read(own: Option<&str>) -> Result<BTreeMap<String, Preset>, BadMirrors> {
    let mut all = parse(SHIPPED)?;
    all.extend(own.map(parse).transpose()?.into_iter().flatten());
    Ok(all)
}

fn parse(text: &str) -> Result<BTreeMap<String, Preset>, BadMirrors> {
    let mut all: BTreeMap<String, Preset> = toml_edit::de::from_str(text)
        .map_err(|error| BadMirrors::Syntax(error.to_string().trim().replace('\n', " ")))?;
    for (name, mirror) in &mut all {
        mirror.check(name)?;
    }
    Ok(all)
}

impl Preset {
    /// Whether all of these are keys of this source.
    pub fn knows(&self, fingerprints: &[String]) -> bool {
        fingerprints.iter().all(|found| self.fingerprints.contains(found))
    }

    fn check(&mut self, name: &str) -> Result<(), BadMirrors> {
        if self.tree.is_none() && self.repo.is_none() {
            return Err(BadMirrors::Nothing(name.to_owned()));
        }
        let urls = [&mut self.tree, &mut self.repo].into_iter().flatten();
        for url in urls.chain(self.repos.values_mut()).chain(&mut self.keys) {
            let is_url = url.starts_with("http://") || url.starts_with("https://");
            if !is_url || url.contains(|letter: char| letter.is_control() || letter == ' ') {
                return Err(BadMirrors::Url { name: name.to_owned(), url: url.clone() });
            }
            url.truncate(url.trim_end_matches('/').len());
        }
        if !self.keys.is_empty() && self.fingerprints.is_empty() {
            return Err(BadMirrors::Unpinned(name.to_owned()));
        }
        for word in &mut self.fingerprints {
            // As people copy them.
            word.retain(|letter| letter != ' ');
            word.make_ascii_uppercase();
            if word.len() != 40 || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let (name, word) = (name.to_owned(), word.clone());
                return Err(BadMirrors::Fingerprint { name, word });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_whole_and_every_key_is_pinned() {
        let all = read(None).expect("mirrors.toml");
        for release in [
            "almalinux8",
            "almalinux9",
            "almalinux10",
            "almalinux10-v2",
            "rocky9",
            "centos7",
            "stream10",
        ] {
            assert!(all[release].tree.is_some(), "{release}");
        }
        for release in 7..=10 {
            assert!(all[&format!("epel{release}")].repo.is_some(), "{release}");
        }
        for (name, mirror) in all {
            assert!(!mirror.keys.is_empty() && !mirror.fingerprints.is_empty(), "{name}");
            let urls = [mirror.tree, mirror.repo].into_iter().flatten();
            for url in urls.chain(mirror.repos.into_values()).chain(mirror.keys) {
                assert!(url.starts_with("https://"), "{name}: {url}");
            }
        }
    }

    #[test]
    fn the_owner_s_own_come_on_top() {
        let own = "[epel9]\nrepo = \"http://mirror.lan/epel/9/\"\n[mine]\ntree = \"http://mirror.lan/9\"\n\
                   keys = [\"http://mirror.lan/key\"]\nfingerprints = [\"ff8a d134 4597 106e ce81 3b91 8a38 72bf 3228 467c\"]\n";
        let all = read(Some(own)).expect("mirrors");
        assert_eq!(all["epel9"].repo.as_deref(), Some("http://mirror.lan/epel/9"));
        assert_eq!(all["mine"].fingerprints, ["FF8AD1344597106ECE813B918A3872BF3228467C"]);
        assert!(all.contains_key("rocky9"));
    }

    #[test]
    fn a_mistake_is_named() {
        let say = |text: &str| read(Some(text)).expect_err(text).to_string();
        assert_eq!(say("[x]\n"), "[x] has neither a tree nor a repo");
        assert_eq!(
            say("[x]\nrepo = \"ftp://m\"\n"),
            "[x]: `ftp://m` is no URL: it begins with http:// or https://"
        );
        assert!(
            say("[x]\nrepo = \"http://m\"\nkeys = [\"http://m/k\"]\n").contains("no fingerprints")
        );
        assert!(
            say("[x]\nrepo = \"http://m\"\nfingerprints = [\"12\"]\n").contains("no fingerprint")
        );
        assert!(say("[x]\nrepp = \"http://m\"\n").contains("repp"));
        assert!(say("x").lines().count() == 1);
    }
}
