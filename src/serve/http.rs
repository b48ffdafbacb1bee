//! The node plane on a socket: hyper's requests -> [`Master`](crate::master::Master) -> hyper's
//! responses. Decides nothing but how bytes travel.

use std::convert::Infallible;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
    RETRY_AFTER,
};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::room::Room;
use super::{ListenError, Shared, sendfile};
use crate::http::range::{Part, if_range_holds, part};
use crate::http::report::BODY_MAX;
use crate::http::{FilePath, Method, Root, files};
use crate::master::{Refused, Reply, Request};
use crate::name::{IfName, OsName};

/// Connections in all; 20 installing nodes hold about 60.
const CONNECTIONS_MAX: usize = 512;
/// Connections of one machine; dnf opens three at a time.
const CONNECTIONS_EACH: usize = 32;

/// How long a client may take to send its request line and headers, also between requests; and as long again for what it
/// posts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take nothing of what it asked for: an installer's disk may be busy for a while.
const STUCK: Duration = Duration::from_secs(120);

/// Answers up to this size are read: that costs less than to map them.
const SMALL: u64 = 16 * 1024;

/// Where install servers live.
pub const PORT: u16 = 80;

type Body = Full<Bytes>;

/// Binds the node plane's address.
pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<TcpListener, ListenError> {
    listen("HTTP", interface, SocketAddrV4::new(address, PORT))
}

/// Binds the master's private address, on the private interface only: without the device,
/// Linux would take connections for that address on the uplink too (weak host model).
pub fn listen(
    service: &'static str,
    interface: &IfName,
    at: SocketAddrV4,
) -> Result<TcpListener, ListenError> {
    let open = || -> std::io::Result<TcpListener> {
        let kind = socket2::Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None)?;
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
        // Only spares the wait for connections of the previous run; two servers still collide.
        socket.set_reuse_address(true)?;
        // Accepted connections inherit it: a machine that was switched off keeps its place for
        // two minutes, not for ever.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(10))
            .with_retries(6);
        socket.set_tcp_keepalive(&keepalive)?;
        // And one that stands still with a full buffer, which keeps a connection alive as well (tcp(7)).
        socket.set_tcp_user_timeout(Some(STUCK))?;
        socket.bind(&SocketAddr::V4(at).into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| ListenError::new(service, at, interface, source))
}

/// Serves until `stop` says so; then lets requests under way finish, for a while.
pub async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let room = Room::new(CONNECTIONS_MAX, CONNECTIONS_EACH);
    let mut tasks = tokio::task::JoinSet::new();
    let mut stop = shared.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            () = super::stopped(&mut stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, SocketAddr::V4(peer))) => (stream, *peer.ip()),
            Ok((_, SocketAddr::V6(_))) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = room.take(peer) else {
            tracing::warn!(%peer, "too many connections, this one is turned away");
            continue;
        };
        let (shared, in_room) = (Arc::clone(&shared), Arc::clone(&room));
        tasks.spawn(async move {
            connection(stream, peer, in_room, shared).await;
            drop(place);
        });
    }
    drop(listener);
    let drained =
        tokio::time::timeout(super::DRAIN, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::info!(open = tasks.len(), "transfers cut off, nodes will ask again");
    }
}

async fn connection(stream: TcpStream, peer: Ipv4Addr, room: Arc<Room>, shared: Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    let mut stop = shared.stop.subscribe();
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, peer, &shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(sendfile::Stream::new(stream, room)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = super::stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: Ipv4Addr,
    shared: &Arc<Shared>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let method = match head.method {
        hyper::Method::GET | hyper::Method::HEAD => Method::Get,
        hyper::Method::POST => Method::Post,
        _ => return refuse(&Refused::Method { allow: "GET, HEAD, POST" }),
    };
    let body = Limited::new(body, BODY_MAX).collect();
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return refuse(&Refused::Malformed(format!("at most {BODY_MAX} bytes, please")));
        }
        Err(_) => {
            let mut response = refuse(&Refused::Malformed("it takes too long to come".to_owned()));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    let outcome = shared.handle_http(&Request { peer, method, path, body: &body });
    if !outcome.records.is_empty()
        && let Err(error) = shared.record(outcome.records).await
    {
        tracing::error!(%peer, error = format!("{error:#}"), "not answered: it could not be written down");
        return refuse(&Refused::Unavailable(
            "the journal cannot be written; see the master".to_owned(),
        ));
    }
    if !outcome.notes.is_empty() {
        shared.record_later(outcome.notes);
    }
    if let Reply::Refused(refused) = &outcome.reply {
        tracing::debug!(%peer, path = super::mask(path), %refused, "refused");
    }
    tracing::trace!(%peer, method = %head.method, path = super::mask(path), "asked");
    match outcome.reply {
        Reply::Text(text) => whole("text/plain; charset=utf-8", text.into()),
        Reply::Secret(bytes) => whole("application/octet-stream", bytes.into()),
        Reply::Program(program) => match shared.programs.get(&program) {
            Some(bytes) => {
                if head.method == hyper::Method::GET {
                    shared.file_sent(peer, program.file_name(), bytes.len() as u64);
                }
                whole("application/efi", bytes.clone())
            }
            None => refuse(&Refused::NotFound),
        },
        Reply::File { os, root, path } => file(shared, &os, root, &path, &head.headers).await,
        Reply::Refused(refused) => refuse(&refused),
    }
}

/// An answer made for one asker.
fn whole(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refuse(refused: &Refused) -> Response<Body> {
    let mut response = whole("text/plain; charset=utf-8", format!("{refused}\n").into());
    *response.status_mut() =
        StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Refused::Method { allow } = refused {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Refused::Unavailable(_) = refused {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

async fn file(
    shared: &Shared,
    os: &OsName,
    root: Root,
    path: &FilePath,
    asked: &hyper::HeaderMap,
) -> Response<Body> {
    let site = shared.site();
    let folder = match root {
        Root::Tree => site.cluster.folder(os),
        Root::Repo => site.cluster.systems().get(os).and_then(|os| os.repo.as_deref()),
        Root::Keys => None,
    };
    if let Some(opened) = folder.and_then(|folder| files::open_at_once(folder, path)) {
        return opened.map_or_else(|error| absent(&error, path), |opened| part_of(opened, asked));
    }
    let (folder, name) = (folder.map(Path::to_owned), os.clone());
    // Opening may wait for a disk.
    let asked_for = path.clone();
    let opened = tokio::task::spawn_blocking(move || {
        if let Some(folder) = folder {
            return files::open_below(&folder, &asked_for);
        }
        let missing = std::io::ErrorKind::NotFound;
        let os = site.cluster.systems().get(&name).filter(|_| root == Root::Keys).ok_or(missing)?;
        let keys = crate::media::key_files(&name, os).unwrap_or_default();
        let key = keys.into_iter().find(|(name, _)| name == asked_for.as_str());
        let (_, file) = key.ok_or(missing)?;
        files::open_named(&file)
    });
    match opened.await {
        Ok(Ok(opened)) => part_of(opened, asked),
        Ok(Err(error)) => absent(&error, path),
        Err(_) => refuse(&unreadable()),
    }
}

/// Anaconda retries everything but a real 404, so only what is not there gets one.
fn absent(error: &std::io::Error, path: &FilePath) -> Response<Body> {
    if files::is_absence(error) {
        return refuse(&Refused::NotFound);
    }
    let path = path.as_str();
    tracing::error!(%error, path, "a file that is there cannot be served");
    refuse(&unreadable())
}

fn unreadable() -> Refused {
    Refused::Unavailable("the file cannot be read now".to_owned())
}

fn part_of(opened: files::Opened, asked: &hyper::HeaderMap) -> Response<Body> {
    let files::Opened { file, len, etag, last_modified } = opened;
    let header = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut response = Response::new(Body::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let value = |text: &str| HeaderValue::from_str(text).ok();
    headers.extend(value(&etag).map(|tag| (ETAG, tag)));
    headers.extend(value(&last_modified).map(|date| (LAST_MODIFIED, date)));
    let known =
        |tags: &str| tags.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag);
    // RFC 9110 section 13.2.2: a date counts only without tags, and is the one that we told.
    let is_as_old = || header(IF_MODIFIED_SINCE).is_some_and(|date| date == last_modified);
    if header(IF_NONE_MATCH).map_or_else(is_as_old, known) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let range = header(RANGE).filter(|_| if_range_holds(header(IF_RANGE), &etag, &last_modified));
    let (status, first, size) = match part(range, len) {
        Part::Whole => (StatusCode::OK, 0, len),
        Part::Slice { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let content_range = match status {
        StatusCode::PARTIAL_CONTENT => value(&format!("bytes {first}-{}/{len}", first + size - 1)),
        StatusCode::RANGE_NOT_SATISFIABLE => value(&format!("bytes */{len}")),
        _ => None,
    };
    headers.extend(content_range.map(|range| (CONTENT_RANGE, range)));
    headers.insert(CONTENT_LENGTH, size.into());
    *response.status_mut() = status;
    let body = match size {
        ..=SMALL => read(&file, first, size),
        _ => sendfile::body(file, len, first, size),
    };
    match body {
        Ok(body) => *response.body_mut() = Full::new(body),
        Err(error) => {
            tracing::warn!(%error, "cannot read a file");
            return refuse(&unreadable());
        }
    }
    response
}

fn read(file: &File, first: u64, size: u64) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(size).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut bytes, first)?;
    Ok(bytes.into())
}
