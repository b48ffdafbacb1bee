//! The index of a package repository: `repomd.xml` and the `primary.xml` that it names -> which files
//! there should be, how long they are and what they hash to. Pure: bytes in, lists out.
//!
//! The format is createrepo's, see <https://createrepo.baseurl.org> and `man createrepo_c`.

use std::io::{BufReader, Read};

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the repository, plain segments only.
    pub path: String,
    /// Length in bytes, where the index knows it.
    pub size: Option<u64>,
    /// SHA-256 in hexadecimal digits; `None` when the index only has another sum.
    pub sha256: Option<String>,
}

/// What `repomd.xml` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Every file of metadata.
    pub files: Vec<Entry>,
    /// The one that lists the packages.
    pub primary: Entry,
    /// The one that lists modules, if there is one.
    pub modules: Option<Entry>,
    /// The one that lists groups.
    pub groups: Option<Entry>,
}

/// Why an index cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIndex {
    /// No XML, or not this kind.
    #[error("this is no index of packages: {0}")]
    Syntax(String),
    /// `repomd.xml` without a list of packages.
    #[error("repomd.xml names no list of packages (primary)")]
    NoPrimary,
    /// A path that leaves the repository.
    #[error("path `{0}` leads out of the repository")]
    Path(String),
    /// An unknown kind of packing.
    #[error("`{0}` is packed in a way that is not known here (gz and zst are)")]
    Packing(String),
}

/// Packages in one index at the most: Fedora, the largest of its kind, has 80000.
const PACKAGES_MAX: usize = 500_000;
/// Bytes of one list of modules or groups at the most.
const TEXT_MAX: u64 = 64 << 20;

fn syntax(error: impl ToString) -> BadIndex {
    BadIndex::Syntax(error.to_string().chars().take(120).collect())
}

/// A path of plain segments: it reaches the file system.
fn inside(path: &str) -> Result<String, BadIndex> {
    let bad = || BadIndex::Path(path.chars().filter(|it| !it.is_control()).take(80).collect());
    let is_plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(|it: char| it.is_control() || it == '\\')
    };
    if path.len() <= 1000 && path.split('/').all(is_plain) {
        Ok(path.to_owned())
    } else {
        Err(bad())
    }
}

/// The value of an attribute.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, BadIndex> {
    let Some(found) = tag.try_get_attribute(name).map_err(syntax)? else { return Ok(None) };
    let value = found.normalized_value(XmlVersion::Implicit1_0).map_err(syntax)?;
    Ok(Some(value.into_owned()))
}

/// What is known of an entry while its element is read.
#[derive(Default)]
struct Draft {
    kind: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
}

impl Draft {
    fn finish(self) -> Result<Option<Entry>, BadIndex> {
        let Self { path, size, sha256, .. } = self;
        path.map(|path| Ok(Entry { path: inside(&path)?, size, sha256 })).transpose()
    }
}

/// Walks the elements called `unit` and tells each with its path, length and sum.
fn walk(
    source: impl Read,
    unit: &str,
    mut tell: impl FnMut(Option<String>, Entry),
) -> Result<(), BadIndex> {
    let mut reader = Reader::from_reader(BufReader::new(source));
    let mut buffer = vec![];
    let mut draft = Draft::default();
    let (mut is_sum, mut is_size) = (false, false);
    let (mut has_unit, mut count) = (false, 0);
    loop {
        let event = reader.read_event_into(&mut buffer).map_err(syntax)?;
        match event {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                match tag.local_name().as_ref() {
                    it if it == unit => {
                        has_unit = true;
                        draft = Draft { kind: attribute(&tag, "type")?, ..Draft::default() };
                    }
                    "location" => draft.path = attribute(&tag, "href")?,
                    "checksum" => is_sum = attribute(&tag, "type")?.as_deref() == Some("sha256"),
                    // In repomd.xml a text, in primary.xml an attribute.
                    "size" => {
                        is_size = true;
                        let size = attribute(&tag, "package")?.and_then(|it| it.parse().ok());
                        draft.size = size.or(draft.size);
                    }
                    _ => {}
                }
            }
            Event::Text(text) => {
                let text: &str = &text;
                if is_sum {
                    draft.sha256 = Some(text.trim().to_ascii_lowercase());
                } else if is_size {
                    draft.size = text.trim().parse().ok().or(draft.size);
                }
            }
            Event::End(tag) => {
                (is_sum, is_size) = (false, false);
                if tag.local_name().as_ref() == unit {
                    count += 1;
                    if count > PACKAGES_MAX {
                        return Err(BadIndex::Syntax("too many entries".to_owned()));
                    }
                    let kind = draft.kind.take();
                    if let Some(entry) = std::mem::take(&mut draft).finish()? {
                        tell(kind, entry);
                    }
                }
            }
            Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => {}
        }
        buffer.clear();
    }
    // An empty repository has its outer element.
    if has_unit || reader.buffer_position() > 0 { Ok(()) } else { Err(syntax("it is empty")) }
}

/// Reads `repomd.xml`.
pub fn repomd(text: &[u8]) -> Result<Index, BadIndex> {
    let (mut files, mut primary, mut modules, mut groups) = (vec![], None, None, None);
    walk(text, "data", |kind, entry| {
        match kind.as_deref() {
            Some("primary") => primary = Some(entry.clone()),
            Some("modules") => modules = Some(entry.clone()),
            Some("group") => groups = Some(entry.clone()),
            Some(_) | None => {}
        }
        files.push(entry);
    })?;
    Ok(Index { files, primary: primary.ok_or(BadIndex::NoPrimary)?, modules, groups })
}

/// What is in a file that is packed as its name says.
fn unpacked<'r>(name: &str, packed: impl Read + 'r) -> Result<Box<dyn Read + 'r>, BadIndex> {
    Ok(match name.rsplit('.').next() {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Some("zst") => Box::new(ruzstd::decoding::StreamingDecoder::new(packed).map_err(syntax)?),
        Some("xml" | "yaml") => Box::new(packed),
        Some(_) | None => return Err(BadIndex::Packing(name.to_owned())),
    })
}

/// Reads the list of packages, packed as its name says.
pub fn packages(name: &str, packed: impl Read) -> Result<Vec<Entry>, BadIndex> {
    let mut found = vec![];
    walk(unpacked(name, packed)?, "package", |_, entry| found.push(entry))?;
    Ok(found)
}

/// Reads a list as it is, packed as its name says: of modules or groups, which have no more than a few MiB.
pub fn text(name: &str, packed: impl Read) -> Result<String, BadIndex> {
    let mut text = String::new();
    let mut limited = unpacked(name, packed)?.take(TEXT_MAX);
    limited.read_to_string(&mut text).map_err(syntax)?;
    if limited.limit() == 0 {
        return Err(BadIndex::Syntax("it is too long".to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
