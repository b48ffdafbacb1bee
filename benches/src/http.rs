//! HTTP: big files in 1 to 200 streams, and small ones as kickstarts are.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};

use socket2::{Domain, Socket, Type};

use crate::peers::{self, FILES};
use crate::place::{ADDRESS, CLIENTS_MAX, Place, client};
use crate::{Contest, Figures, with};

const SERVERS: [&str; 3] = ["rekindle", "nginx", "nginx-nopush-off"];
const SMALL_REQUESTS: usize = 20_000;
/// Three seconds of a gigabit wire.
const GIGABIT_BYTES: usize = 360_000_000;
/// The boot script of a machine that is to boot its disk.
const SCRIPT: &str = "ipxe/52-54-00-aa-00-01";

pub fn contests() -> Result<Vec<Contest>> {
    let mut contests = vec![];
    for streams in [1, 4, 32, 200] {
        // So that each run takes about a second or two.
        let bytes = if streams < 32 { 30 * FILES.big_len } else { 60 * FILES.big_len };
        let each = (bytes / streams).min(FILES.big_len);
        let rounds = bytes / (each * streams);
        let name = format!("HTTP, a big file in {streams} streams");
        let run = |server: &str| measured(&Place::new(true)?, server, streams, rounds, each);
        contests.push(Contest::hold(name, &SERVERS, run)?);
    }
    for streams in [1, 16, 64] {
        let each = (GIGABIT_BYTES / streams).min(FILES.big_len);
        let rounds = GIGABIT_BYTES / (each * streams);
        let name = format!("HTTP, a big file in {streams} streams on a gigabit wire");
        contests.push(Contest::hold(name, &SERVERS, |server| {
            let place = Place::new(true)?;
            place.slow_down("1gbit")?;
            measured(&place, server, streams, rounds, each)
        })?);
    }
    let file = "a file of 2 KB";
    for (name, keep_alive, script) in [
        (format!("{file}, 32 connections that stay"), true, None),
        (format!("{file}, a new connection each"), false, None),
        // What is rendered for each request, beside a file that somebody has rendered before.
        (
            format!("a boot script (the others: {file}), 32 connections that stay"),
            true,
            Some(SCRIPT),
        ),
    ] {
        contests.push(Contest::hold(format!("HTTP, {name}"), &SERVERS, |server| {
            let place = Place::new(true)?;
            let running = peers::http(&place, server)?;
            let count = if keep_alive { SMALL_REQUESTS } else { SMALL_REQUESTS / 4 };
            let path = script.filter(|_| server == "rekindle").unwrap_or(FILES.small);
            place.as_client(|| small(path, count / 10, keep_alive))?;
            let before = running.cpu_s()?;
            let took = place.as_client(|| small(path, count, keep_alive))?;
            let cpu = running.cpu_s()? - before;
            Ok(with(
                running.memory()?,
                [
                    ("requests/s", count as f64 / took.as_secs_f64()),
                    ("CPU us per request", cpu * 1e6 / count as f64),
                ],
            ))
        })?);
    }
    Ok(contests)
}

/// What a big file costs: every stream takes `each` bytes, `rounds` times.
fn measured(
    place: &Place,
    server: &str,
    streams: usize,
    rounds: usize,
    each: usize,
) -> Result<Figures> {
    let running = peers::http(place, server)?;
    place.as_client(|| big(1, 1, each))?;
    let before = running.cpu_s()?;
    let took = place.as_client(|| big(streams, rounds, each))?.as_secs_f64();
    let cpu = running.cpu_s()? - before;
    let sent = (each * streams * rounds) as f64;
    Ok(with(
        running.memory()?,
        [
            ("MB/s", sent / 1e6 / took),
            ("CPU % of a core", cpu / took * 100.0),
            ("CPU s per GiB", cpu / (sent / f64::from(1 << 30))),
        ],
    ))
}

/// A connection of one of the clients, each of which has its own address.
fn connect(number: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from = client(u8::try_from(number % usize::from(CLIENTS_MAX))?);
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.connect(&SocketAddrV4::new(ADDRESS.parse()?, 80).into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Asks for the first `len` bytes of the big file.
fn ask(mut stream: &TcpStream, len: usize) -> Result<()> {
    let path = FILES.big;
    let last = len - 1;
    let request =
        format!("GET /{path} HTTP/1.1\r\nHost: {ADDRESS}\r\nRange: bytes=0-{last}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(())
}

/// Reads a head byte by byte: what follows is counted, not read.
fn head(mut stream: &TcpStream) -> Result<()> {
    let mut seen = vec![];
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        seen.push(byte[0]);
    }
    ensure!(seen.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&seen));
    Ok(())
}

/// Every stream takes `len` bytes, `rounds` times one after the other. The kernel throws them away: it is the server
/// that is measured.
fn big(streams: usize, rounds: usize, len: usize) -> Result<Duration> {
    let connections = (0..streams).map(connect).collect::<Result<Vec<_>>>()?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let start = Instant::now();
    for (number, stream) in connections.iter().enumerate() {
        ask(stream, len)?;
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
    }
    // Bytes to come, or none before a head.
    let mut left: Vec<Option<usize>> = vec![None; streams];
    let mut rounds_left = vec![rounds; streams];
    let mut open = streams;
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; 1 << 20];
    while open > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        ensure!(count > 0, "nothing came for 10 s");
        for event in &events[..count] {
            let number = event.data() as usize;
            let stream = &connections[number];
            let Some(expected) = left[number] else {
                head(stream)?;
                left[number] = Some(len);
                continue;
            };
            let most = expected.min(buffer.len());
            let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
            let got = match recv(stream.as_raw_fd(), &mut buffer[..most], flags) {
                Ok(0) => anyhow::bail!("closed {expected} bytes before its end"),
                Ok(got) => got,
                Err(nix::errno::Errno::EAGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            left[number] = Some(expected - got);
            if expected == got {
                left[number] = None;
                rounds_left[number] -= 1;
                if rounds_left[number] == 0 {
                    open -= 1;
                    epoll.delete(stream.as_fd())?;
                } else {
                    ask(stream, len)?;
                }
            }
        }
    }
    Ok(start.elapsed())
}

/// So many requests for a small answer, 32 under way at a time.
fn small(path: &str, count: usize, keep_alive: bool) -> Result<Duration> {
    let parallel = 32.min(count);
    let closing = if keep_alive { "" } else { "Connection: close\r\n" };
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {ADDRESS}\r\n{closing}\r\n");
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let start = Instant::now();
    let mut asked = 0;
    let mut connections: Vec<Option<(TcpStream, Vec<u8>)>> = vec![];
    let begin = |number: usize| -> Result<(TcpStream, Vec<u8>)> {
        let mut stream = connect(number)?;
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        stream.write_all(request.as_bytes())?;
        Ok((stream, vec![]))
    };
    for number in 0..parallel {
        connections.push(Some(begin(number)?));
        asked += 1;
    }
    let mut answered = 0;
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; 8192];
    while answered < count {
        let ready = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        ensure!(ready > 0, "nothing came for 10 s");
        for event in &events[..ready] {
            let number = event.data() as usize;
            let Some((stream, got)) = &mut connections[number] else { continue };
            let len = stream.read(&mut buffer)?;
            ensure!(len > 0, "closed after {} bytes", got.len());
            got.extend_from_slice(&buffer[..len]);
            if !is_whole(got)? {
                continue;
            }
            answered += 1;
            got.clear();
            if asked == count {
                connections[number] = None;
                continue;
            }
            asked += 1;
            if keep_alive {
                stream.write_all(request.as_bytes()).context("ask again")?;
            } else {
                connections[number] = None;
                connections[number] = Some(begin(number)?);
            }
        }
    }
    Ok(start.elapsed())
}

/// Whether an answer is there with all of its body.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "{head}");
    let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let len: usize = len.context("no content-length")?.trim().parse()?;
    Ok(answer.len() == end + 4 + len)
}
