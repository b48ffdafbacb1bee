//! Opening a file of a folder that nodes may read, so that no path and no link leaves the folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::libc;
use nix::sys::stat::Mode;

use super::FilePath;

/// How often a way is gone again that changes under our feet.
const TRIES: u32 = 10;

/// A regular file that is ready to be sent.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Its size in bytes.
    pub len: u64,
    /// Its strong entity tag, quotes included.
    pub etag: String,
    /// Its `Last-Modified`.
    pub last_modified: String,
}

/// Opens `path` below `root`. `RESOLVE_BENEATH` (openat2(2)) makes the kernel refuse whatever
/// leads out, links included. Folders and devices are "not found".
pub fn open_below(root: &Path, path: &FilePath) -> io::Result<Opened> {
    // A way with `..` in a link that was renamed meanwhile is to be gone again (openat2(2), EAGAIN).
    let mut opened = resolve(root, path, ResolveFlag::empty());
    for _ in 0..TRIES {
        if opened.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::EAGAIN) {
            break;
        }
        opened = resolve(root, path, ResolveFlag::empty());
    }
    opened
}

/// The same without waiting for a disk: `None` when the kernel does not know the way by heart, or cannot be asked for
/// that (`RESOLVE_CACHED`, Linux 5.12).
pub fn open_at_once(root: &Path, path: &FilePath) -> Option<io::Result<Opened>> {
    let opened = resolve(root, path, ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED));
    let errno = opened.as_ref().err().and_then(io::Error::raw_os_error);
    (!matches!(errno, Some(libc::EAGAIN | libc::EINVAL))).then_some(opened)
}

fn resolve(root: &Path, path: &FilePath, more: ResolveFlag) -> io::Result<Opened> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root, folder, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    describe(File::from(openat2(&root, path.as_str(), how)?))
}

/// Whether there simply is no such file below the folder (openat2(2): what leads out is EXDEV or ELOOP). Anything else may
/// be better the next time.
pub fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::CrossesDevices
            | ErrorKind::IsADirectory
    ) || error.raw_os_error() == Some(libc::ELOOP)
}

/// Opens a file that the owner named.
pub fn open_named(path: &Path) -> io::Result<Opened> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
    describe(File::from(openat2(AT_FDCWD, path, how)?))
}

fn describe(file: File) -> io::Result<Opened> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let etag =
        format!("\"{:x}-{:x}-{:x}\"", meta.ino(), meta.len(), meta.mtime_nsec() ^ meta.mtime());
    let modified = u64::try_from(meta.mtime())
        .ok()
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let last_modified = httpdate::fmt_http_date(modified);
    Ok(Opened { len: meta.len(), file, etag, last_modified })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath(text.to_owned())
    }

    #[test]
    fn files_inside_open_and_nothing_leads_out() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("tree");
        std::fs::create_dir_all(root.join("sub")).expect("folder");
        std::fs::write(root.join("sub/file"), "content").expect("file");
        std::fs::write(dir.path().join("secret"), "secret").expect("file");
        symlink("sub/file", root.join("inside")).expect("link");
        symlink("../secret", root.join("outside")).expect("link");
        symlink("/etc/passwd", root.join("absolute")).expect("link");
        let open = |text| open_below(&root, &path(text));
        assert_eq!(open("sub/file").expect("file").len, 7);
        assert_eq!(open("inside").expect("link").len, 7);
        // Asked for a moment ago, but memory may be short.
        let at_once = open_at_once(&root, &path("sub/file"));
        assert!(at_once.is_none_or(|opened| opened.expect("file").len == 7));
        for bad in
            ["outside", "absolute", "../secret", "/etc/passwd", "sub", "missing", "sub/file/x"]
        {
            assert!(open(bad).is_err(), "{bad}");
            let at_once = open_at_once(&root, &path(bad));
            assert!(at_once.is_none_or(|opened| opened.is_err()), "{bad}");
        }
    }
}
