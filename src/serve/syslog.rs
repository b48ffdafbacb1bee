//! The log streams of installers and nodes. Both are TCP, one line a message: each node's lines go
//! into a bounded file, and an installer's tell how many packages are in.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::room::Room;
use super::{ListenError, Shared};
use crate::http::report::printable;
use crate::name::{IfName, NodeName};

/// Where Anaconda's `inst.syslog` points, and where rsyslog of an installed node sends: 601 is one of
/// the few ports that SELinux lets it connect to.
pub const PORTS: [u16; 2] = [5140, 601];

/// A whole install writes about one MiB; a node that goes mad does not fill the disk. A full file
/// gives way to the next, and one old one is kept.
const FILE_MAX: u64 = 8 << 20;
const LINE_MAX: usize = 8 << 10;
const CONNECTIONS_MAX: usize = 512;
const CONNECTIONS_EACH: usize = 8;

/// Binds the master's private address, on the private interface only.
pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<[TcpListener; 2], ListenError> {
    let [installers, nodes] = PORTS.map(|port| SocketAddrV4::new(address, port));
    Ok([
        super::http::listen("the installers' log", interface, installers)?,
        super::http::listen("the nodes' log", interface, nodes)?,
    ])
}

/// Takes log streams until it is time to go.
pub async fn run(listener: TcpListener, dir: PathBuf, shared: Arc<Shared>) {
    let room = Room::new(CONNECTIONS_MAX, CONNECTIONS_EACH);
    let mut tasks = tokio::task::JoinSet::new();
    let mut stop = shared.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            () = super::stopped(&mut stop) => return,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, SocketAddr::V4(peer))) => (stream, peer),
            Ok((_, SocketAddr::V6(_))) => continue,
            // Out of file descriptors, most likely; trying again at once would use up a core.
            Err(error) => {
                tracing::warn!(%error, "cannot take a log stream");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = room.take(*peer.ip()) else { continue };
        let node = shared.site().cluster.node_by_ip(*peer.ip()).map(|node| node.name.clone());
        let Some(node) = node else {
            tracing::debug!(%peer, "a log stream from no node");
            continue;
        };
        let (dir, shared) = (dir.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            stream_of(stream, *peer.ip(), &node, &dir, &shared).await;
            drop(place);
        });
    }
}

async fn stream_of(
    stream: TcpStream,
    peer: Ipv4Addr,
    node: &NodeName,
    dir: &Path,
    shared: &Arc<Shared>,
) {
    let mut file = match Log::open(dir, node) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(%node, %error, "its log is not kept");
            None
        }
    };
    let mut reader = BufReader::with_capacity(LINE_MAX, stream);
    loop {
        let Ok(Some(line)) = line(&mut reader).await else { return };
        let record = shared.master().handle_log_line(peer, &line);
        if let Some(record) = record {
            shared.record_later(vec![record]);
        }
        if let Some(log) = &mut file
            && let Err(error) = log.line(&line)
        {
            tracing::warn!(%node, %error, "its log is not kept any longer");
            file = None;
        }
    }
}

/// A node's log: the file that is written now, and the one before it as `NAME.log.1`.
struct Log {
    path: PathBuf,
    file: std::fs::File,
    written: u64,
}

impl Log {
    fn open(dir: &Path, node: &NodeName) -> std::io::Result<Self> {
        crate::change::private_dir(dir)?;
        let path = dir.join(format!("{node}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written })
    }

    fn line(&mut self, line: &str) -> std::io::Result<()> {
        self.written += line.len() as u64 + 1;
        if self.written > FILE_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = std::fs::File::create(&self.path)?;
            self.written = line.len() as u64 + 1;
        }
        writeln!(self.file, "{line}")
    }
}

/// The next line, cut to what fits the buffer; `None` at the end.
async fn line(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut line = vec![];
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then(|| clean(&line)));
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let take = end.unwrap_or(chunk.len());
        let room = LINE_MAX.saturating_sub(line.len());
        line.extend(chunk.iter().take(take.min(room)));
        let used = end.map_or(take, |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(clean(&line)));
        }
    }
}

fn clean(line: &[u8]) -> String {
    printable(String::from_utf8_lossy(line).trim_end()).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_full_gives_way_and_one_old_one_is_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let node: NodeName = "worker1".parse().expect("name");
        let mut log = Log::open(dir.path(), &node).expect("log");
        let line = "x".repeat(1023);
        for _ in 0..(FILE_MAX / 1024 * 2 + 10) {
            log.line(&line).expect("written");
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).expect(name).len();
        assert_eq!(size("worker1.log"), 10 * 1024);
        assert_eq!(size("worker1.log.1"), FILE_MAX);
        let again = Log::open(dir.path(), &node).expect("log");
        assert_eq!(again.written, 10 * 1024, "what is there counts after a restart");
    }
}
