//! TFTP: many machines fetch their loader at once, block by block and in windows, and over a wire that loses packets.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::peers::{self, LOADERS};
use crate::place::{ADDRESS, CLIENTS_MAX, Place, client};
use crate::{Contest, with};

const FILE: &str = "undionly.kpxe";
/// The biggest loader there is.
const BIG_FILE: &str = "ipxe.efi";
const BLOCK: usize = 1468;
/// When a client asks again, as ROMs do.
const AGAIN: Duration = Duration::from_secs(1);
/// When it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a room is like.
#[derive(Clone, Copy)]
struct Room {
    file: &'static str,
    clients: usize,
    window: usize,
    /// Packets of a thousand that are lost, each way.
    lost: u64,
}

pub fn contests() -> Result<Vec<Contest>> {
    // Only these agree to windows; the others would be measured without.
    let (all, with_windows) = (
        ["rekindle", "dnsmasq", "tftpd-hpa", "atftpd"].as_slice(),
        ["rekindle", "atftpd", "dnsmasq"].as_slice(),
    );
    let rooms = [
        (Room { file: FILE, clients: 1, window: 1, lost: 0 }, all),
        (Room { file: BIG_FILE, clients: 1, window: 64, lost: 0 }, with_windows),
        (Room { file: FILE, clients: 200, window: 1, lost: 0 }, all),
        (Room { file: FILE, clients: 200, window: 8, lost: 0 }, with_windows),
        (Room { file: FILE, clients: 32, window: 1, lost: 10 }, all),
    ];
    rooms.into_iter().map(|(room, servers)| contest(room, servers)).collect()
}

fn contest(room: Room, servers: &[&'static str]) -> Result<Contest> {
    let Room { file, clients, window, lost } = room;
    let len = usize::try_from(std::fs::metadata(Path::new(LOADERS).join(file))?.len())?;
    let loss = if lost == 0 { String::new() } else { format!(", {} % lost", lost as f64 / 10.0) };
    let name = format!("TFTP, {clients} fetch {file} at once, windows of {window}{loss}");
    Contest::hold(name, servers, |server| {
        let place = Place::new(true)?;
        let running = peers::tftp(&place, server)?;
        place.as_client(|| fetch(Room { clients: 1, lost: 0, ..room }, len, 0))?;
        // A few rooms one after the other, so that there is something to count.
        let rooms = if lost == 0 { (400 / clients).clamp(2, 100) } else { 3 };
        let before = running.cpu_s()?;
        let (mut took, mut failed) = (vec![], 0);
        for seed in 1..=rooms {
            let (time, given_up) = place.as_client(|| fetch(room, len, seed as u64))?;
            took.push(time.as_secs_f64() * 1e3);
            failed += given_up;
        }
        // What is forked for a transfer ends a while after it.
        std::thread::sleep(Duration::from_millis(200));
        let cpu = running.cpu_s()? - before;
        took.sort_by(f64::total_cmp);
        Ok(with(
            running.memory()?,
            [
                ("ms until all are done", took[took.len() / 2]),
                ("CPU us per client", cpu * 1e6 / (rooms * clients) as f64),
                ("CPU s per GiB", cpu / ((rooms * clients * len) as f64 / f64::from(1 << 30))),
                ("failed", failed as f64),
            ],
        ))
    })
}

struct Client {
    socket: UdpSocket,
    /// Where the transfer comes from, once known.
    from: Option<std::net::SocketAddr>,
    blocks: usize,
    unacked: usize,
    len: usize,
    window: usize,
    said: Vec<u8>,
    at: Instant,
    is_done: bool,
}

/// splitmix64.
struct Luck(u64);

impl Luck {
    fn loses(&mut self, of_thousand: u64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % 1000 < of_thousand
    }
}

/// How long it took until the last one had everything, and how many gave up.
fn fetch(room: Room, len: usize, seed: u64) -> Result<(Duration, usize)> {
    let mut luck = Luck(seed);
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let start = Instant::now();
    let window =
        if room.window > 1 { format!("windowsize\0{}\0", room.window) } else { String::new() };
    let request = format!("\0\x01{}\0octet\0blksize\0{BLOCK}\0{window}", room.file).into_bytes();
    let mut clients = vec![];
    for number in 0..room.clients {
        let socket = UdpSocket::bind((client(u8::try_from(number)? % CLIENTS_MAX), 0))?;
        socket.set_nonblocking(true)?;
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        if !luck.loses(room.lost) {
            socket.send_to(&request, (ADDRESS, 69))?;
        }
        clients.push(Client {
            socket,
            from: None,
            blocks: 0,
            unacked: 0,
            len: 0,
            window: 1,
            said: request.clone(),
            at: Instant::now(),
            is_done: false,
        });
    }
    let mut events = [EpollEvent::empty(); 64];
    let mut left = room.clients;
    let mut buffer = [0; 2048];
    while left > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(20u8))?;
        for event in &events[..count] {
            let client = &mut clients[event.data() as usize];
            while let Ok((got, from)) = client.socket.recv_from(&mut buffer) {
                if luck.loses(room.lost) || client.is_done {
                    continue;
                }
                if let Some(answer) = client.take(&buffer[..got], from)? {
                    client.said = answer;
                    client.at = Instant::now();
                    if !luck.loses(room.lost) {
                        client.socket.send_to(&client.said, from)?;
                    }
                }
                if client.is_done {
                    ensure!(client.len == len, "{} of {len} bytes arrived", client.len);
                    left -= 1;
                }
            }
        }
        for client in clients.iter_mut().filter(|client| !client.is_done) {
            if client.at.elapsed() > AGAIN {
                client.at = Instant::now();
                if !luck.loses(room.lost) {
                    match client.from {
                        Some(from) => client.socket.send_to(&client.said, from)?,
                        None => client.socket.send_to(&client.said, (ADDRESS, 69))?,
                    };
                }
            }
        }
        if start.elapsed() > PATIENCE {
            return Ok((start.elapsed(), left));
        }
    }
    Ok((start.elapsed(), 0))
}

impl Client {
    /// Takes a packet; what it says to it.
    fn take(&mut self, packet: &[u8], from: std::net::SocketAddr) -> Result<Option<Vec<u8>>> {
        if self.from.is_some_and(|known| known != from) {
            return Ok(None);
        }
        let [0, operation, high, low, data @ ..] = packet else { return Ok(None) };
        match operation {
            6 => {
                self.from = Some(from);
                self.window = window_of(&packet[2..]).unwrap_or(1);
                Ok(Some(vec![0, 4, 0, 0]))
            }
            3 => {
                self.from = Some(from);
                let number = u16::from_be_bytes([*high, *low]);
                let wanted = (self.blocks + 1) as u16;
                if number != wanted {
                    // What was lost is asked for once a window, by saying what there is.
                    let is_ahead = number.wrapping_sub(wanted) < 0x8000;
                    let say = is_ahead && self.unacked > 0 || !is_ahead && self.window == 1;
                    self.unacked = 0;
                    return Ok(say.then(|| ack(self.blocks)));
                }
                self.blocks += 1;
                self.unacked += 1;
                self.len += data.len();
                if data.len() < BLOCK {
                    self.is_done = true;
                } else if self.unacked < self.window {
                    return Ok(None);
                }
                self.unacked = 0;
                Ok(Some(ack(self.blocks)))
            }
            5 => anyhow::bail!("refused: {}", String::from_utf8_lossy(data)),
            _ => Ok(None),
        }
    }
}

fn ack(block: usize) -> Vec<u8> {
    let [.., high, low] = block.to_be_bytes();
    vec![0, 4, high, low]
}

fn window_of(options: &[u8]) -> Option<usize> {
    let mut fields = options.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if name.eq_ignore_ascii_case(b"windowsize") {
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
    }
    None
}
