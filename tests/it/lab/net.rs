//! Network namespaces and the wires between them. Names carry our pid, so that runs at the same
//! time do not meet.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use super::process::run;

/// A namespace; dropping it removes it with all its interfaces.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with its loopback up.
    pub(crate) fn new(name: String) -> Self {
        run(Command::new("ip").args(["netns", "add", &name])).ok();
        let made = Self { name };
        made.ip("link set lo up");
        made
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A program in it. `ip netns exec` becomes the program, so the pid is the program's.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// `ip WORDS`, in it.
    pub(crate) fn ip(&self, words: &str) {
        let words = words.split_whitespace();
        run(Command::new("ip").args(["-n", &self.name]).args(words)).ok();
    }

    /// Runs `task` with this namespace as its network; sockets that it opens stay here.
    pub(crate) fn enter<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("our namespace");
        let entered = move || {
            enter(&file);
            task()
        };
        std::thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Moves the calling thread.
#[expect(unsafe_code, reason = "one call that no safe crate among our dependencies has")]
fn enter(namespace: &File) {
    // SAFETY: takes two numbers and touches no memory.
    let done = unsafe { nix::libc::setns(namespace.as_raw_fd(), nix::libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "setns: {}", std::io::Error::last_os_error());
}

/// A wire between two namespaces: interface name and hardware address on each end.
pub(crate) fn wire(a: (&Namespace, &str, &str), b: (&Namespace, &str, &str)) {
    let words = format!(
        "link add {} address {} netns {} type veth peer name {} address {} netns {}",
        a.1, a.2, a.0.name, b.1, b.2, b.0.name
    );
    run(Command::new("ip").args(words.split_whitespace())).ok();
    for (namespace, interface, _) in [a, b] {
        namespace.ip(&format!("link set dev {interface} up"));
        // Packet sockets see whole checksums then. Without ethtool the clients here do too.
        run(namespace.command("ethtool").args(["-K", interface, "tx", "off"]));
    }
}
