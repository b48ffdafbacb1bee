//! File bodies that leave by sendfile(2) although hyper owns the connection.
//!
//! A body is a `Bytes` over the file's mapping, used only as a handle. When hyper writes a slice
//! whose address lies in a registered mapping, [`Stream`] calls sendfile with that offset instead.
//! Keep-alive, ranges and HEAD stay hyper's. Measured against reading files into buffers: 2 to 4
//! times less CPU per byte, which an old master feels.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::SockRef;
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::room::Room;
use crate::sys::map::Mapping;

/// Answers of this size and more leave in full packets only (TCP_CORK, tcp(7)): with few connections that is half as
/// much again per second. For small ones the two calls cost more than they save.
const CORKED: usize = 1 << 20;
/// With more connections than these corking costs more than it gives: measured, 32 streams get a fifth less, for half
/// as much CPU again.
const FEW: usize = 8;

/// At most this much per call: a fast reader must not keep a thread from the other connections. With half of it few
/// streams get a tenth less.
const CHUNK: usize = 2 << 20;

/// The mappings that are bodies now, by the address of their first byte.
static BODIES: Mutex<BTreeMap<usize, Arc<Source>>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Source {
    file: File,
    start: usize,
    len: usize,
}

/// Owner of a body's `Bytes`: unregisters before it unmaps.
#[derive(Debug)]
struct Handle(Mapping);

impl AsRef<[u8]> for Handle {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        BODIES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0.start());
    }
}

/// Makes a body of the part of `file` from `first`, `len` bytes long.
pub fn body(file: File, file_len: u64, first: u64, len: u64) -> io::Result<Bytes> {
    let size = |value: u64| usize::try_from(value).map_err(io::Error::other);
    let (Some(whole), first, len) = (NonZeroUsize::new(size(file_len)?), size(first)?, size(len)?)
    else {
        return Ok(Bytes::new());
    };
    let mapping = Mapping::new(&file, whole)?;
    let source = Source { file, start: mapping.start(), len: whole.get() };
    BODIES.lock().unwrap_or_else(PoisonError::into_inner).insert(mapping.start(), Arc::new(source));
    let end = first.saturating_add(len).min(whole.get());
    Ok(Bytes::from_owner(Handle(mapping)).slice(first.min(end)..end))
}

/// The file and offset that a slice stands for, when it is (part of) a body.
fn source_of(slice: &[u8]) -> Option<(Arc<Source>, usize)> {
    let address = slice.as_ptr().addr();
    let bodies = BODIES.lock().unwrap_or_else(PoisonError::into_inner);
    let (start, source) = bodies.range(..=address).next_back()?;
    let offset = address - start;
    (offset + slice.len() <= source.len).then(|| (Arc::clone(source), offset))
}

/// A connection that knows bodies when it sees them.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    room: Arc<Room>,
    is_corked: bool,
}

impl Stream {
    /// Wraps an accepted connection, one of those in `room`.
    pub fn new(tcp: TcpStream, room: Arc<Room>) -> Self {
        Self { tcp, room, is_corked: false }
    }

    /// Holds packets back that are not full, or lets them go.
    fn cork(&mut self, on: bool) {
        if self.is_corked != on && SockRef::from(&self.tcp).set_tcp_cork(on).is_ok() {
            self.is_corked = on;
        }
    }

    /// Writes some of `slices`: plain ones up to the first body, or one stretch of a body.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut plain = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let Some((source, offset)) = source_of(slice) else {
                plain += 1;
                continue;
            };
            if plain == 0 {
                return self.send_part(&source, offset, slice.len());
            }
            break;
        }
        let more = plain < slices.iter().filter(|slice| !slice.is_empty()).count();
        let head: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).take(plain).copied().collect();
        // The body follows at once: one packet less per answer.
        let flags =
            if more { MsgFlags::from_bits_retain(nix::libc::MSG_MORE) } else { MsgFlags::empty() };
        let none: [ControlMessage<'_>; 0] = [];
        sendmsg::<()>(self.tcp.as_raw_fd(), &head, &none, flags | MsgFlags::MSG_NOSIGNAL, None)
            .map_err(io::Error::from)
    }

    fn send_part(&self, source: &Source, offset: usize, len: usize) -> io::Result<usize> {
        let mut position = i64::try_from(offset).map_err(io::Error::other)?;
        debug_assert!(offset + len <= source.len && source.start != 0, "a slice of this body");
        match sendfile(&self.tcp, &source.file, Some(&mut position), len.min(CHUNK))? {
            // The file became shorter: what was promised cannot be sent.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if len >= CORKED && !self.is_corked && self.room.holds_up_to(FEW) {
            self.cork(true);
        }
        loop {
            match self.tcp.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            match self.tcp.try_io(Interest::WRITABLE, || self.try_write(slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Else hyper would copy bodies into a buffer of its own.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has written all it has: what is held back is the end of an answer.
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cork(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cork(false);
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
