//! A tree from a mirror, by `curl`: it knows proxies, certificates and broken lines better than we ever will.
//!
//! What the tree's own lists name is fetched, and checked file by file; what is there already is not fetched
//! again. A repository beside the tree (a mirror's `../../../AppStream/x86_64/os`) is put into it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::survey::{self, Depth};
use super::{ImportError, Progress, keys, room};
use crate::change::open_to_all;
use crate::host;
use crate::media::{self, Tree, judge::Unusable};
use crate::mirrors::Preset;
use crate::repodata::Entry;
use crate::sys::child::ends_with_us;

/// Files that one `curl` fetches over one connection, and how many of them work at a time.
const BATCH: usize = 40;
const AT_ONCE: usize = 4;
/// How often a file is tried that does not come, or comes damaged.
const ROUNDS: usize = 4;
/// A line is broken when less than so many bytes a second come for too long.
const SLOW: &str = "1000";

/// A file to fetch: where from, where to below the tree, what it should be.
#[derive(Debug, Clone)]
struct Wanted {
    url: String,
    entry: Entry,
}

/// A `.treeinfo` with everything inside the tree, and where each repository is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// The text.
    pub treeinfo: String,
    /// Path below the tree -> URL.
    pub repos: BTreeMap<String, String>,
}

/// Puts repositories that lie beside the tree into it, under their variants' names.
pub fn flatten(root: &str, treeinfo: &str) -> Flat {
    let mut repos = BTreeMap::new();
    let mut section = String::new();
    let mut lines = vec![];
    for line in treeinfo.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let variant = section.strip_prefix("variant-");
        let value = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        match (variant, value) {
            (Some(variant), Some(("repository", path))) => {
                let url = join(root, path);
                if path.starts_with("../") {
                    lines.push(format!("repository = {variant}"));
                    repos.insert(variant.to_owned(), url);
                } else {
                    lines.push(line.to_owned());
                    let path = if matches!(path, "." | "./" | "") { "" } else { path };
                    repos.insert(path.trim_end_matches('/').to_owned(), url);
                }
            }
            (Some(variant), Some(("packages", path))) if path.starts_with("../") => {
                lines.push(format!("packages = {variant}/Packages"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    if repos.is_empty() {
        repos.insert(String::new(), root.to_owned());
    }
    Flat { treeinfo: lines.join("\n") + "\n", repos }
}

/// A relative path from a URL, its `..` taken away.
fn join(root: &str, path: &str) -> String {
    let (scheme, rest) = root.split_once("://").unwrap_or(("http", root));
    let mut parts: Vec<_> = rest.split('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // Never above the host.
            ".." if parts.len() > 1 => drop(parts.pop()),
            ".." => {}
            _ => parts.push(part),
        }
    }
    format!("{scheme}://{}", parts.join("/"))
}

/// A tree on a mirror.
#[derive(Debug, Clone, Copy)]
pub struct Mirror<'a> {
    /// Its URL, without a slash at the end.
    pub root: &'a str,
    /// How it is fetched from.
    pub pace: Pace,
    /// What is known of it besides its URL.
    pub preset: Option<&'a Preset>,
}

/// How long a line may be silent, and how much may come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Seconds without a thousand bytes each until a line counts as broken.
    pub patience_s: u32,
    /// MiB a second at the most, all lines together.
    pub rate_mib: Option<u32>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { patience_s: 30, rate_mib: None }
    }
}

/// A `curl` that fails when the server says no, and gives up a line that is broken.
fn curl(pace: Pace) -> Command {
    let patience = pace.patience_s.to_string();
    let mut command = Command::new("curl");
    command.args(["--fail", "--silent", "--show-error", "--location", "--globoff"]);
    command.args(["--connect-timeout", "20", "--speed-limit", SLOW, "--speed-time", &patience]);
    command.args(["--proto-redir", "=http,https"]).stdin(Stdio::null());
    if let Some(rate) = pace.rate_mib {
        // curl(1) takes it for each line; several work at a time.
        command.args(["--limit-rate", &format!("{}k", u64::from(rate) * 1024 / AT_ONCE as u64)]);
    }
    ends_with_us(&mut command);
    command
}

/// Fetches one small file.
pub(super) fn file(url: &str, to: &Path, pace: Pace) -> Result<(), ImportError> {
    let mut command = curl(pace);
    let done = command.args(["--retry", "3", "--output"]).arg(to).arg(url).output();
    let done = done.map_err(|error| missing(&error))?;
    if done.status.success() {
        return Ok(());
    }
    Err(ImportError::Fetch { url: url.to_owned(), why: host::last_words(&done.stderr) })
}

impl Mirror<'_> {
    /// What it says that it is; `None` when that is not understood.
    pub fn look(self) -> Result<Option<Tree>, ImportError> {
        let dir = tempfile::tempdir().map_err(ImportError::io(Path::new("/tmp")))?;
        Ok(Tree::parse(&flatten(self.root, &self.description(dir.path())?).treeinfo).ok())
    }

    /// Fetches a tree.
    pub(super) fn fetch(
        self,
        to: &Path,
        old: &Path,
        progress: &Progress,
    ) -> Result<(), ImportError> {
        let root = self.root;
        let mut flat = flatten(root, &self.description(to)?);
        for (path, url) in self.preset.iter().flat_map(|preset| &preset.repos) {
            if let Some(place) = flat.repos.get_mut(path) {
                place.clone_from(url);
            }
        }
        let place = to.join(".treeinfo");
        std::fs::write(&place, &flat.treeinfo).map_err(ImportError::io(&place))?;
        let unusable = |why| ImportError::Unusable { medium: root.to_owned(), why };
        let tree =
            Tree::parse(&flat.treeinfo).map_err(|why| unusable(Unusable::Description(why)))?;

        let entry = |path: &str| Entry { path: path.to_owned(), size: None, sha256: None };
        let mut first: Vec<Wanted> = media::sums_of(&flat.treeinfo)
            .into_iter()
            .chain([entry(&tree.kernel), entry(&tree.initrd), entry("images/install.img")])
            .map(|entry| Wanted { url: join(root, &entry.path), entry })
            .collect();
        first.sort_by(|one, two| {
            (&one.entry.path, two.entry.sha256.is_some())
                .cmp(&(&two.entry.path, one.entry.sha256.is_some()))
        });
        first.dedup_by(|two, one| two.entry.path == one.entry.path);
        for (path, url) in &flat.repos {
            let below = format!("{path}/repodata/repomd.xml");
            let entry = entry(below.trim_start_matches('/'));
            // It changes under its name: what an earlier try fetched may be of yesterday.
            super::remove(&to.join(&entry.path))?;
            first.push(Wanted { url: join(url, "repodata/repomd.xml"), entry });
        }
        self.all(&first, to, old, progress)?;
        // Keys and licences lie in the root, and only this list knows them.
        self.extra(to)?;
        if let Some(preset) = self.preset {
            keys::fetch(preset, to, self.pace)?;
            keys::only_known(preset, to)?;
        }
        // Metadata first: packages are in one of its files.
        for depth in 0..2 {
            let mut wanted = vec![];
            for (path, url) in &flat.repos {
                let prefix = format!("{path}/");
                for entry in survey::entries(to, path)? {
                    let below = entry.path.strip_prefix(&prefix).unwrap_or(&entry.path);
                    let is_metadata = below.starts_with("repodata/");
                    if is_metadata == (depth == 0) {
                        wanted.push(Wanted { url: join(url, below), entry });
                    }
                }
            }
            self.all(&wanted, to, old, progress)?;
        }
        Ok(())
    }

    /// The text of `.treeinfo`, which some mirrors hide and others call `treeinfo`.
    fn description(self, to: &Path) -> Result<String, ImportError> {
        let place = to.join(".treeinfo.new");
        for name in [".treeinfo", "treeinfo"] {
            let url = join(self.root, name);
            let done =
                curl(self.pace).args(["--retry", "3", "--output"]).arg(&place).arg(&url).output();
            let done = done.map_err(|error| missing(&error))?;
            if done.status.success() {
                let text = super::text_of(&place)?.unwrap_or_default();
                super::remove(&place)?;
                return Ok(text);
            }
            super::remove(&place)?;
            // 22: the server said no (curl(1), --fail). Anything else is not about the name.
            if done.status.code() != Some(22) {
                return Err(ImportError::Fetch { url, why: host::last_words(&done.stderr) });
            }
        }
        Err(ImportError::Fetch {
            url: self.root.to_owned(),
            why: "there is no .treeinfo: give the URL of a tree, like …/9/BaseOS/x86_64/os"
                .to_owned(),
        })
    }

    /// Files of the root that `extra_files.json` lists (compose metadata of Enterprise Linux 8 and later); none is fine.
    fn extra(self, to: &Path) -> Result<(), ImportError> {
        let root = self.root;
        let place = to.join("extra_files.json");
        let url = join(root, "extra_files.json");
        let done = curl(self.pace)
            .arg("--output")
            .arg(&place)
            .arg(url)
            .output()
            .map_err(|error| missing(&error))?;
        let Some(text) = super::text_of(&place)?.filter(|_| done.status.success()) else {
            return Ok(());
        };
        let list: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let file = |item: &serde_json::Value| {
            let path = item.get("file")?.as_str()?;
            let is_plain =
                path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let sha256 =
                item.pointer("/checksums/sha256").and_then(|it| it.as_str()).map(str::to_owned);
            let entry = Entry { path: path.to_owned(), size: item.get("size")?.as_u64(), sha256 };
            (is_plain && !path.starts_with('.')).then(|| Wanted { url: join(root, path), entry })
        };
        let wanted: Vec<_> = list
            .get("data")
            .and_then(|it| it.as_array())
            .into_iter()
            .flatten()
            .filter_map(file)
            .collect();
        self.all(&wanted, to, Path::new("/nonexistent"), &Progress::default())
    }

    /// Fetches what is not there yet, round after round; what still does not come is named.
    fn all(
        self,
        wanted: &[Wanted],
        to: &Path,
        old: &Path,
        progress: &Progress,
    ) -> Result<(), ImportError> {
        let mut left = vec![];
        let total = wanted.iter().filter_map(|it| it.entry.size).sum();
        progress.expect(total);
        for one in wanted {
            if !is_there(one, to, old)? {
                left.push(one);
            } else if let Some(size) = one.entry.size {
                progress.add(size);
            }
        }
        room(to, left.iter().filter_map(|it| it.entry.size).sum())?;
        let mut last = String::new();
        for turn in 0..ROUNDS {
            if left.is_empty() {
                return Ok(());
            }
            if turn > 1 {
                // Going on where it broke off did not help: not every server can.
                for one in &left {
                    super::remove(&part(one, to))?;
                }
            }
            if let Some(said) = self.round(&left, to, progress)? {
                last = said;
            }
            let mut missing = vec![];
            for one in left {
                if !accept(one, to)? {
                    missing.push(one);
                }
            }
            left = missing;
        }
        match left.first() {
            None => Ok(()),
            Some(first) => {
                let why =
                    if last.is_empty() { "it comes damaged each time".to_owned() } else { last };
                Err(ImportError::Fetch { url: first.url.clone(), why })
            }
        }
    }

    /// Tries each file once. The last complaint, if there was one.
    fn round(
        self,
        left: &[&Wanted],
        to: &Path,
        progress: &Progress,
    ) -> Result<Option<String>, ImportError> {
        for one in left {
            let part = part(one, to);
            let dir = part.parent().unwrap_or(to);
            std::fs::create_dir_all(dir).map_err(ImportError::io(dir))?;
        }
        // Of what has no sum only its own `curl` knows whether all of it came.
        let batches = left.chunk_by(|one, two| is_known(one) && is_known(two));
        let batches = Mutex::new(batches.flat_map(|batch| batch.chunks(BATCH)));
        let said: Mutex<Option<String>> = Mutex::new(None);
        let failed: Mutex<Option<ImportError>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let batch = batches.lock().ok().and_then(|mut batches| batches.next());
                        let Some(batch) = batch else { break };
                        match self.one_curl(batch, to, progress) {
                            Ok(None) => {}
                            Ok(words) => {
                                if let Ok(mut said) = said.lock() {
                                    *said = words;
                                }
                            }
                            Err(error) => {
                                if let Ok(mut failed) = failed.lock() {
                                    *failed = Some(error);
                                }
                                break;
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner() {
            Ok(Some(error)) => Err(error),
            Ok(None) | Err(_) => Ok(said.into_inner().ok().flatten()),
        }
    }

    /// A batch over one connection: URLs by standard input, where nobody else reads them.
    fn one_curl(
        self,
        batch: &[&Wanted],
        to: &Path,
        progress: &Progress,
    ) -> Result<Option<String>, ImportError> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut config = String::new();
        for one in batch {
            let part = part(one, to).display().to_string();
            config.push_str(&format!(
                "url = \"{}\"\noutput = \"{}\"\n",
                quoted(&one.url),
                quoted(&part)
            ));
        }
        let mut command = curl(self.pace);
        command.args(["--continue-at", "-", "--config", "-", "--write-out", "%{size_download}\\n"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| missing(&error))?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(config.as_bytes()).map_err(|error| missing(&error))?;
        }
        // One line a file, when it is there.
        if let Some(lines) = child.stdout.take() {
            for line in
                std::io::BufRead::lines(std::io::BufReader::new(lines)).map_while(Result::ok)
            {
                progress.add(line.trim().parse().unwrap_or(0));
            }
        }
        let done = child.wait_with_output().map_err(|error| missing(&error))?;
        if done.status.success() {
            return Ok(None);
        }
        for one in batch.iter().filter(|one| !is_known(one)) {
            super::remove(&part(one, to))?;
        }
        Ok(Some(host::last_words(&done.stderr)))
    }
}

fn missing(error: &std::io::Error) -> ImportError {
    ImportError::Program(if error.kind() == std::io::ErrorKind::NotFound {
        "curl is not installed, which fetches from mirrors: apt-get install curl, or dnf install curl".to_owned()
    } else {
        format!("curl: {error}")
    })
}

fn is_known(one: &Wanted) -> bool {
    one.entry.sha256.is_some()
}

fn part(one: &Wanted, to: &Path) -> std::path::PathBuf {
    to.join(format!("{}.part", one.entry.path))
}

/// Whether a file is there as it should be, or the old tree has it.
fn is_there(one: &Wanted, to: &Path, old: &Path) -> Result<bool, ImportError> {
    let place = to.join(&one.entry.path);
    // Without a sum nobody knows what it should be.
    if one.entry.sha256.is_none() {
        return Ok(false);
    }
    if survey::is_good(&place, &one.entry, Depth::Whole)?.is_none() {
        return Ok(true);
    }
    let before = old.join(&one.entry.path);
    if survey::is_good(&before, &one.entry, Depth::Whole)?.is_some() {
        return Ok(false);
    }
    super::remove(&place)?;
    let dir = place.parent().unwrap_or(to);
    std::fs::create_dir_all(dir).map_err(ImportError::io(dir))?;
    std::fs::hard_link(&before, &place).map_err(ImportError::io(&place))?;
    Ok(true)
}

/// Takes a file that came, when it is what it should be.
fn accept(one: &Wanted, to: &Path) -> Result<bool, ImportError> {
    let part = part(one, to);
    match survey::is_good(&part, &one.entry, Depth::Whole)? {
        None => {
            let place = to.join(&one.entry.path);
            open_to_all(&part).map_err(ImportError::io(&part))?;
            std::fs::rename(&part, &place).map_err(ImportError::io(&place))?;
            Ok(true)
        }
        Some(_) => {
            // One that is too short is gone on with; a whole one that is wrong is not.
            let len = std::fs::metadata(&part).map_or(0, |about| about.len());
            if one.entry.size.is_none_or(|size| len >= size) {
                super::remove(&part)?;
            }
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_s_repositories_come_into_the_tree() {
        let text = "[general]\nversion = 9.6\n\n[variant-AppStream]\nid = AppStream\npackages = ../../../AppStream/x86_64/os/Packages\n\
                    repository = ../../../AppStream/x86_64/os\n\n[variant-BaseOS]\nrepository = .\n";
        let flat = flatten("https://m.example/rocky/9/BaseOS/x86_64/os", text);
        assert_eq!(
            flat.repos,
            BTreeMap::from([
                (String::new(), "https://m.example/rocky/9/BaseOS/x86_64/os".to_owned()),
                (
                    "AppStream".to_owned(),
                    "https://m.example/rocky/9/AppStream/x86_64/os".to_owned()
                ),
            ])
        );
        assert!(
            flat.treeinfo.contains("repository = AppStream\n")
                && flat.treeinfo.contains("packages = AppStream/Packages\n")
        );
        assert!(flat.treeinfo.contains("repository = .\n"));
        let dvd = "[variant-BaseOS]\nrepository = BaseOS\n";
        assert_eq!(
            flatten("http://m/dvd", dvd).repos,
            BTreeMap::from([("BaseOS".to_owned(), "http://m/dvd/BaseOS".to_owned())])
        );
        assert_eq!(
            flatten("http://m/7", "[general]\n").repos,
            BTreeMap::from([(String::new(), "http://m/7".to_owned())])
        );
    }

    #[test]
    fn no_path_leaves_the_host() {
        assert_eq!(join("http://m/a/b", "../../../../c"), "http://m/c");
        assert_eq!(join("http://m/a", "./x//y"), "http://m/a/x/y");
    }
}
