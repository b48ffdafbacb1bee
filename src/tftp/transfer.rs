//! One TFTP download (RFC 1350, windows by RFC 7440), without sockets, files or clocks.
//!
//! The shell feeds in what arrived and what time it is, then drains [`Transfer::poll_transmit`].
//! Block 0 is the OACK; a transfer without options starts at block 1.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::options::Agreed;
use super::packet::{self, Packet, Refusal};

/// First wait on a local network, before anything is known of the way; it doubles up to [`RTO_MAX`].
const RTO_FIRST: Duration = Duration::from_millis(500);
const RTO_MAX: Duration = Duration::from_secs(4);
/// Shortest wait for a client that answers at once: a polling ROM takes its time now and then.
const RTO_MIN: Duration = Duration::from_millis(50);
/// Longest wait a client can ask for: its place is needed by others.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// A client counts as gone after so many waits in a row without progress that took so long.
const TRIES_MAX: u32 = 8;
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Some ROMs never acknowledge the last block: so many resends of it in no less than this time, and they have it.
const LAST_TRIES: u32 = 3;
const LAST_SILENCE: Duration = Duration::from_secs(2);

/// Bytes that leave at once: what fits one datagram of the largest size, which is what the kernel cuts up.
const BURST_MAX: usize = 65_000;

/// What is sent. A transfer reads it block by block: an initrd of 100 MB need not lie in memory for each node.
pub trait Content: fmt::Debug + Send + Sync {
    /// How many bytes it has.
    fn len(&self) -> usize;

    /// Fills `buffer` with what begins at `offset`; `None` when that cannot be read (any more).
    fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Content for Bytes {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        let bytes = self.get(offset..offset.checked_add(buffer.len())?)?;
        buffer.copy_from_slice(bytes);
        Some(())
    }
}

/// The sending side of one download. Invariant: `base <= next <= sent <= last + 1`.
#[derive(Debug)]
pub struct Transfer {
    content: Arc<dyn Content>,
    agreed: Agreed,
    base: usize, // First block not yet acknowledged. Unlike on the wire, it never wraps.
    next: usize, // Next block to send.
    sent: usize, // First block never sent yet. Ahead of `next` after going back.
    last: usize, // Final block. Content that fills its blocks exactly is followed by an empty one.
    tries: u32,
    acked: bool,
    way: Option<Way>,   // Of a client that has answered.
    progress: Duration, // When the client last got on.
    flight: Duration,   // When the blocks from `base` on left, the last time.
    hurried: bool,      // A duplicate ACK has made them leave again already.
    deadline: Duration,
    outcome: Option<Outcome>,
}

/// How long it takes to the client and back (RFC 6298 section 2).
#[derive(Debug, Clone, Copy)]
struct Way {
    smoothed: Duration,
    varies: Duration,
}

impl Way {
    fn measured(known: Option<Self>, took: Duration) -> Self {
        let Some(Self { smoothed, varies }) = known else {
            return Self { smoothed: took, varies: took / 2 };
        };
        let varies = varies * 3 / 4 + smoothed.abs_diff(took) / 4;
        Self { smoothed: smoothed * 7 / 8 + took / 8, varies }
    }

    fn rto(self) -> Duration {
        (self.smoothed + self.varies * 4).clamp(RTO_MIN, RTO_MAX)
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client has every byte.
    Delivered,
    /// The client wants no more of it. Code 8 or 0 right after the OACK is how firmware asks
    /// for a size.
    Aborted {
        /// The error code it sent.
        code: u16,
    },
    /// The client fell silent.
    Abandoned,
    /// The client asked again, from the same port or too often.
    Superseded,
    /// The file was taken away or cut off meanwhile.
    Unreadable,
}

impl Transfer {
    /// Starts sending `content`; the first packet is ready at once. Times are counted from any
    /// fixed moment.
    pub fn new(content: Arc<dyn Content>, agreed: Agreed, now: Duration) -> Self {
        let base = usize::from(agreed.oack.is_empty());
        let last = content.len() / agreed.blksize.max(1) + 1;
        let (tries, acked, outcome) = (0, false, None);
        let mut transfer = Self {
            content,
            agreed,
            base,
            next: base,
            sent: base,
            last,
            tries,
            acked,
            way: None,
            progress: now,
            flight: now,
            hurried: false,
            deadline: now,
            outcome,
        };
        transfer.rewind(now);
        transfer
    }

    /// Takes a packet of the client.
    pub fn handle_packet(&mut self, bytes: &[u8], now: Duration) {
        if self.outcome.is_some() {
            return;
        }
        match Packet::parse(bytes) {
            Ok(Packet::Ack(block)) => self.handle_ack(block, now),
            Ok(Packet::Error(code)) => self.end(Outcome::Aborted { code }),
            Ok(Packet::Read(_) | Packet::Write | Packet::Stray) | Err(_) => {}
        }
    }

    /// Whether the client has all that was sent and nothing to say until more is, but what it said before once more. Never
    /// with windows: there the same ACK again means something, and when it came.
    pub fn is_our_turn(&self) -> bool {
        self.agreed.windowsize == 1 && self.base == self.sent && self.outcome.is_none()
    }

    /// Sends again once the client has been silent for too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.outcome.is_some() || now < self.deadline {
            return;
        }
        self.tries += 1;
        let silence = now.saturating_sub(self.progress);
        if self.tries > LAST_TRIES && silence >= LAST_SILENCE && self.lacks_last_ack() {
            self.end(Outcome::Delivered);
        } else if self.tries >= TRIES_MAX && silence >= SILENCE_MAX {
            self.end(Outcome::Abandoned);
        } else {
            self.rewind(now);
        }
    }

    /// The client's port is closed: it has given up, or it has all and said nothing.
    pub fn handle_closed(&mut self) {
        let has_all = self.lacks_last_ack() && self.sent > self.last;
        self.end(if has_all { Outcome::Delivered } else { Outcome::Abandoned });
    }

    /// Sends the first packet again: the client's request came twice, so it missed the answer.
    pub fn restart(&mut self, now: Duration) {
        if self.is_fresh() {
            self.rewind(now);
        }
    }

    /// Ends the transfer from our side, without a word.
    pub fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Next packet to send now, if any. Call until it returns `None`.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![];
        self.append_next(&mut packet).then_some(packet)
    }

    /// The next packets to send now, one behind the other in place of what `out` held: each of the returned length, the
    /// last one perhaps shorter. `None` when there is none. Call until it returns `None`.
    pub fn poll_burst(&mut self, out: &mut Vec<u8>) -> Option<u16> {
        out.clear();
        if !self.append_next(out) {
            return None;
        }
        let each = out.len();
        while out.len().is_multiple_of(each)
            && out.len() + each <= BURST_MAX
            && self.append_next(out)
        {}
        u16::try_from(each).ok()
    }

    /// Puts the next packet behind what is there already; false when there is none.
    fn append_next(&mut self, out: &mut Vec<u8>) -> bool {
        let window = if self.base == 0 { 1 } else { self.agreed.windowsize };
        let window_end = (self.base + window).min(self.last + 1);
        if self.outcome.is_some() || self.next >= window_end {
            return false;
        }
        let began = out.len();
        if let Some(index) = self.next.checked_sub(1) {
            let start = (index * self.agreed.blksize).min(self.content.len());
            let end = (start + self.agreed.blksize).min(self.content.len());
            packet::append_data(wire_number(self.next), end - start, out);
            let place = out.get_mut(began + packet::DATA_HEADER..);
            if place.and_then(|place| self.content.read(start, place)).is_none() {
                out.truncate(began);
                // Its length is its own: it leaves by itself, the next time.
                if began > 0 {
                    return false;
                }
                self.end(Outcome::Unreadable);
                out.extend(packet::error(Refusal::Unreadable));
                return true;
            }
        } else {
            out.extend(packet::oack(&self.agreed.oack));
        }
        self.next += 1;
        self.sent = self.sent.max(self.next);
        true
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.outcome.is_none().then_some(self.deadline)
    }

    /// How the transfer ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Whether the client has not acknowledged anything yet.
    pub fn is_fresh(&self) -> bool {
        !self.acked && self.outcome.is_none()
    }

    /// Bytes of the whole content.
    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// Whether there is nothing to send but an empty block.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Takes an ACK. A duplicate is dropped rather than answered, or each would double the
    /// traffic from then on (the Sorcerer's Apprentice bug, RFC 1123 section 4.2.3.1).
    fn handle_ack(&mut self, block: u16, now: Duration) {
        let ahead = usize::from(block.wrapping_sub(wire_number(self.base)));
        if ahead >= self.sent - self.base {
            if block == wire_number(self.base).wrapping_sub(1) {
                self.hurry(now);
            }
            return;
        }
        // Of what left twice nobody knows which one is answered (Karn's algorithm, RFC 6298 section 3).
        if self.tries == 0 && !self.hurried {
            self.way = Some(Way::measured(self.way, now.saturating_sub(self.flight)));
        }
        self.base += ahead + 1;
        self.acked = true;
        self.tries = 0;
        self.hurried = false;
        self.progress = now;
        // A short ACK means that the rest of the window was lost: go back (RFC 7440 section 4).
        self.rewind(now);
        if self.base > self.last {
            self.end(Outcome::Delivered);
        }
    }

    /// In a window the same ACK again says that its first block was lost and a later one came. That is believed once a
    /// window, and not so soon that it may be the ACK of the window before, doubled on its way.
    fn hurry(&mut self, now: Duration) {
        let Some(way) = self.way.filter(|_| self.agreed.windowsize > 1 && !self.hurried) else {
            return;
        };
        if self.tries == 0 && now.saturating_sub(self.flight) >= way.smoothed / 2 {
            self.hurried = true;
            self.rewind(now);
        }
    }

    fn lacks_last_ack(&self) -> bool {
        self.acked && self.base == self.last
    }

    fn rewind(&mut self, now: Duration) {
        self.next = self.base;
        self.flight = now;
        self.deadline = now + self.wait();
    }

    fn wait(&self) -> Duration {
        match self.agreed.timeout {
            Some(timeout) => timeout.min(TIMEOUT_MAX),
            None => {
                let first = self.way.map_or(RTO_FIRST, Way::rto);
                first.saturating_mul(1 << self.tries.min(16)).min(RTO_MAX)
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "block numbers wrap to 0 on the wire")]
fn wire_number(block: usize) -> u16 {
    block as u16
}

#[cfg(test)]
mod tests;
