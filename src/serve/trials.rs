//! Datagrams that wait until the wire was asked for the address that is to be offered: in with the question, out with
//! who answered.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::arp;
use crate::host;
use crate::mac::Mac;
use crate::name::IfName;
use crate::sys::packet::Frames;

/// How long an answer is waited for: on a switch it takes milliseconds, and a ROM asks again after seconds.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most that wait; the clients of others ask again.
const WAITING_MAX: usize = 4096;
/// Frames that are taken in before others have their turn.
const FRAMES_MAX: usize = 4096;
/// The longest ARP frame, with room for what a switch adds.
const FRAME_MAX: usize = 128;

/// What waits, the oldest first, and who has answered so far.
#[derive(Debug, Default)]
pub(super) struct Trials {
    wire: Option<(AsyncFd<Frames>, Mac)>,
    waiting: VecDeque<Waiting>,
    asked: BTreeMap<Ipv4Addr, Option<Mac>>,
}

/// A datagram, and the address in question.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ip: Ipv4Addr,
    pub(super) bytes: Vec<u8>,
    pub(super) from: SocketAddrV4,
    due: Instant,
}

impl Trials {
    /// Listens to ARP on `interface`. Where that cannot be, addresses are offered unasked: their clients look as well.
    pub(super) fn on(interface: &IfName) -> Self {
        let opened = host::card(interface).ok_or_else(|| "it has no hardware address".to_owned());
        let opened = opened.and_then(|card| {
            let frames = Frames::arp(interface).map_err(|error| error.to_string())?;
            Ok((frames, card))
        });
        if let Err(why) = &opened {
            tracing::warn!(%interface, why, "cannot ask by ARP whether an address is free; it is lent unasked");
        }
        Self { wire: opened.ok(), ..Self::default() }
    }

    /// Asks for `ip`, while the datagram waits.
    pub(super) fn ask(&mut self, ip: Ipv4Addr, bytes: &[u8], from: SocketAddrV4) {
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        if self.asked.is_empty() {
            self.forget_old_frames();
        }
        let sent =
            self.wire.as_ref().map(|(wire, card)| wire.get_ref().send(&arp::probe(*card, ip)));
        let patience = match sent {
            Some(Ok(())) => PATIENCE,
            Some(Err(error)) => {
                tracing::debug!(%ip, %error, "ARP probe was not sent");
                Duration::ZERO
            }
            None => Duration::ZERO,
        };
        self.asked.insert(ip, None);
        let due = Instant::now() + patience;
        self.waiting.push_back(Waiting { ip, bytes: bytes.to_vec(), from, due });
    }

    /// What was said before anybody asked is no answer: it may be of a machine that has moved on.
    fn forget_old_frames(&self) {
        let mut buffer = [0; FRAME_MAX];
        let Some((wire, _)) = &self.wire else { return };
        for _ in 0..FRAMES_MAX {
            if wire.get_ref().receive(&mut buffer).is_err() {
                return;
            }
        }
    }

    /// The next datagram that has waited long enough, and whose card answered. Ends only then; may be dropped any time.
    pub(super) async fn next(&mut self) -> (Waiting, Option<Mac>) {
        loop {
            let Some(due) = self.waiting.front().map(|waiting| waiting.due) else {
                return std::future::pending().await;
            };
            tokio::select! {
                () = listen(self.wire.as_ref(), &mut self.asked) => {}
                () = sleep_until(due) => {
                    let Some(waiting) = self.waiting.pop_front() else { continue };
                    let user = self.asked.remove(&waiting.ip).flatten();
                    return (waiting, user);
                }
            }
        }
    }
}

/// Takes in the frames that are there, once there are some.
async fn listen(
    wire: Option<&(AsyncFd<Frames>, Mac)>,
    asked: &mut BTreeMap<Ipv4Addr, Option<Mac>>,
) {
    let Some((wire, _)) = wire else { return std::future::pending().await };
    let mut buffer = [0; FRAME_MAX];
    let Ok(mut ready) = wire.readable().await else { return std::future::pending().await };
    for _ in 0..FRAMES_MAX {
        let Ok(received) = ready.try_io(|frames| frames.get_ref().receive(&mut buffer)) else {
            return;
        };
        // Said when the cable is out.
        let Ok(len) = received else { continue };
        let sender = buffer.get(..len).and_then(arp::sender);
        if let Some((ip, card)) = sender
            && let Some(user) = asked.get_mut(&ip)
        {
            user.get_or_insert(card);
        }
    }
}
