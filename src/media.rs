//! Install trees: the text of a `.treeinfo` -> what kickstarts and scripts need to know of it.
//!
//! [`Tree::parse`] is pure; [`load`] looks at the folder.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use ini::Ini;
use sha2::{Digest, Sha256};

use crate::cluster::Os;
use crate::machine::CpuLevel;
use crate::name::OsName;
use crate::repodata::Entry;

pub mod judge;

/// The generation of Anaconda a tree installs with: it decides which kickstart is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Enterprise Linux 7.
    El7,
    /// Enterprise Linux 8.
    El8,
    /// Enterprise Linux 9.
    El9,
    /// Enterprise Linux 10.
    El10,
}

/// What is known of an install tree. Paths are relative to the tree's root and stay inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Like `AlmaLinux 9.8`.
    pub title: String,
    /// Generation.
    pub release: Release,
    /// The least CPU its programs run on.
    pub cpu: CpuLevel,
    /// Kernel of the installer.
    pub kernel: String,
    /// Its initrd.
    pub initrd: String,
    /// The package repositories inside the tree: name and path (empty: the root), base first.
    pub repos: Vec<(String, String)>,
    /// File names under `/keys/OS/` of the keys that packages are signed with.
    pub gpg_keys: Vec<String>,
    /// Whether the index of the cluster's own repository carries its signature.
    pub repo_signed: bool,
    /// Whether it brings the loaders that UEFI runs with Secure Boot.
    pub has_shim: bool,
}

/// The first loader of a tree for UEFI, signed by Microsoft.
pub const SHIM: &str = "EFI/BOOT/BOOTX64.EFI";
/// The one that it loads, signed by the tree's vendor.
pub const GRUB: &str = "EFI/BOOT/grubx64.efi";

/// Why a folder cannot be installed from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTree {
    /// No such folder, or no `.treeinfo` in it.
    #[error(
        "os `{os}`: no install tree in {dir}: {reason}; copy the whole DVD there (with its hidden .treeinfo)"
    )]
    Missing {
        /// Whose tree.
        os: OsName,
        /// The folder.
        dir: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The description does not do.
    #[error("os `{os}`: {file}: {fault}")]
    TreeInfo {
        /// Whose tree.
        os: OsName,
        /// The file.
        file: PathBuf,
        /// What about it.
        fault: TreeInfoFault,
    },
    /// The description names a file that is not there.
    #[error("os `{os}`: {file} is missing; the copy of the tree is not complete, copy it again")]
    Incomplete {
        /// Whose tree.
        os: OsName,
        /// The file.
        file: PathBuf,
    },
    /// Nothing to check packages with.
    #[error("os `{os}`: no package-signing key in {dir}; name the vendor's key file in `gpg_keys`")]
    NoKeys {
        /// Whose tree.
        os: OsName,
        /// The folder.
        dir: PathBuf,
    },
}

/// What is wrong with the text of a `.treeinfo`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeInfoFault {
    /// Not INI at all.
    #[error("this is no .treeinfo; copy the DVD's own one there")]
    Syntax,
    /// A needed value is absent.
    #[error("`{key}` is missing in [{section}]; this is no install tree of an Enterprise Linux")]
    Missing {
        /// Section.
        section: &'static str,
        /// Key.
        key: &'static str,
    },
    /// Not for this hardware.
    #[error("the tree is for {0}; rekindle installs x86_64 machines")]
    Architecture(String),
    /// Not an Enterprise Linux 7 to 10.
    #[error("release `{0}` is not 7, 8, 9 or 10 of an Enterprise Linux")]
    Release(String),
    /// A path that leaves the tree, or is none.
    #[error("path `{0}` leads out of the tree; copy the whole DVD, not one folder of a mirror")]
    Path(String),
}

impl Tree {
    /// Reads the text of a `.treeinfo` (productmd's format and the older one of EL7). Key files
    /// are not named in it: [`load`] finds them.
    pub fn parse(text: &str) -> Result<Self, TreeInfoFault> {
        let ini = Ini::load_from_str_noescape(text).ok().ok_or(TreeInfoFault::Syntax)?;
        let get = |section: &'static str, key: &'static str| {
            ini.get_from(Some(section), key)
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .ok_or(TreeInfoFault::Missing { section, key })
        };
        let arch = get("general", "arch").or_else(|_| get("tree", "arch"))?;
        if !matches!(arch, "x86_64" | "x86_64_v2") {
            return Err(TreeInfoFault::Architecture(shorten(arch)));
        }
        let image = |key| {
            let first = get("images-x86_64", key);
            first.clone().or_else(|_| get("images-x86_64_v2", key)).or(first)
        };
        let version = get("release", "version").or_else(|_| get("general", "version"))?;
        let name = get("release", "name").or_else(|_| get("general", "family"))?;
        let release = match version.split('.').next() {
            Some("7") => Release::El7,
            Some("8") => Release::El8,
            Some("9") => Release::El9,
            Some("10") => Release::El10,
            Some(_) | None => return Err(TreeInfoFault::Release(shorten(version))),
        };
        Ok(Self {
            title: shorten(&format!("{name} {version}")),
            release,
            // AlmaLinux 10 is also built for the CPUs that the others left behind.
            cpu: if arch == "x86_64_v2" { CpuLevel::V2 } else { release.cpu_floor() },
            kernel: inside(image("kernel")?)?,
            initrd: inside(image("initrd")?)?,
            repos: repos(&ini)?,
            gpg_keys: vec![],
            repo_signed: false,
            has_shim: false,
        })
    }
}

/// The repositories that the tree's variants name; the root when none is named.
fn repos(ini: &Ini) -> Result<Vec<(String, String)>, TreeInfoFault> {
    let mut repos = vec![];
    for section in ini.sections().flatten() {
        let Some(name) = section.strip_prefix("variant-") else { continue };
        let Some(path) = ini.get_from(Some(section), "repository") else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(TreeInfoFault::Path(shorten(name)));
        }
        let path = if matches!(path, "." | "./" | "") { String::new() } else { inside(path)? };
        repos.push((name.to_owned(), path));
    }
    if repos.is_empty() {
        repos.push(("BaseOS".to_owned(), String::new()));
    }
    repos.sort_by_key(|(name, _)| (!name.eq_ignore_ascii_case("baseos"), name.clone()));
    Ok(repos)
}

/// A relative path of plain segments: it reaches URLs and the file system. Segments `.` say nothing,
/// and the HTTP plane knows none.
fn inside(path: &str) -> Result<String, TreeInfoFault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    let segment =
        |text: &&str| !text.is_empty() && !text.starts_with("..") && text.bytes().all(plain);
    let trimmed = path.trim_end_matches('/');
    let segments: Vec<_> = trimmed.split('/').filter(|text| *text != ".").collect();
    if path.len() <= 200 && !segments.is_empty() && segments.iter().all(segment) {
        return Ok(segments.join("/"));
    }
    Err(TreeInfoFault::Path(shorten(path)))
}

fn shorten(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(80).collect()
}

/// The description of an os's tree alone, where there need not be a repository yet.
pub fn load_tree(name: &OsName, os: &Os) -> Result<Tree, BadTree> {
    load(name, &Os { repo: None, ..os.clone() })
}

/// Looks at the folder of an os: description, boot files, repositories and keys must be there.
pub fn load(name: &OsName, os: &Os) -> Result<Tree, BadTree> {
    let file = os.tree.join(".treeinfo");
    let text = std::fs::read_to_string(&file).map_err(|error| BadTree::Missing {
        os: name.clone(),
        dir: os.tree.clone(),
        reason: error.to_string(),
    })?;
    let mut tree =
        Tree::parse(&text).map_err(|fault| BadTree::TreeInfo { os: name.clone(), file, fault })?;
    let repomd = tree.repos.iter().map(|(_, path)| Path::new(path).join("repodata/repomd.xml"));
    let own_repo = os.repo.iter().map(|repo| repo.join("repodata/repomd.xml"));
    for file in [&tree.kernel, &tree.initrd]
        .into_iter()
        .map(PathBuf::from)
        .chain(repomd)
        .map(|file| os.tree.join(file))
        .chain(own_repo)
    {
        if !file.is_file() {
            return Err(BadTree::Incomplete { os: name.clone(), file });
        }
    }
    let signed = |repo: &PathBuf| repo.join("repodata/repomd.xml.asc").is_file();
    tree.repo_signed = os.repo.as_ref().is_some_and(signed);
    tree.has_shim = [SHIM, GRUB].into_iter().all(|file| os.tree.join(file).is_file());
    tree.gpg_keys = key_files(name, os)?.into_iter().map(|(name, _)| name).collect();
    Ok(tree)
}

/// Files of a tree that are not what its own `.treeinfo` says, by its sha256 sums (productmd's
/// `[checksums]`). Reads them whole.
pub fn damaged(dir: &Path) -> Vec<String> {
    let is_damaged = |entry: &Entry| {
        sha256(&dir.join(&entry.path)).unwrap_or_default()
            != entry.sha256.as_deref().unwrap_or_default()
    };
    sums(dir).into_iter().filter(is_damaged).map(|entry| entry.path).collect()
}

/// The files that a tree's `.treeinfo` has sha256 sums of.
pub fn sums(dir: &Path) -> Vec<Entry> {
    sums_of(&std::fs::read_to_string(dir.join(".treeinfo")).unwrap_or_default())
}

/// The same of its text.
pub fn sums_of(text: &str) -> Vec<Entry> {
    let Ok(info) = Ini::load_from_str_noescape(text) else { return vec![] };
    let sums = info.section(Some("checksums")).into_iter().flat_map(|section| section.iter());
    let entry = |(file, sum): (&str, &str)| {
        let sha256 = Some(sum.strip_prefix("sha256:")?.to_ascii_lowercase());
        Some(Entry { path: inside(file).ok()?, size: None, sha256 })
    };
    sums.filter_map(entry).collect()
}

/// The SHA-256 of a file in hexadecimal digits.
pub fn sha256(file: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(file)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        digest.update(bytes);
    }
    let digest = digest.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Key files that lie in a folder, by name.
pub fn keys_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_key = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("RPM-GPG-KEY"))
    };
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_key).collect();
    files.sort();
    files
}

/// The package-signing keys of an os, those in its own repository last: the name each is served under, and the file.
pub fn key_files(name: &OsName, os: &Os) -> Result<Vec<(String, PathBuf)>, BadTree> {
    let mut files = os.gpg_keys.clone();
    if files.is_empty() {
        files = keys_in(&os.tree);
    }
    if files.is_empty() {
        return Err(BadTree::NoKeys { os: name.clone(), dir: os.tree.clone() });
    }
    files.extend(os.repo.iter().flat_map(|repo| keys_in(repo)));
    files
        .into_iter()
        .enumerate()
        .map(|(index, file)| {
            if file.is_file() {
                return Ok((format!("key{}.asc", index + 1), file));
            }
            Err(BadTree::Incomplete { os: name.clone(), file })
        })
        .collect()
}

impl Release {
    /// Every generation, oldest first.
    pub const ALL: [Self; 4] = [Self::El7, Self::El8, Self::El9, Self::El10];

    /// As its packages are numbered.
    pub fn number(self) -> u8 {
        match self {
            Self::El7 => 7,
            Self::El8 => 8,
            Self::El9 => 9,
            Self::El10 => 10,
        }
    }

    /// The least CPU the vendors build it for.
    pub fn cpu_floor(self) -> CpuLevel {
        match self {
            Self::El7 | Self::El8 => CpuLevel::V1,
            Self::El9 => CpuLevel::V2,
            Self::El10 => CpuLevel::V3,
        }
    }

    /// The least memory, in MiB as Linux counts it, that its installer gets along with when the
    /// tree comes over HTTP. A machine sold with 2 GiB shows 1.6 and more.
    pub fn memory_floor_mib(self) -> u32 {
        match self {
            Self::El7 => 800,
            Self::El8 | Self::El9 | Self::El10 => 1600,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "el{}", self.number())
    }
}

#[cfg(test)]
pub(crate) mod tests;
