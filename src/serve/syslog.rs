//! The installers' log streams. Anaconda's `inst.syslog` is TCP, one line a message: each node's
//! lines go into a bounded file, and tell how many packages are in.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{ListenError, Shared};
use crate::http::report::printable;
use crate::name::{IfName, NodeName};

/// Where `inst.syslog` points.
pub const PORT: u16 = 5140;

/// A whole install writes about one MiB; a node that goes mad does not fill the disk.
const FILE_MAX: u64 = 8 << 20;
const LINE_MAX: usize = 8 << 10;
const CONNECTIONS_MAX: usize = 512;

/// Binds the master's private address, on the private interface only.
pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<TcpListener, ListenError> {
    super::http::listen("the installers' log", interface, SocketAddrV4::new(address, PORT))
}

/// Takes log streams until it is time to go.
pub async fn run(listener: TcpListener, dir: PathBuf, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let node = shared.site().cluster.node_by_ip(*peer.ip()).map(|node| node.name.clone());
        let Some(node) = node else {
            tracing::debug!(%peer, "a log stream from no node");
            continue;
        };
        let (dir, shared) = (dir.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            stream_of(stream, *peer.ip(), &node, &dir, &shared).await;
            drop(permit);
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
    let mut file = match open(dir, node) {
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
        if let Some((log, written)) = &mut file {
            *written += line.len() as u64 + 1;
            let full = *written > FILE_MAX;
            if full || writeln!(log, "{line}").is_err() {
                tracing::warn!(%node, full, "its log is not kept any longer");
                file = None;
            }
        }
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

fn open(dir: &Path, node: &NodeName) -> std::io::Result<(std::fs::File, u64)> {
    crate::journal::private_dir(dir)?;
    let path = dir.join(format!("{node}.log"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((file, written))
}
