//! The TFTP server without sockets, files or clocks (RFC 1350): requests in, transfers out.
//!
//! [`Server::handle_request`] takes what comes to port 69 and asks for the file by [`Step::Find`]: what there is is not
//! known here, and no name reaches a file system. Each transfer then has a socket of its own in the shell.

pub mod options;
pub mod packet;
pub mod transfer;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use options::Agreed;
use packet::{Malformed, Mode, Packet, Read, Refusal};
use transfer::{Content, Outcome, Transfer};

/// Transfers at one time. Beyond that requests wait in their clients, which ask again.
pub const TRANSFERS_MAX: usize = 256;
/// Transfers of one address at one time; the oldest gives way to a new one.
const PER_CLIENT_MAX: usize = 4;
/// A request that comes again within this time is a duplicate of the one before.
const DUPLICATE_WITHIN: Duration = Duration::from_secs(1);

/// Names a transfer. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(u64);

/// The server: the transfers under way.
#[derive(Debug, Default)]
pub struct Server {
    transfers: BTreeMap<TransferId, Running>,
    by_peer: BTreeMap<SocketAddrV4, TransferId>,
    next_id: u64,
}

#[derive(Debug)]
struct Running {
    peer: SocketAddrV4,
    name: String,
    request: Vec<u8>,
    started: Duration,
    transfer: Transfer,
}

/// What a datagram on port 69 leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file is asked for: look whether there is one, then [`Server::open`] or [`Wanted::refuse`].
    Find(Wanted),
    /// A new transfer: give it a socket and drain [`Server::poll_transmit`]. Transfers it takes
    /// the place of have ended; their sockets can go.
    Start {
        /// The new one.
        id: TransferId,
        /// Those that gave way.
        ended: Vec<TransferId>,
    },
    /// The client asked again for a transfer that has just begun: drain it once more.
    Again(TransferId),
    /// Answer from port 69.
    Refuse {
        /// The ERROR packet.
        bytes: Vec<u8>,
        /// What was asked for.
        name: String,
    },
    /// No answer.
    Drop(Dropped),
}

/// A sound request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in plain form, see [`packet::clean`].
    pub name: String,
    /// Who asks.
    pub from: SocketAddrV4,
    read: Read,
    request: Vec<u8>,
}

impl Wanted {
    /// A text as its client wants it (RFC 764: in netascii a line ends with two bytes).
    pub fn encode(&self, text: &str) -> Bytes {
        match self.read.mode {
            Mode::Netascii => text.replace('\n', "\r\n").into(),
            Mode::Octet | Mode::Mail => text.to_owned().into(),
        }
    }

    /// There is no such file.
    pub fn refuse(self) -> Step {
        Step::Refuse { bytes: packet::error(Refusal::NotFound), name: self.name }
    }
}

/// Why a datagram on port 69 gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// It is no packet.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// An ACK, an ERROR or DATA of no transfer.
    #[error("it belongs to no transfer")]
    Stray,
    /// Too many transfers already.
    #[error("{TRANSFERS_MAX} transfers are under way already")]
    Full,
}

/// A transfer that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Whose.
    pub peer: SocketAddrV4,
    /// Of what.
    pub name: String,
    /// The size of it.
    pub bytes: u64,
    /// How.
    pub outcome: Outcome,
}

impl Server {
    /// Takes a datagram that came to port 69.
    pub fn handle_request(&mut self, bytes: &[u8], from: SocketAddrV4, now: Duration) -> Step {
        let read = match Packet::parse(bytes) {
            Ok(Packet::Read(read)) => read,
            Ok(Packet::Write) => {
                return Step::Refuse {
                    bytes: packet::error(Refusal::AccessViolation),
                    name: String::new(),
                };
            }
            // An ERROR is never answered with an ERROR.
            Ok(Packet::Ack(_) | Packet::Error(_) | Packet::Stray) => {
                return Step::Drop(Dropped::Stray);
            }
            Err(malformed) => return Step::Drop(malformed.into()),
        };
        if let Some(refusal) = refusal(&read) {
            return Step::Refuse { bytes: packet::error(refusal), name: read.name };
        }
        if let Some(id) = self.duplicate_of(bytes, from, now) {
            return Step::Again(id);
        }
        Step::Find(Wanted { name: read.name.clone(), from, read, request: bytes.to_vec() })
    }

    /// Begins to send the file that was found.
    pub fn open(&mut self, wanted: Wanted, content: Arc<dyn Content>, now: Duration) -> Step {
        let Wanted { name, from: peer, read, request } = wanted;
        let ended = self.make_room(peer);
        if self.transfers.len() >= TRANSFERS_MAX {
            return Step::Drop(Dropped::Full);
        }
        let agreed = Agreed::new(&read.asked, read.mode, content.len());
        let transfer = Transfer::new(content, agreed, now);
        let id = TransferId(self.next_id);
        self.next_id += 1;
        self.transfers.insert(id, Running { peer, name, request, started: now, transfer });
        self.by_peer.insert(peer, id);
        Step::Start { id, ended }
    }

    /// Takes a datagram that came to the socket of a transfer. Says whether it is our turn, see [`Transfer::is_our_turn`].
    pub fn handle_packet(&mut self, id: TransferId, bytes: &[u8], now: Duration) -> bool {
        let Some(running) = self.transfers.get_mut(&id) else { return false };
        running.transfer.handle_packet(bytes, now);
        running.transfer.is_our_turn()
    }

    /// Lets time pass for a transfer.
    pub fn handle_timeout(&mut self, id: TransferId, now: Duration) {
        if let Some(running) = self.transfers.get_mut(&id) {
            running.transfer.handle_timeout(now);
        }
    }

    /// Takes note that the port of the transfer's client is closed.
    pub fn handle_closed(&mut self, id: TransferId) {
        if let Some(running) = self.transfers.get_mut(&id) {
            running.transfer.handle_closed();
        }
    }

    /// Next datagram of a transfer, if any. Call until it returns `None`.
    pub fn poll_transmit(&mut self, id: TransferId) -> Option<Vec<u8>> {
        self.transfers.get_mut(&id)?.transfer.poll_transmit()
    }

    /// Several datagrams at once, see [`Transfer::poll_burst`].
    pub fn poll_burst(&mut self, id: TransferId, out: &mut Vec<u8>) -> Option<u16> {
        self.transfers.get_mut(&id)?.transfer.poll_burst(out)
    }

    /// When [`Self::handle_timeout`] is due; `None` when the transfer has ended.
    pub fn poll_timeout(&self, id: TransferId) -> Option<Duration> {
        self.transfers.get(&id)?.transfer.poll_timeout()
    }

    /// Forgets a transfer and says how it ended; one that has not yet counts as abandoned.
    pub fn finish(&mut self, id: TransferId) -> Option<Finished> {
        let Running { peer, name, transfer, .. } = self.transfers.remove(&id)?;
        if self.by_peer.get(&peer) == Some(&id) {
            self.by_peer.remove(&peer);
        }
        let outcome = transfer.outcome().unwrap_or(Outcome::Abandoned);
        Some(Finished { peer, name, bytes: transfer.len() as u64, outcome })
    }

    /// Whom a transfer is for.
    pub fn peer(&self, id: TransferId) -> Option<SocketAddrV4> {
        self.transfers.get(&id).map(|running| running.peer)
    }

    /// Transfers under way.
    pub fn len(&self) -> usize {
        self.transfers.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty()
    }

    /// The transfer that the very same request started a moment ago, when nothing came of it yet.
    fn duplicate_of(
        &mut self,
        bytes: &[u8],
        from: SocketAddrV4,
        now: Duration,
    ) -> Option<TransferId> {
        let id = *self.by_peer.get(&from)?;
        let running = self.transfers.get_mut(&id)?;
        let is_soon = now.saturating_sub(running.started) < DUPLICATE_WITHIN;
        if running.request != bytes || !is_soon || !running.transfer.is_fresh() {
            return None;
        }
        running.transfer.restart(now);
        Some(id)
    }

    /// Ends the transfer of the same port, which its client has given up, and the oldest of the
    /// same client when it has too many: a machine that is switched off and on leaves them behind.
    fn make_room(&mut self, from: SocketAddrV4) -> Vec<TransferId> {
        let mut ended: Vec<_> = self.by_peer.remove(&from).into_iter().collect();
        let of_client = self.transfers.iter().filter(|(id, running)| {
            let is_over = running.transfer.outcome().is_some();
            running.peer.ip() == from.ip() && !is_over && !ended.contains(id)
        });
        let ids: Vec<_> = of_client.map(|(id, _)| *id).collect();
        let surplus = (ids.len() + 1).saturating_sub(PER_CLIENT_MAX);
        ended.extend(ids.into_iter().take(surplus));
        for id in &ended {
            if let Some(running) = self.transfers.get_mut(id) {
                running.transfer.end(Outcome::Superseded);
            }
        }
        ended
    }
}

/// What no file could be the answer to.
fn refusal(read: &Read) -> Option<Refusal> {
    if read.mode == Mode::Mail {
        return Some(Refusal::IllegalOperation);
    }
    let leads_out = read.name.split('/').any(|segment| segment == "..");
    leads_out.then_some(Refusal::AccessViolation)
}

#[cfg(test)]
mod tests;
