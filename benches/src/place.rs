//! Where it happens: two namespaces and a wire between them, made for the run and gone after it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The server's side.
pub const SERVER: &str = "rkb-server";
const CLIENT: &str = "rkb-client";
pub const ADDRESS: &str = "10.77.0.1";
pub const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const PREFIX: u8 = 16;
/// Addresses of the client's side: one machine is not given all that a room is given.
pub const CLIENTS_MAX: u8 = 200;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: usize = 1;

/// The address of a client.
pub fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 254, number)
}

/// The two namespaces.
pub struct Place {
    pub dir: PathBuf,
    cgroups: PathBuf,
}

fn ip(words: &str) -> Result<()> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<()> {
    let done = Command::new(program).args(words.split(' ')).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {words}: {}", said.trim());
    Ok(())
}

impl Place {
    /// Leases and files are on a disk. `has_address`: whether the client's side has one. DHCP's clients have none.
    pub fn new(has_address: bool) -> Result<Self> {
        Self::at(&std::env::temp_dir(), has_address)
    }

    /// Leases are in memory: what a disk costs is left out.
    pub fn in_memory(has_address: bool) -> Result<Self> {
        Self::at(Path::new("/dev/shm"), has_address)
    }

    fn at(parent: &Path, has_address: bool) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "namespaces need root");
        let dir = parent.join(format!("rkb-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let unified = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified =
            unified.filter(|it| it.get(2) == Some(&"cgroup2")).find_map(|it| it.get(1).copied());
        let cgroups = Path::new(unified.context("no cgroup2 is mounted")?).join("rekindle-bench");
        fs::create_dir_all(&cgroups)?;
        // What an earlier run left, when it was stopped.
        end(&cgroups.join("server"));
        let place = Self { dir, cgroups };
        remove();
        for name in [SERVER, CLIENT] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!("link add eth1 netns {SERVER} type veth peer name eth0 netns {CLIENT}"))?;
        // An uplink that leads nowhere.
        ip(&format!("link add eth0 netns {SERVER} type veth peer name eth9 netns {CLIENT}"))?;
        ip(&format!("-n {SERVER} addr add {ADDRESS}/{PREFIX} dev eth1"))?;
        ip(&format!("-n {SERVER} link set eth1 up"))?;
        if has_address {
            for number in 0..CLIENTS_MAX {
                let address = client(number);
                ip(&format!("-n {CLIENT} addr add {address}/{PREFIX} dev eth0"))?;
            }
        }
        ip(&format!("-n {CLIENT} link set eth0 up"))?;
        Ok(place)
    }

    /// Makes the wire towards the clients as slow as that.
    pub fn slow_down(&self, rate: &str) -> Result<()> {
        run(
            "tc",
            &format!(
                "-n {SERVER} qdisc add dev eth1 root tbf rate {rate} burst 128kb latency 20ms"
            ),
        )
    }

    /// Starts a server on its core; `is_ready` is asked until it says yes.
    pub fn start(&self, words: &[String], is_ready: impl Fn(&str) -> bool) -> Result<Server> {
        let cgroup = self.cgroups.join("server");
        fs::create_dir_all(&cgroup)?;
        let log = self.dir.join("server.log");
        let out = fs::File::create(&log)?;
        let mut command = Command::new("bash");
        command.arg("-c").arg(r#"echo $$ >"$0"; exec taskset -c "$1" ip netns exec "$2" "${@:3}""#);
        command.arg(cgroup.join("cgroup.procs")).arg(SERVER_CORE).arg(SERVER).args(words);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut server = Server { child: command.spawn()?, cgroup };
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if is_ready(&said) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended ({status}): {said}", words.join(" "));
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "{} is not ready: {said}", words[0]);
            sleep(Duration::from_millis(20));
        }
    }

    /// Runs something on the client's side and core.
    pub fn as_client<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let space = fs::File::open(format!("/run/netns/{CLIENT}"))?;
                setns(space.as_fd(), CloneFlags::CLONE_NEWNET)?;
                let mut cores = CpuSet::new();
                cores.set(CLIENT_CORE)?;
                sched_setaffinity(Pid::from_raw(0), &cores)?;
                run()
            });
            let ran = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ran.with_context(|| {
                let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                let last = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
                format!("the server's last words, backwards:\n{last}\nthe client")
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_dir(self.cgroups.join("server"));
        let _ = fs::remove_dir(&self.cgroups);
    }
}

fn remove() {
    for name in [SERVER, CLIENT] {
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    }
}

/// A running server, with all that it forks.
pub struct Server {
    child: Child,
    cgroup: PathBuf,
}

impl Server {
    /// Seconds of CPU so far, of all its processes and threads, also of those that have ended.
    pub fn cpu_s(&self) -> Result<f64> {
        let text = fs::read_to_string(self.cgroup.join("cpu.stat"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.context("no usage_usec")?.trim().parse::<f64>()? / 1e6)
    }

    /// Its memory in MiB: with shared pages by share, and with all that is in memory of what it has mapped.
    pub fn memory(&self) -> Result<[(&'static str, f64); 2]> {
        let (mut pss, mut rss) = (0.0, 0.0);
        for pid in fs::read_to_string(self.cgroup.join("cgroup.procs"))?.lines() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let mib = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok());
                kib.unwrap_or(0.0) / 1024.0
            };
            pss += mib("Pss:");
            rss += mib("Rss:");
        }
        Ok([("PSS MiB", pss), ("RSS MiB", rss)])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&self.cgroup);
        let _ = self.child.wait();
    }
}

/// Ends what runs in a group. All of it is ours: it was started there.
fn end(cgroup: &Path) {
    for _ in 0..100 {
        let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        if pids.trim().is_empty() {
            return;
        }
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(20));
    }
}
