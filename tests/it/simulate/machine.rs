//! One machine between its power button and its installed system: a BIOS with a PXE ROM, or UEFI, iPXE, an installer. It knows
//! nothing of how the master works: it asks, waits, asks again, and gives up as old firmware does.

use std::net::Ipv4Addr;

use rekindle::http::Method;
use rekindle::mac::Mac;
use rekindle::machine::Loader;

use super::{MASTER, SECOND, Tid, content};
use crate::wire::{Message, Random};

pub(super) const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const BLOCK: usize = 1456;
/// How often something is asked before the machine starts over.
const TRIES: u32 = 6;

/// What reaches it.
#[derive(Debug, Clone)]
pub(super) enum Arrival {
    Dhcp(Vec<u8>),
    Tftp {
        from: Tid,
        port: u16,
        bytes: Vec<u8>,
    },
    /// Status 0: nobody is there.
    Http {
        epoch: u64,
        status: u16,
        text: String,
    },
}

/// What it does.
#[derive(Debug)]
pub(super) enum Act {
    Dhcp(Vec<u8>),
    Tftp {
        port: u16,
        bytes: Vec<u8>,
    },
    Transfer {
        to: Tid,
        bytes: Vec<u8>,
    },
    Http {
        method: Method,
        path: String,
        body: Vec<u8>,
    },
    /// It does nothing for so many milliseconds, unless something arrives.
    Wait(u64),
}

/// What it has in place of an operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Firmware {
    /// Reads block by block.
    Bios,
    /// Asks for the size, aborts, and reads in windows, as edk2 does.
    Uefi,
}

impl Firmware {
    /// What it is sent first.
    pub(super) fn first_loader(self) -> Loader {
        match self {
            Self::Bios => Loader::Undionly,
            Self::Uefi => Loader::SnponlyX64,
        }
    }

    /// Blocks that it acknowledges together.
    fn window(self) -> usize {
        match self {
            Self::Bios => 1,
            Self::Uefi => 4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Rom,
    Ipxe,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Off,
    /// Switched on, or about to start over.
    Pause,
    Discover(Program),
    Request {
        program: Program,
        ip: Ipv4Addr,
        server: Ipv4Addr,
    },
    Load {
        file: String,
        port: u16,
        from: Option<Tid>,
        got: Vec<u8>,
    },
    Script {
        path: String,
    },
    /// The screen that waits.
    Held,
    /// A step of the installer: what it says, and to whom.
    Install {
        url: String,
        step: usize,
    },
    Running {
        url: String,
    },
    Up,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Disk {
    Blank,
    Half,
    /// With the system that will report there.
    Whole(String),
}

/// What the installer does, one after the other.
const STEPS: [(&str, &str); 6] = [
    ("ks", ""),
    ("event/pre", "Linux 5.14, 2048 MiB"),
    ("event/disk", "sda 40 GiB serial S1"),
    ("event/packages", "100/200"),
    ("event/post", ""),
    ("event/installed", ""),
];

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) mac: Mac,
    /// Counts what makes earlier timers and answers meaningless.
    pub(super) epoch: u64,
    random: Random,
    phase: Phase,
    disk: Disk,
    ip: Option<Ipv4Addr>,
    xid: [u8; 4],
    tries: u32,
    next_port: u16,
    firmware: Firmware,
    /// It asks for the size first.
    probes: bool,
    /// Nothing is heard from it in its first loader.
    hangs: bool,
}

impl Machine {
    pub(super) fn new(mac: Mac, seed: u64, firmware: Firmware, hangs: bool) -> Self {
        Self {
            mac,
            epoch: 0,
            random: Random(seed),
            phase: Phase::Off,
            disk: Disk::Blank,
            ip: None,
            xid: [0; 4],
            tries: 0,
            next_port: 2000,
            firmware,
            probes: false,
            hangs,
        }
    }

    pub(super) fn ip(&self) -> Option<Ipv4Addr> {
        self.ip
    }

    pub(super) fn is_installed(&self) -> bool {
        matches!(self.disk, Disk::Whole(_))
    }

    pub(super) fn power(&mut self, on: bool) -> Vec<Act> {
        self.epoch += 1;
        self.ip = None;
        if !on {
            self.phase = Phase::Off;
            return vec![];
        }
        self.start_over()
    }

    fn start_over(&mut self) -> Vec<Act> {
        self.ip = None;
        let post = 2 * SECOND + self.random.next() % (10 * SECOND);
        self.enter(Phase::Pause, post)
    }

    fn enter(&mut self, phase: Phase, wait: u64) -> Vec<Act> {
        self.epoch += 1;
        (self.phase, self.tries) = (phase, 0);
        vec![Act::Wait(wait)]
    }

    /// Time has passed and nothing came.
    pub(super) fn wake(&mut self, epoch: u64) -> Vec<Act> {
        if epoch != self.epoch {
            return vec![];
        }
        self.tries += 1;
        if self.tries > TRIES && !matches!(self.phase, Phase::Held | Phase::Running { .. }) {
            return self.start_over();
        }
        match self.phase.clone() {
            Phase::Off | Phase::Up => vec![],
            Phase::Pause => self.discover(Program::Rom),
            Phase::Discover(program) => self.discover(program),
            // An offer that nobody confirms is no offer.
            Phase::Request { program, .. } if self.tries > 2 => self.discover(program),
            Phase::Request { program, ip, server } => self.request(program, ip, server),
            Phase::Load { file, port, from, got } => self.load(file, port, from, got),
            Phase::Script { path } => self.get(path),
            Phase::Held => self.discover(Program::Ipxe),
            Phase::Install { url, step } => self.install(url, step),
            Phase::Running { url } => self.report(url),
        }
    }

    fn discover(&mut self, program: Program) -> Vec<Act> {
        if self.phase != Phase::Discover(program) {
            self.tries = 0;
        }
        self.xid = self.random.next().to_be_bytes()[..4].try_into().expect("four bytes");
        self.epoch += 1;
        self.phase = Phase::Discover(program);
        let bytes = self.dhcp(program, &[(53, vec![DISCOVER])]);
        vec![Act::Dhcp(bytes), Act::Wait((2 * SECOND) << self.tries.min(4))]
    }

    fn request(&mut self, program: Program, ip: Ipv4Addr, server: Ipv4Addr) -> Vec<Act> {
        self.epoch += 1;
        self.phase = Phase::Request { program, ip, server };
        let options =
            [(53, vec![REQUEST]), (50, ip.octets().to_vec()), (54, server.octets().to_vec())];
        vec![Act::Dhcp(self.dhcp(program, &options)), Act::Wait(4 * SECOND)]
    }

    /// BOOTP's header and the options that go with each program, for firmware as of 2008.
    fn dhcp(&self, program: Program, options: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = header(1, self.mac, self.xid, Ipv4Addr::UNSPECIFIED);
        let mut all = options.to_vec();
        let arch: u8 = match self.firmware {
            Firmware::Bios => 0,
            Firmware::Uefi => 7,
        };
        all.push((60, format!("PXEClient:Arch:{arch:05}:UNDI:002001").into_bytes()));
        all.push((93, vec![0, arch]));
        all.push((94, vec![1, 2, 1]));
        all.push((55, vec![1, 3, 6, 12, 15, 43, 60, 66, 67]));
        if program == Program::Ipxe {
            all.push((77, b"iPXE".to_vec()));
            all.push((175, vec![19, 1, 1, 33, 1, 1]));
        }
        for (code, value) in all {
            bytes.extend([code, u8::try_from(value.len()).expect("short")]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }

    /// Asks for the file, or says again what it has of it.
    fn load(&mut self, file: String, port: u16, from: Option<Tid>, got: Vec<u8>) -> Vec<Act> {
        self.epoch += 1;
        let say = match from {
            None => {
                let options = match self.firmware {
                    Firmware::Bios => "tsize\x000\0",
                    Firmware::Uefi if self.probes => "tsize\x000\0windowsize\x004\0",
                    Firmware::Uefi => "windowsize\x004\0",
                };
                let request = format!("\0\x01{file}\0octet\0{options}blksize\0{BLOCK}\0");
                Act::Tftp { port, bytes: request.into_bytes() }
            }
            Some(to) => Act::Transfer { to, bytes: ack(got.len() / BLOCK) },
        };
        self.phase = Phase::Load { file, port, from, got };
        vec![say, Act::Wait(4 * SECOND)]
    }

    /// Asks for the file from a port of its own.
    fn load_anew(&mut self, file: String) -> Vec<Act> {
        self.next_port = self.next_port.wrapping_add(1).max(2000);
        self.load(file, self.next_port, None, vec![])
    }

    fn get(&mut self, path: String) -> Vec<Act> {
        self.epoch += 1;
        self.phase = Phase::Script { path: path.clone() };
        vec![Act::Http { method: Method::Get, path, body: vec![] }, Act::Wait(20 * SECOND)]
    }

    fn install(&mut self, url: String, step: usize) -> Vec<Act> {
        self.epoch += 1;
        let (what, body) = STEPS[step];
        let method = if what == "ks" { Method::Get } else { Method::Post };
        let path = format!("{url}/{what}");
        match what {
            "event/disk" => self.disk = Disk::Half,
            "event/installed" => self.disk = Disk::Whole(url.clone()),
            _ => {}
        }
        self.phase = Phase::Install { url, step };
        vec![Act::Http { method, path, body: body.as_bytes().to_vec() }, Act::Wait(20 * SECOND)]
    }

    fn report(&mut self, url: String) -> Vec<Act> {
        self.epoch += 1;
        let path = format!("{url}/event/first-boot");
        self.phase = Phase::Running { url };
        let body = b"kernel 5.14, 2 cores".to_vec();
        vec![Act::Http { method: Method::Post, path, body }, Act::Wait(10 * SECOND)]
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) -> Vec<Act> {
        match (arrival, self.phase.clone()) {
            (Arrival::Dhcp(bytes), Phase::Discover(program)) => self.offered(&bytes, program),
            (Arrival::Dhcp(bytes), Phase::Request { program, ip, server }) => {
                self.confirmed(&bytes, program, ip, server)
            }
            (
                Arrival::Tftp { from, port, bytes },
                Phase::Load { file, port: own, from: known, got },
            ) => {
                // A datagram of an earlier transfer, or of the second one of a request that came twice.
                if port != own || known.is_some_and(|known| known != from) {
                    return vec![];
                }
                self.block(&bytes, file, own, from, got)
            }
            (Arrival::Http { epoch, status, text }, phase) if epoch == self.epoch => {
                self.answered(status, &text, phase)
            }
            _ => vec![],
        }
    }

    fn offered(&mut self, bytes: &[u8], program: Program) -> Vec<Act> {
        let message = Message::read(bytes);
        if message.xid != self.xid || message.option(53) != Some(&[OFFER]) {
            return vec![];
        }
        let server = message.ip(54).expect("a server");
        self.tries = 0;
        self.request(program, message.yiaddr, server)
    }

    fn confirmed(
        &mut self,
        bytes: &[u8],
        program: Program,
        ip: Ipv4Addr,
        server: Ipv4Addr,
    ) -> Vec<Act> {
        let message = Message::read(bytes);
        if message.xid != self.xid || message.ip(54) != Some(server) {
            return vec![];
        }
        match message.option(53) {
            Some(&[NAK]) => self.discover(program),
            Some(&[ACK]) => {
                assert_eq!(message.yiaddr, ip);
                self.ip = Some(ip);
                self.tries = 0;
                match program {
                    Program::Rom => {
                        self.probes = self.firmware == Firmware::Uefi;
                        self.load_anew(message.file)
                    }
                    Program::Ipxe => {
                        let path = message.file.strip_prefix(&format!("http://{MASTER}"));
                        self.get(path.expect("a script").to_owned())
                    }
                }
            }
            _ => vec![],
        }
    }

    fn block(
        &mut self,
        bytes: &[u8],
        file: String,
        port: u16,
        from: Tid,
        mut got: Vec<u8>,
    ) -> Vec<Act> {
        let number = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        match bytes[1] {
            6 if self.probes => {
                self.probes = false;
                let abort = b"\0\x05\0\x08User aborted the transfer\0".to_vec();
                let mut acts = self.load_anew(file);
                acts.insert(0, Act::Transfer { to: from, bytes: abort });
                acts
            }
            3 if number == got.len() / BLOCK + 1 => {
                let data = &bytes[4..];
                got.extend(data);
                self.tries = 0;
                if data.len() < BLOCK {
                    assert!(got == content(), "{file} is not what it should be");
                    let last = Act::Transfer { to: from, bytes: ack(number) };
                    let is_first = self.firmware.first_loader().file_name() == file;
                    let mut acts = if self.hangs && is_first {
                        // Until somebody sees it, and switches it off and on.
                        let unseen = 150 * SECOND + self.random.next() % (300 * SECOND);
                        self.enter(Phase::Pause, unseen)
                    } else {
                        self.discover(Program::Ipxe)
                    };
                    acts.insert(0, last);
                    return acts;
                }
                if number.is_multiple_of(self.firmware.window()) {
                    return self.load(file, port, Some(from), got);
                }
                self.phase = Phase::Load { file, port, from: Some(from), got };
                vec![]
            }
            // An old one, or the answer to its options: what it has is said again.
            3 | 6 => self.load(file, port, Some(from), got),
            // The server knows of no transfer any more.
            5 => self.start_over(),
            other => panic!("operation {other}"),
        }
    }

    fn answered(&mut self, status: u16, text: &str, phase: Phase) -> Vec<Act> {
        match phase {
            Phase::Script { path } if status == 200 => self.obey(&path, text),
            // As the script before it says: start over.
            Phase::Script { .. } if status != 0 => panic!("{status}: {text}"),
            Phase::Install { url, step } => self.installed(status, url, step),
            Phase::Running { .. } if matches!(status, 200 | 410) => self.enter(Phase::Up, 0),
            Phase::Off
            | Phase::Pause
            | Phase::Discover(_)
            | Phase::Request { .. }
            | Phase::Load { .. }
            | Phase::Script { .. }
            | Phase::Held
            | Phase::Running { .. }
            | Phase::Up => vec![],
        }
    }

    fn obey(&mut self, path: &str, script: &str) -> Vec<Act> {
        if script.contains("cpuid") {
            self.tries = 0;
            return self.get(format!("{path}/v2/018086100e"));
        }
        if let Some((_, rest)) = script.split_once("inst.ks=") {
            let (url, _) = rest.split_once("/ks ").expect("a kickstart");
            let url = url.strip_prefix(&format!("http://{MASTER}")).expect("our URL").to_owned();
            let load = 5 * SECOND + self.random.next() % (60 * SECOND);
            return self.enter(Phase::Install { url, step: 0 }, load);
        }
        if script.contains("sanboot") {
            let Disk::Whole(url) = self.disk.clone() else {
                panic!("{} is to boot a disk with nothing on it: {:?}", self.mac, self.disk)
            };
            return self.enter(Phase::Running { url }, 20 * SECOND);
        }
        assert!(script.contains("this machine waits"), "{script}");
        self.enter(Phase::Held, 10 * SECOND)
    }

    fn installed(&mut self, status: u16, url: String, step: usize) -> Vec<Act> {
        match (STEPS[step].0, status) {
            // The master is down, or has no answer now: asked again, see `wake`.
            (_, 0 | 503) => vec![],
            // No kickstart: the installer gives up and reboots.
            ("ks", other) if other != 200 => self.start_over(),
            ("event/installed", _) => self.start_over(),
            // The installer takes its time over each step.
            _ => {
                let work = SECOND + self.random.next() % (90 * SECOND);
                self.enter(Phase::Install { url, step: step + 1 }, work)
            }
        }
    }
}

fn ack(block: usize) -> Vec<u8> {
    let [.., high, low] = block.to_be_bytes();
    vec![0, 4, high, low]
}

/// What a server reads of a message.
pub(super) struct Asked {
    pub(super) mac: Mac,
    pub(super) kind: u8,
    pub(super) server: Option<Ipv4Addr>,
    xid: [u8; 4],
}

pub(super) fn read(bytes: &[u8]) -> Asked {
    let message = Message::read(bytes);
    let kind = message.option(53).expect("a kind")[0];
    Asked { mac: message.mac(), kind, server: message.ip(54), xid: message.xid }
}

fn header(op: u8, mac: Mac, xid: [u8; 4], yiaddr: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![op, 1, 6, 0];
    bytes.extend(xid);
    bytes.extend([0; 8]);
    bytes.extend(yiaddr.octets());
    bytes.resize(28, 0);
    bytes.extend(mac.octets());
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63]);
    bytes
}

/// What another server on the wire offers: an address, and nothing to boot.
pub(super) fn rogue_offer(asked: &Asked, server: Ipv4Addr) -> Vec<u8> {
    let mut bytes = header(2, asked.mac, asked.xid, Ipv4Addr::new(192, 168, 10, 77));
    bytes.extend([53, 1, OFFER, 54, 4]);
    bytes.extend(server.octets());
    bytes.push(255);
    bytes
}
