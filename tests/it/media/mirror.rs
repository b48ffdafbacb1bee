//! A mirror that does wrong on demand: HTTP/1.1 with ranges, one file a connection or many.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use crate::lab::process::DEADLINE;

/// What it does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Hangs up in the middle.
    BreaksOff,
    /// Says no more in the middle, and keeps the line.
    Stalls,
    /// One byte is another.
    Corrupt,
    /// Promises more than it sends.
    TooLong,
    /// Promises less than there is.
    TooShort,
}

#[derive(Default)]
struct State {
    /// What happens to a file, and how often it will.
    faults: BTreeMap<String, (usize, Fault)>,
    asked: Vec<String>,
    /// Lines that are kept open.
    stalled: Vec<TcpStream>,
}

/// A mirror of a folder on loopback; its threads end with the test's process.
pub(crate) struct Mirror {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stalls: Condvar,
}

impl Mirror {
    pub(crate) fn start(dir: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let port = listener.local_addr().expect("address").port();
        let all = Arc::new(Shared::default());
        let shared = Arc::clone(&all);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (dir, shared) = (dir.clone(), Arc::clone(&shared));
                std::thread::spawn(move || serve(&dir, &shared, stream));
            }
        });
        Self { port, shared: all }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn fault(&self, path: &str, times: usize, fault: Fault) {
        self.shared.state.lock().expect("lock").faults.insert(path.to_owned(), (times, fault));
    }

    /// Waits until a file stalls; its line.
    pub(crate) fn stalled(&self) -> TcpStream {
        let state = self.shared.state.lock().expect("lock");
        let waited =
            self.shared.stalls.wait_timeout_while(state, DEADLINE, |it| it.stalled.is_empty());
        let (state, _) = waited.expect("lock");
        state.stalled.first().expect("nothing stalled").try_clone().expect("stream")
    }

    pub(crate) fn forget(&self) {
        self.shared.state.lock().expect("lock").asked.clear();
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.state.lock().expect("lock").asked.clone()
    }
}

fn serve(dir: &std::path::Path, shared: &Shared, mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("stream")).lines();
    loop {
        let mut head = vec![];
        for line in lines.by_ref() {
            let Ok(line) = line else { return };
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
        let path = path.trim_start_matches('/').to_owned();
        let start: usize = head
            .iter()
            .find_map(|line| line.strip_prefix("Range: bytes=")?.split('-').next()?.parse().ok())
            .unwrap_or(0);
        let fault = {
            let mut state = shared.state.lock().expect("lock");
            state.asked.push(path.clone());
            match state.faults.get_mut(&path) {
                Some((times, fault)) if *times > 0 => {
                    *times -= 1;
                    Some(*fault)
                }
                _ => None,
            }
        };
        let Ok(mut bytes) = std::fs::read(dir.join(&path)) else {
            if stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
            continue;
        };
        let whole = bytes.len();
        bytes.drain(..start.min(whole));
        let mut promised = bytes.len();
        let middle = bytes.len() / 2;
        match fault {
            Some(Fault::Corrupt) => bytes[middle] ^= 1,
            Some(Fault::TooLong) => promised += 1000,
            Some(Fault::TooShort) => promised = middle,
            Some(Fault::BreaksOff | Fault::Stalls) => bytes.truncate(middle),
            None => {}
        }
        let status = if start > 0 {
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{whole}", whole - 1)
        } else {
            "200 OK".to_owned()
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {promised}\r\n\r\n");
        bytes.truncate(promised);
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes)).is_err() {
            return;
        }
        match fault {
            Some(Fault::BreaksOff | Fault::TooLong) => return,
            Some(Fault::Stalls) => {
                shared.state.lock().expect("lock").stalled.push(stream);
                shared.stalls.notify_all();
                return;
            }
            Some(Fault::Corrupt | Fault::TooShort) | None => {}
        }
    }
}
