//! A tree out of a folder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::{ImportError, Progress, list, room, weight};
use crate::change::open_to_all;

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

/// Copies everything below `from` to `to`. What an earlier try copied stays; what is the same in `old` is linked.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    old: &Path,
    progress: &Progress,
) -> Result<(), ImportError> {
    let files = list(from)?;
    let total = weight(from, &files);
    let have = list(to)?;
    room(to, total.saturating_sub(weight(to, &have)))?;
    progress.expect(total);
    // What the source does not have any more.
    for gone in have.difference(&files) {
        super::remove(&to.join(gone))?;
    }
    for file in &files {
        let (source, place) = (from.join(file), to.join(file));
        let dir = place.parent().unwrap_or(to);
        std::fs::create_dir_all(dir).map_err(ImportError::io(dir))?;
        let one = || -> io::Result<()> {
            if is_done(&source, &place)? {
                progress.add(std::fs::metadata(&source)?.len());
                return Ok(());
            }
            if is_same(&source, &old.join(file), progress)? {
                super::remove(&place).map_err(io::Error::other)?;
                return std::fs::hard_link(old.join(file), &place);
            }
            transfer(&source, &place, progress)
        };
        one().map_err(ImportError::io(&source))?;
    }
    for dir in folders(to)? {
        open_to_all(&dir).map_err(ImportError::io(&dir))?;
    }
    Ok(())
}

/// A finished copy has the time of its source; one that was cut off has not.
fn is_done(source: &Path, place: &Path) -> io::Result<bool> {
    let (Ok(there), here) = (std::fs::metadata(place), std::fs::metadata(source)?) else {
        return Ok(false);
    };
    Ok(there.len() == here.len() && there.modified()? == here.modified()?)
}

/// Whether the old tree has the same bytes under the same name.
fn is_same(source: &Path, old: &Path, progress: &Progress) -> io::Result<bool> {
    let Ok(mut there) = File::open(old) else { return Ok(false) };
    let mut here = File::open(source)?;
    let len = here.metadata()?.len();
    if there.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut one, mut two) = (vec![0; PIECE], vec![0; PIECE]);
    let mut left = len;
    while left > 0 {
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let (Some(one), Some(two)) = (one.get_mut(..piece), two.get_mut(..piece)) else { break };
        here.read_exact(one)?;
        there.read_exact(two)?;
        if one != two {
            return Ok(false);
        }
        left -= piece as u64;
    }
    progress.add(len);
    Ok(true)
}

fn transfer(source: &Path, place: &Path, progress: &Progress) -> io::Result<()> {
    // A link to a file of the old tree is not written through.
    super::remove(place).map_err(io::Error::other)?;
    let mut here = File::open(source)?;
    let mut there = File::create(place)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let len = here.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        there.write_all(bytes)?;
        progress.add(len as u64);
    }
    open_to_all(place)?;
    there.set_modified(here.metadata()?.modified()?)
}

/// All folders below one, itself too.
pub(super) fn folders(dir: &Path) -> Result<Vec<std::path::PathBuf>, ImportError> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(&folder).map_err(ImportError::io(&folder))? {
            let path = entry.map_err(ImportError::io(&folder))?.path();
            if path.symlink_metadata().is_ok_and(|about| about.is_dir()) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
