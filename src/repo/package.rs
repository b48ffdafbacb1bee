//! RPM files as their own headers say, and what lies beside them in a folder. The real rpm reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::io_at;
use super::{RepoError, output};
use crate::import;
use crate::repodata;

/// A package as its own header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Version and release.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// The key that signed it, in rpm's words; `None` when nobody did, and no node takes it.
    pub signed: Option<String>,
    /// Its file in the repository.
    pub file: String,
    /// rpm's sum of header and payload, which a signature does not change: the same build has the same.
    #[serde(skip)]
    pub(super) sum: String,
}

/// Reads a package's header.
pub(super) fn header(file: &Path) -> Result<Package, RepoError> {
    let format = "%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SIGMD5}\t\
                  %|RSAHEADER?{%{RSAHEADER:pgpsig}}:{%|DSAHEADER?{%{DSAHEADER:pgpsig}}:{}|}|";
    let mut rpm = Command::new("rpm");
    rpm.args(["-qp", "--nosignature", "--qf", format]).arg(file);
    let text = match output("rpm", &mut rpm) {
        Ok(text) => text,
        Err(RepoError::Program { why, .. }) if !why.starts_with("it is not installed") => {
            return Err(RepoError::NoPackage(file.to_owned(), why));
        }
        Err(error) => return Err(error),
    };
    let words: Vec<_> = text.split('\t').collect();
    let &[name, version, arch, sum, signed] = words.as_slice() else {
        return Err(RepoError::NoPackage(file.to_owned(), "it has no name".to_owned()));
    };
    if !matches!(arch, "x86_64" | "x86_64_v2" | "noarch" | "i686") {
        return Err(RepoError::Architecture(file.to_owned(), arch.to_owned()));
    }
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"._+-~^".contains(&it))
    };
    if !is_plain(name) || !is_plain(version) {
        return Err(RepoError::NoPackage(file.to_owned(), format!("`{name}` is an odd name")));
    }
    Ok(Package {
        file: format!("{name}-{version}.{arch}.rpm"),
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        sum: sum.to_owned(),
        signed: (!signed.is_empty()).then(|| signed.to_owned()),
    })
}

impl Package {
    /// Whether it is the same build as another one, whoever signed it.
    pub(super) fn is_same_build(&self, other: &Self) -> bool {
        // rpm's word for a sum that is not there.
        self.sum == other.sum && self.sum != "(none)"
    }
}

/// RPM files with what a folder of them says beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folder {
    /// The files.
    pub packages: Vec<PathBuf>,
    /// Modules, in the words of libmodulemd: without them dnf of Enterprise Linux 8 and 9 refuses their packages.
    pub modules: Option<String>,
    /// Groups, in the words of comps.
    pub groups: Option<String>,
}

/// What is in a folder, or the file itself.
pub fn folder(path: &Path) -> Result<Folder, RepoError> {
    if !path.is_dir() {
        return Ok(Folder { packages: vec![path.to_owned()], ..Folder::default() });
    }
    let all = import::list(path)?;
    let packages = all.iter().filter(|file| file.ends_with(".rpm"));
    let mut found =
        Folder { packages: packages.map(|file| path.join(file)).collect(), ..Folder::default() };
    let text = |file: &str| -> Result<Option<String>, RepoError> {
        let file = path.join(file);
        let packed = std::fs::File::open(&file).map_err(io_at(&file))?;
        let name = file.to_string_lossy();
        let unpacked = repodata::text(&name, packed)
            .map_err(|why| RepoError::Index { file: file.clone(), why })?;
        Ok(Some(unpacked))
    };
    // Loose, or where createrepo_c and `dnf reposync --download-metadata` put them.
    let repomd = path.join("repodata/repomd.xml");
    if let Ok(bytes) = std::fs::read(&repomd) {
        let index = repodata::repomd(&bytes)
            .map_err(|why| RepoError::Index { file: repomd.clone(), why })?;
        if let Some(entry) = index.modules {
            found.modules = text(&entry.path)?;
        }
        if let Some(entry) = index.groups {
            found.groups = text(&entry.path)?;
        }
    }
    if all.contains(super::MODULES) {
        found.modules = text(super::MODULES)?;
    }
    if all.contains(super::COMPS) {
        found.groups = text(super::COMPS)?;
    }
    Ok(found)
}

/// Both lists of modules in one: documents of YAML begin with `---`, and each counts once.
pub(super) fn merged(old: &str, new: &str) -> String {
    let mut documents: Vec<&str> = vec![];
    for text in [old, new] {
        for document in text.split("---\n").map(str::trim_end) {
            // `...` ends one, and says nothing.
            let document = document.trim_end_matches("...").trim_end();
            if !document.is_empty() && !documents.contains(&document) {
                documents.push(document);
            }
        }
    }
    documents.iter().map(|document| format!("---\n{document}\n...\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn each_module_is_told_of_once() {
        let (one, two) = (
            "---\ndocument: modulemd\ndata:\n  name: a\n...\n",
            "---\ndocument: modulemd\ndata:\n  name: b\n",
        );
        assert_eq!(merged("", one), one);
        assert_eq!(merged(one, one), one);
        assert_eq!(merged(one, &format!("{two}{one}")), format!("{one}{two}...\n"));
    }
}
