//! The words of `disk.sh`: which disk may be written, as the shell compares it.

use crate::cluster::DiskRule;
use crate::escape::{ShWord, Unwritable};
use crate::name::KeptMount;

/// Sectors of 512 bytes in a GiB, the unit of `/sys/block/*/size`.
const SECTORS_PER_GIB: u64 = 1 << 21;

/// The rule as the shell takes it. Conditions that are not set are empty or zero.
pub(super) struct DiskWords {
    pub(super) serial: ShWord,
    pub(super) wwn: ShWord,
    pub(super) model: ShWord,
    pub(super) path: ShWord,
    pub(super) min_sectors: u64,
    pub(super) max_sectors: u64,
    pub(super) keep: String,
    pub(super) root_mib: u32,
    pub(super) use_failing: bool,
    pub(super) known_serial: ShWord,
    /// The rule in words, for the message that no disk is like that. Plain: it stands in quotes.
    pub(super) told: String,
}

impl DiskWords {
    pub(super) fn new(rule: &DiskRule, known: Option<&str>) -> Result<Self, Unwritable> {
        let word =
            |field, text: &Option<String>| ShWord::new(field, text.as_deref().unwrap_or_default());
        let keep: Vec<_> = rule.keep.iter().map(KeptMount::as_str).collect();
        Ok(Self {
            serial: word("disk.serial", &rule.serial)?,
            wwn: word("disk.wwn", &rule.wwn)?,
            model: word("disk.model", &rule.model)?,
            path: word("disk.path", &rule.path)?,
            min_sectors: u64::from(rule.min_gib) * SECTORS_PER_GIB,
            // The last GiB counts whole.
            max_sectors: rule.max_gib.map_or(0, |max| (u64::from(max) + 1) * SECTORS_PER_GIB - 1),
            keep: keep.join(" "),
            root_mib: rule.root_gib.saturating_mul(1024),
            use_failing: rule.use_failing,
            known_serial: ShWord::new("the known disk", known.unwrap_or_default())?,
            told: told(rule),
        })
    }
}

/// A rule as a person reads it; only what the shell's double quotes leave alone.
fn told(rule: &DiskRule) -> String {
    let plain = |text: &String| -> String {
        text.chars().filter(|letter| !"\"\\$`!".contains(*letter)).collect()
    };
    let mut words = vec![format!("{} GiB or more", rule.min_gib)];
    words.extend(rule.max_gib.map(|max| format!("{max} GiB at most")));
    words.extend(rule.serial.as_ref().map(|serial| format!("serial {}", plain(serial))));
    words.extend(rule.wwn.as_ref().map(|wwn| format!("WWN {}", plain(wwn))));
    words.extend(rule.model.as_ref().map(|model| format!("model {}", plain(model))));
    words.extend(rule.path.as_ref().map(|path| format!("path {}", plain(path))));
    words.join(", ")
}

#[cfg(test)]
mod tests;
