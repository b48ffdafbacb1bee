//! Programs that a test starts: what they say, how they end, and that none of them stays behind.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How long anything may take. Generous: only a failure waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A program under way. Dropping it kills it and waits for its end.
pub(crate) struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
}

/// How a program ended.
pub(crate) struct Done {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Everything it wrote to stdout.
    pub(crate) out: Vec<u8>,
    /// Everything it wrote to stderr.
    pub(crate) err: String,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Default)]
struct Seen {
    out: Vec<u8>,
    err: Vec<u8>,
    closed: usize,
    status: Option<ExitStatus>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.news.notify_all();
    }

    /// Waits until `is_so`; false when it did not come about.
    fn wait(&self, is_so: impl Fn(&Seen) -> bool) -> bool {
        let waited = self.news.wait_timeout_while(self.lock(), DEADLINE, |seen| !is_so(seen));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Seen {
    fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.out), String::from_utf8_lossy(&self.err))
    }

    fn is_over(&self) -> bool {
        self.status.is_some() && self.closed == 2
    }
}

impl Process {
    /// Starts a program that hears nothing on stdin.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let shared = Arc::new(Shared::default());
        let (out, err) = (child.stdout.take().expect("pipe"), child.stderr.take().expect("pipe"));
        follow(out, Arc::clone(&shared), |seen| &mut seen.out);
        follow(err, Arc::clone(&shared), |seen| &mut seen.err);
        reap(child, pid, Arc::clone(&shared));
        Self { name, pid, shared }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).expect("positive")
    }

    /// Everything it said so far.
    pub(crate) fn text(&self) -> String {
        self.shared.lock().text()
    }

    /// Waits until what it said satisfies `is_so`.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let came = self.shared.wait(|seen| is_so(&seen.text()) || seen.is_over());
        let text = self.text();
        assert!(came && is_so(&text), "{}: no {what} in:\n{text}", self.name);
        text
    }

    /// Waits until it said `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |said| said.contains(text))
    }

    /// Waits until it said `text` so many times.
    pub(crate) fn wait_for_times(&self, text: &str, times: usize) -> String {
        self.wait_until(text, |said| said.matches(text).count() >= times)
    }

    /// Sends a signal (`TERM`, `USR1`, ...), unless it has ended.
    pub(crate) fn signal(&self, signal: &str) {
        // Under the lock: it is reaped under it too, so the pid is still its own.
        let seen = self.shared.lock();
        if seen.status.is_none() {
            let kill = format!("kill -s {signal} {}", self.pid);
            let sent = Command::new("sh").args(["-c", &kill]).status().expect("sh");
            assert!(sent.success(), "{kill}");
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.lock().status.is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) -> Done {
        assert!(self.shared.wait(Seen::is_over), "{} does not end:\n{}", self.name, self.text());
        let seen = self.shared.lock();
        let status = seen.status.expect("it ended");
        if let Some(signal) = status.signal() {
            eprintln!("{} was ended by signal {signal}", self.name);
        }
        let err = String::from_utf8_lossy(&seen.err).into_owned();
        Done { code: status.code(), out: seen.out.clone(), err }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
        let ended = self.shared.wait(|seen| seen.status.is_some());
        let said = self.text();
        if std::thread::panicking() && !said.is_empty() {
            eprintln!("-- {} (ended: {ended}) said:\n{}", self.name, tail(&said));
        }
    }
}

impl Done {
    /// Stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The lines of stderr but those that say how far it is: how many they are depends on the machine.
    /// An error, whatever it ends with, begins with the program's name and is kept.
    pub(crate) fn said(&self) -> Vec<&str> {
        let is_progress = |line: &str| {
            !line.starts_with("rekindle: ") && (line.ends_with(" s") || line.contains("iB/s"))
        };
        self.err.lines().filter(|line| !is_progress(line)).collect()
    }

    /// Asserts success; returns stdout.
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.text(), self.err);
        self.out
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Done {
    Process::start(command).wait()
}

fn follow(
    mut pipe: impl Read + Send + 'static,
    shared: Arc<Shared>,
    place: fn(&mut Seen) -> &mut Vec<u8>,
) {
    std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(len @ 1..) = pipe.read(&mut buffer) {
            shared.change(|seen| place(seen).extend_from_slice(&buffer[..len]));
        }
        shared.change(|seen| seen.closed += 1);
    });
}

fn reap(mut child: Child, pid: Pid, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        let over = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), over) == Err(nix::errno::Errno::EINTR) {}
        shared.change(|seen| seen.status = Some(child.wait().expect("it ended")));
    });
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}
