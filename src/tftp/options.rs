//! TFTP options: what a client asks for -> what is agreed (RFC 2347, 2348, 2349, 7440).

use std::time::Duration;

use super::packet::Mode;

/// Without the option.
const BLKSIZE_DEFAULT: usize = 512;
/// Smallest a client may ask for (RFC 2348).
const BLKSIZE_MIN: u64 = 8;
/// Largest that fits an Ethernet frame: ROMs cannot put fragments together.
const BLKSIZE_MAX: u64 = 1468;
/// Keeps what a client can make us send at once below 100 KB.
const WINDOWSIZE_MAX: u64 = 64;

/// The terms of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes in a block.
    pub blksize: usize,
    /// Blocks sent before an ACK is awaited.
    pub windowsize: usize,
    /// How long to wait before sending again, when the client wants to say so.
    pub timeout: Option<Duration>,
    /// What the OACK says, in the client's order and spelling. Empty: there is no OACK.
    pub oack: Vec<(String, u64)>,
}

impl Agreed {
    /// Agrees to what a client asked. Options that are unknown, doubled or senseless count as
    /// not asked for: some ROMs give up over an OACK with a surprise in it.
    pub fn new(asked: &[(String, String)], mode: Mode, len: usize) -> Self {
        let (blksize, windowsize) = (BLKSIZE_DEFAULT, 1);
        let mut agreed = Self { blksize, windowsize, timeout: None, oack: vec![] };
        for (name, value) in asked {
            let is_known = |(known, _): &(String, u64)| known.eq_ignore_ascii_case(name);
            if agreed.oack.iter().any(is_known) {
                continue;
            }
            let Some(value) = parse(value) else { continue };
            if let Some(value) = agreed.agree(name, value, mode, len) {
                agreed.oack.push((name.clone(), value));
            }
        }
        agreed
    }

    fn agree(&mut self, name: &str, asked: u64, mode: Mode, len: usize) -> Option<u64> {
        match name.to_ascii_lowercase().as_str() {
            "blksize" if asked >= BLKSIZE_MIN => {
                let value = asked.min(BLKSIZE_MAX);
                self.blksize = usize::try_from(value).ok()?;
                Some(value)
            }
            "windowsize" if asked >= 1 => {
                let value = asked.min(WINDOWSIZE_MAX);
                self.windowsize = usize::try_from(value).ok()?;
                Some(value)
            }
            "timeout" if (1..=255).contains(&asked) => {
                self.timeout = Some(Duration::from_secs(asked));
                Some(asked)
            }
            // As text the number of bytes would depend on the reader's line ends.
            "tsize" if mode == Mode::Octet => u64::try_from(len).ok(),
            _ => None,
        }
    }
}

/// Digits, perhaps with blanks around them.
fn parse(value: &str) -> Option<u64> {
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests;
