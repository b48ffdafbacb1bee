//! What a machine can run: facts its firmware tells before anything is loaded -> fit, or why not in
//! plain words.
//!
//! Floors and drivers are those of the vendors' kernels (Enterprise Linux 7 to 10, x86_64).

use crate::machine::{CpuLevel, Hardware, PciId};
use crate::media::{Release, Tree};

/// Why an os cannot run on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its CPU is too old.
    #[error("this CPU {lacks}: {release} cannot run on it, {advice}")]
    Cpu {
        /// What it lacks.
        lacks: &'static str,
        /// What was to be installed.
        release: Release,
        /// What would run.
        advice: &'static str,
    },
    /// The kernel has no driver for its card.
    #[error(
        "{release} has no driver ({driver}) for this network card, put in an Intel or Realtek card{advice}"
    )]
    Nic {
        /// The driver's name.
        driver: &'static str,
        /// What was to be installed.
        release: Release,
        /// What would run.
        advice: &'static str,
    },
}

impl Hardware {
    /// Whether the tree's kernel and programs run on this machine.
    pub fn fits(self, tree: &Tree) -> Result<(), Unfit> {
        let (release, needs) = (tree.release, tree.cpu);
        if let Some(has) = self.cpu.filter(|has| *has < needs) {
            let lacks = match needs {
                CpuLevel::V0 | CpuLevel::V1 => "has no 64-bit mode",
                CpuLevel::V2 => "has no SSE4.2",
                CpuLevel::V3 => "has no AVX2",
            };
            let advice = match has {
                CpuLevel::V0 => "no Enterprise Linux runs on it",
                CpuLevel::V1 => "el8 and el7 can",
                CpuLevel::V2 => "el9 can, and AlmaLinux 10 for x86_64_v2",
                CpuLevel::V3 => "",
            };
            return Err(Unfit::Cpu {
                lacks: if has == CpuLevel::V0 { "has no 64-bit mode" } else { lacks },
                release,
                advice,
            });
        }
        match self.nic.and_then(driver) {
            Some((driver, until)) if until.is_none_or(|last| release > last) => {
                let advice = if until.is_some() { ", or install el7" } else { "" };
                Err(Unfit::Nic { driver, release, advice })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Cards of old computers whose driver the vendors' kernels dropped: its name, and the last release
/// that has it.
fn driver(nic: PciId) -> Option<(&'static str, Option<Release>)> {
    let el7 = Some(Release::El7);
    match (nic.vendor, nic.device) {
        (0x11ab, 0x4320 | 0x5005) | (0x1148, 0x4300 | 0x4320) => Some(("skge", el7)),
        (0x11ab, 0x4340..=0x43ba) | (0x1148, 0x9000 | 0x9e00) => Some(("sky2", el7)),
        (0x197b, 0x0250 | 0x0260) => Some(("jme", el7)),
        (0x1022, 0x2000 | 0x2001) => Some(("pcnet32", el7)),
        (0x8086, 0x1029..=0x103e | 0x1050..=0x1059 | 0x1064..=0x106b | 0x1091..=0x1095)
        | (0x8086, 0x1209 | 0x1229 | 0x2449 | 0x2459 | 0x245d | 0x27dc) => Some(("e100", None)),
        (0x10de, _) => Some(("forcedeth", None)),
        (0x1106, 0x3043 | 0x3053 | 0x3065 | 0x3106) => Some(("via-rhine", None)),
        (0x1106, 0x3119) => Some(("via-velocity", None)),
        (0x1039, 0x0900 | 0x7016) => Some(("sis900", None)),
        (0x1039, 0x0190 | 0x0191) => Some(("sis190", None)),
        (0x10b7, _) => Some(("3c59x", None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
