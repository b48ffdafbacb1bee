//! Who is asking: the facts a packet or request tells about the hardware that sent it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mac::Mac;

/// Any hardware that asks to boot, as one packet shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The address of the card that asked.
    pub mac: Mac,
    /// What program on it asked.
    pub asker: Asker,
    /// The address it asked from, when it already has one.
    pub ip: Option<Ipv4Addr>,
    /// What its hardware can do, once iPXE has looked.
    pub hardware: Option<Hardware>,
}

/// The program that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A PXE ROM or UEFI's PXE client (option 60 `PXEClient`, or option 93 present).
    Rom(Arch),
    /// UEFI HTTP boot (option 60 `HTTPClient`).
    HttpBoot(Arch),
    /// iPXE (option 77), with or without HTTP support (option 175.19).
    Ipxe {
        /// What it runs on.
        arch: Arch,
        /// Whether it can fetch by HTTP.
        http: bool,
    },
    /// A booted system or installer: it wants an address and nothing else.
    System,
}

/// Client architecture, option 93 (RFC 4578 section 2.1 with erratum 4624, IANA's list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// x86 BIOS: 0, or 20 by HTTP.
    Bios,
    /// 32-bit UEFI: 6, or 15 by HTTP.
    UefiIa32,
    /// 64-bit UEFI: 7 and 9 (firmware sends either), or 16 and 17 by HTTP.
    UefiX64,
    /// 64-bit ARM UEFI: 11, or 19 by HTTP.
    UefiArm64,
    /// Anything else.
    Other(u16),
}

impl Arch {
    /// Reads the number of option 93.
    pub fn from_code(code: u16) -> Self {
        match code {
            0 | 20 => Self::Bios,
            6 | 15 => Self::UefiIa32,
            7 | 9 | 16 | 17 => Self::UefiX64,
            11 | 19 => Self::UefiArm64,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("bios"),
            Self::UefiIa32 => f.write_str("uefi-ia32"),
            Self::UefiX64 => f.write_str("uefi-x64"),
            Self::UefiArm64 => f.write_str("uefi-arm64"),
            Self::Other(code) => write!(f, "arch-{code}"),
        }
    }
}

/// The first program a firmware loads (the PXE specification's NBP). A closed set: no name from
/// the network ever becomes a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// iPXE on the card's own UNDI driver, for BIOS.
    Undionly,
    /// iPXE with drivers of its own, for BIOS: for cards whose UNDI driver is broken.
    IpxePxe,
    /// iPXE on the card's UNDI driver that leaves the ROM's PXE stack in memory: some hang without it.
    Undionlyk,
    /// PXELINUX, for BIOS: where no iPXE runs. It loads all by TFTP.
    Pxelinux,
    /// iPXE on the firmware's own network driver, for 64-bit UEFI.
    SnponlyX64,
    /// iPXE with drivers of its own, for 64-bit UEFI.
    IpxeX64,
    /// The same for 32-bit UEFI.
    IpxeIa32,
    /// The install tree's own, which loads its GRUB: signed, for 64-bit UEFI that runs nothing else (Secure Boot).
    Shim,
}

impl Loader {
    /// Every loader there is.
    pub const ALL: [Self; 8] = [
        Self::Undionly,
        Self::IpxePxe,
        Self::Undionlyk,
        Self::Pxelinux,
        Self::SnponlyX64,
        Self::IpxeX64,
        Self::IpxeIa32,
        Self::Shim,
    ];

    /// The loaders for an architecture, the one that suits most machines first.
    pub fn ladder(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::Bios => &[Self::Undionly, Self::IpxePxe, Self::Undionlyk, Self::Pxelinux],
            Arch::UefiX64 => &[Self::SnponlyX64, Self::IpxeX64, Self::Shim],
            Arch::UefiIa32 => &[Self::IpxeIa32],
            Arch::UefiArm64 | Arch::Other(_) => &[],
        }
    }

    /// Whether nobody can do without it: the others are for the odd machine, and not every distribution has them.
    pub fn is_needed(self) -> bool {
        matches!(self, Self::Undionly | Self::SnponlyX64)
    }

    /// Whether it comes with what is installed, and not with this machine.
    pub fn is_of_tree(self) -> bool {
        self == Self::Shim
    }

    /// The name it is asked for by TFTP and HTTP.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Undionly => "undionly.kpxe",
            Self::IpxePxe => "ipxe.pxe",
            Self::Undionlyk => "undionly.kkpxe",
            Self::Pxelinux => "pxelinux.0",
            Self::SnponlyX64 => "snponly.efi",
            Self::IpxeX64 => "ipxe.efi",
            Self::IpxeIa32 => "ipxe-i386.efi",
            Self::Shim => "shimx64.efi",
        }
    }
}

impl FromStr for Loader {
    type Err = NoLoader;

    fn from_str(name: &str) -> Result<Self, NoLoader> {
        Self::ALL.into_iter().find(|loader| loader.file_name() == name).ok_or(NoLoader)
    }
}

/// A name that is no loader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no loader")]
pub struct NoLoader;

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// What PXELINUX loads after itself. A closed set, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// The better part of it.
    Ldlinux,
    /// What the others are built on.
    Libcom32,
    /// The same.
    Libutil,
    /// Boots a disk.
    Chain,
    /// Starts over.
    Reboot,
}

impl Module {
    /// Every module there is.
    pub const ALL: [Self; 5] =
        [Self::Ldlinux, Self::Libcom32, Self::Libutil, Self::Chain, Self::Reboot];

    /// The name it is asked for by TFTP.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Ldlinux => "ldlinux.c32",
            Self::Libcom32 => "libcom32.c32",
            Self::Libutil => "libutil.c32",
            Self::Chain => "chain.c32",
            Self::Reboot => "reboot.c32",
        }
    }
}

/// What is sent from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// A first program.
    Loader(Loader),
    /// What PXELINUX loads after itself.
    Module(Module),
}

impl Program {
    /// The program of that name.
    pub fn named(name: &str) -> Option<Self> {
        let module = Module::ALL.into_iter().find(|module| module.file_name() == name);
        name.parse().ok().map(Self::Loader).or_else(|| module.map(Self::Module))
    }

    /// Whether it comes with what is installed, and not with this machine.
    pub fn is_of_tree(self) -> bool {
        matches!(self, Self::Loader(loader) if loader.is_of_tree())
    }

    /// The name it is asked for.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Loader(loader) => loader.file_name(),
            Self::Module(module) => module.file_name(),
        }
    }
}

/// A disk as the BIOS numbers it: 0x80 is the first (INT 13h, EDD-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct BiosDrive(u8);

impl BiosDrive {
    /// The one that a BIOS boots by itself.
    pub const FIRST: Self = Self(0x80);

    /// Counted from 0.
    pub fn index(self) -> u8 {
        self.0 & 0x7f
    }
}

impl TryFrom<u8> for BiosDrive {
    type Error = NoBiosDrive;

    fn try_from(number: u8) -> Result<Self, NoBiosDrive> {
        if (0x80..0x90).contains(&number) { Ok(Self(number)) } else { Err(NoBiosDrive) }
    }
}

impl From<BiosDrive> for u8 {
    fn from(drive: BiosDrive) -> Self {
        drive.0
    }
}

impl FromStr for BiosDrive {
    type Err = NoBiosDrive;

    fn from_str(text: &str) -> Result<Self, NoBiosDrive> {
        let digits = text.strip_prefix("0x").ok_or(NoBiosDrive)?;
        u8::from_str_radix(digits, 16).ok().ok_or(NoBiosDrive)?.try_into()
    }
}

impl fmt::Display for BiosDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// A number that no BIOS gives to one of its first 16 disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not between 0x80 and 0x8f")]
pub struct NoBiosDrive;

/// The x86-64 micro-architecture levels of the psABI. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuLevel {
    /// Not even 64 bits.
    V0,
    /// Any 64-bit CPU.
    V1,
    /// SSE4.2 and POPCNT: Intel since 2008, AMD since 2011.
    V2,
    /// AVX2, BMI and FMA: Intel since Haswell, AMD since Excavator.
    V3,
}

/// The network card that booted, by its PCI numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciId {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
}

/// What a machine told of itself from iPXE. What it did not tell counts as good: `%pre` looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hardware {
    /// What its CPU can do.
    pub cpu: Option<CpuLevel>,
    /// The card it boots from.
    pub nic: Option<PciId>,
}

impl FromStr for CpuLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "v0" => Ok(Self::V0),
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            "v3" => Ok(Self::V3),
            _ => Err(()),
        }
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0 => "v0",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        })
    }
}

impl FromStr for PciId {
    type Err = ();

    /// iPXE's `${busid:hexraw}`: bus type 01, vendor, device; or the eight digits alone.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = match text.len() {
            10 => text.strip_prefix("01").ok_or(())?,
            8 => text,
            _ => return Err(()),
        };
        let number = u32::from_str_radix(digits, 16).ok().ok_or(())?;
        let [a, b, c, d] = number.to_be_bytes();
        Ok(Self { vendor: u16::from_be_bytes([a, b]), device: u16::from_be_bytes([c, d]) })
    }
}
