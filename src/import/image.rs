//! A tree out of an ISO image, without mounting it and without root: libarchive's `bsdtar` reads it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ImportError, Progress, folder, list, room};
use crate::change::open_to_all;
use crate::host;
use crate::sys::child::ends_with_us;

/// Where a volume descriptor says what it is (ECMA-119 section 8: sector 16, after the type byte).
const DESCRIPTOR: u64 = 16 * 2048 + 1;

/// Whether a file is an ISO 9660 image.
pub(super) fn is_image(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(DESCRIPTOR))?;
    let mut word = [0; 5];
    Ok(file.read_exact(&mut word).is_ok() && word == *b"CD001")
}

fn bsdtar() -> Command {
    let mut command = Command::new("bsdtar");
    // Names are bytes; what the caller's language makes of them is not asked.
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stderr(Stdio::piped());
    ends_with_us(&mut command);
    command
}

fn missing(error: &io::Error) -> ImportError {
    ImportError::Program(if error.kind() == io::ErrorKind::NotFound {
        "bsdtar is not installed, which reads ISO images: apt-get install libarchive-tools, or dnf install bsdtar"
            .to_owned()
    } else {
        format!("bsdtar: {error}")
    })
}

fn refused(file: &Path, said: &[u8]) -> ImportError {
    let last = host::last_words(said);
    ImportError::Program(format!("{}: the image cannot be read: {last}", file.display()))
}

/// Its `.treeinfo`, and the paths of its files.
pub(super) fn look(file: &Path) -> Result<(Option<String>, BTreeSet<String>), ImportError> {
    let listed = bsdtar().arg("-tf").arg(file).output().map_err(|error| missing(&error))?;
    if !listed.status.success() {
        return Err(refused(file, &listed.stderr));
    }
    let names = String::from_utf8_lossy(&listed.stdout);
    let is_file = |name: &&str| !name.ends_with('/') && *name != ".";
    let files: BTreeSet<String> = names
        .lines()
        .filter(is_file)
        .map(|name| name.trim_start_matches("./").to_owned())
        .collect();
    if !files.contains(".treeinfo") {
        return Ok((None, files));
    }
    let mut command = bsdtar();
    let told = command.arg("-xOf").arg(file).args(["--", ".treeinfo"]).output();
    let told = told.map_err(|error| missing(&error))?;
    Ok((Some(String::from_utf8_lossy(&told.stdout).into_owned()), files))
}

/// Unpacks it whole. The image is read by us, so that it is known how far it is.
pub(super) fn extract(file: &Path, to: &Path, progress: &Progress) -> Result<(), ImportError> {
    let mut image = File::open(file).map_err(ImportError::io(file))?;
    let total = image.metadata().map_err(ImportError::io(file))?.len();
    room(to, total)?;
    progress.expect(total);
    let mut command = bsdtar();
    command.args(["--no-same-owner", "--no-same-permissions", "-xf", "-", "-C"]).arg(to);
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(|error| missing(&error))?;
    let mut fed = Ok(());
    if let Some(mut pipe) = child.stdin.take() {
        let mut buffer = vec![0; 1 << 20];
        fed = loop {
            let len = match image.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(len) => len,
                Err(error) => break Err(error),
            };
            // It may have seen the last file long before the end.
            if pipe.write_all(buffer.get(..len).unwrap_or_default()).is_err() {
                break Ok(());
            }
            progress.add(len as u64);
        };
    }
    let done = child.wait_with_output().map_err(|error| missing(&error))?;
    fed.map_err(ImportError::io(file))?;
    if !done.status.success() {
        return Err(refused(file, &done.stderr));
    }
    for path in folder::folders(to)? {
        open_to_all(&path).map_err(ImportError::io(&path))?;
    }
    for path in list(to)? {
        let path = to.join(path);
        open_to_all(&path).map_err(ImportError::io(&path))?;
    }
    Ok(())
}
