//! Looking at a wire, and bytes to put on it.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::net::Namespace;
use super::process::DEADLINE;

/// `ETH_P_ALL`: a packet socket of it sees what leaves, too.
const EVERY_PROTOCOL: u16 = 3;

/// An IPv4 packet of UDP or TCP as it passed.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// The card it left from.
    pub(crate) from: [u8; 6],
    /// The card it goes to.
    pub(crate) to: [u8; 6],
    /// Sender.
    pub(crate) src: SocketAddrV4,
    /// Receiver.
    pub(crate) dst: SocketAddrV4,
    /// Whether it is TCP with the RST flag: the kernel's "nobody is here".
    pub(crate) is_reset: bool,
}

/// Everything that passes any interface of a namespace, in and out.
pub(crate) struct Sniffer {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    news: Condvar,
    stop: AtomicBool,
}

impl Sniffer {
    /// Listens from now on.
    pub(crate) fn on(namespace: &Namespace) -> Self {
        let socket = namespace.enter(|| {
            let all = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("packet socket")
        });
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || listen(socket, &ours));
        Self { shared, thread: Some(thread) }
    }

    /// What passed so far.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a frame.
    pub(crate) fn wait_for(&self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Frame {
        let frames = self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.shared.news.wait_timeout_while(frames, DEADLINE, |seen| !seen.iter().any(&is_it));
        let frames = waited.unwrap_or_else(PoisonError::into_inner).0;
        let found = frames.iter().find(|frame| is_it(frame));
        found.unwrap_or_else(|| panic!("no {what} among {frames:?}")).clone()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn listen(mut socket: Socket, shared: &Shared) {
    let mut buffer = [0; 4096];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok(len) = socket.read(&mut buffer) else { continue };
        if let Some(frame) = buffer.get(..len).and_then(parse) {
            shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
            shared.news.notify_all();
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Frame> {
    let (to, from) = (bytes.get(..6)?.try_into().ok()?, bytes.get(6..12)?.try_into().ok()?);
    let ip = bytes.get(14..).filter(|_| bytes.get(12..14) == Some(&[8, 0]))?;
    let head = usize::from(ip.first()? & 15) * 4;
    let is_tcp = match ip.get(9)? {
        6 => true,
        17 => false,
        _ => return None,
    };
    let address = |at: usize| {
        let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?));
    let src = SocketAddrV4::new(address(12)?, port(head)?);
    let dst = SocketAddrV4::new(address(16)?, port(head + 2)?);
    let is_reset = is_tcp && ip.get(head + 13)? & 4 != 0;
    Some(Frame { from, to, src, dst, is_reset })
}

/// A DHCPDISCOVER of a BIOS ROM.
pub(crate) fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 1, 2, 3, 4];
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 93, 2, 0, 0, 60, 9]);
    bytes.extend(b"PXEClient");
    bytes.push(255);
    bytes.resize(300, 0);
    bytes
}

/// A TFTP read request without options.
pub(crate) fn rrq(name: &str) -> Vec<u8> {
    [&[0, 1], name.as_bytes(), b"\0octet\0"].concat()
}

/// Bytes without pattern, the same for the same seed (xorshift64*).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
