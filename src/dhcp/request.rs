//! DHCP requests: bytes from the wire -> [`Request`], or why they are none.

use std::net::Ipv4Addr;

use dhcproto::v4::{MessageType, OptionCode};

use super::options::{Options, trim_nuls, walk};
use crate::mac::Mac;
use crate::machine::{Arch, Asker};

/// Least UDP payload every client takes: a datagram of 576 bytes less its headers (RFC 2131
/// section 2).
pub const SIZE_MIN: usize = 548;
/// Most we ever send: what fits an Ethernet frame.
pub const SIZE_MAX: usize = 1472;

const HEADER: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const UDP_AND_IP: usize = 28;
const HOPS_MAX: u8 = 16;
const BROADCAST: u16 = 0x8000;
/// iPXE's encapsulated option that says it can fetch by HTTP (`features.h`).
const IPXE_HTTP: u8 = 19;
const IPXE_ENCAPSULATED: u8 = 175;
/// The user classes of iPXE builds: everybody's, and ours.
const IPXE_CLASSES: [&[u8]; 2] = [b"iPXE", b"rekindle"];

/// What a client asks, as far as an answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub message: Message,
    /// Transaction number.
    pub xid: u32,
    /// Flags, all of them: they are copied into the reply.
    pub flags: u16,
    /// The address the client has. Zero while it asks for one, whatever it wrote there.
    pub ciaddr: Ipv4Addr,
    /// The relay that passed it on, or zero.
    pub giaddr: Ipv4Addr,
    /// The card that asks (chaddr).
    pub mac: Mac,
    /// The program that asks.
    pub asker: Asker,
    /// What kind of client option 60 names. Only such a client gets option 60 back.
    pub class: Option<Class>,
    /// Option 55.
    pub asked: Vec<u8>,
    /// Option 61, to be echoed (RFC 6842 section 3).
    pub client_id: Option<Vec<u8>>,
    /// Option 97, to be echoed (RFC 4578 section 2.3).
    pub machine_id: Option<Vec<u8>>,
    /// Option 82, to be echoed last (RFC 3046 section 2.2).
    pub relay_info: Option<Vec<u8>>,
    /// The item of a boot menu (option 43, sub-option 71), to be echoed on port 4011.
    pub boot_item: Option<Vec<u8>>,
    /// Most bytes of UDP payload the client takes, from option 57.
    pub size_max: usize,
}

/// The kind of network-boot client that option 60 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `PXEClient`.
    Pxe,
    /// `HTTPClient`.
    Http,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// BOOTP: there is no option 53.
    Bootp,
    /// Who has an address for me?
    Discover {
        /// Preferably this one.
        wanted: Option<Ipv4Addr>,
    },
    /// I take this one.
    Request(Claim),
    /// This address is used by somebody else.
    Decline {
        /// Which.
        ip: Option<Ipv4Addr>,
        /// Whose offer it was.
        server: Option<Ipv4Addr>,
    },
    /// I need my address no more.
    Release,
    /// I have an address; tell me the rest.
    Inform,
}

/// A DHCPREQUEST by the state of its sender (RFC 2131 section 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It takes an offer.
    Selecting {
        /// Whose.
        server: Ipv4Addr,
        /// Which address. Some clients leave it out.
        ip: Option<Ipv4Addr>,
    },
    /// It rebooted and remembers its address.
    InitReboot {
        /// Which.
        ip: Ipv4Addr,
    },
    /// It prolongs the lease of `ciaddr`, asking us (renewing) or anyone (rebinding).
    Renewing,
}

/// Why bytes are no request that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than header and cookie.
    #[error("{len} bytes are too short for DHCP")]
    Short {
        /// How many bytes came.
        len: usize,
    },
    /// A reply, or neither.
    #[error("op {0} is no request")]
    NotARequest(u8),
    /// Not Ethernet.
    #[error("hardware type {htype} with addresses of {hlen} bytes is not Ethernet")]
    NotEthernet {
        /// Its type.
        htype: u8,
        /// Its address length.
        hlen: u8,
    },
    /// It ran in circles.
    #[error("it passed {0} relays")]
    Hops(u8),
    /// The options do not begin with the magic number.
    #[error("the DHCP cookie is missing")]
    Cookie,
    /// A group address or zeros.
    #[error("its hardware address is no card's")]
    NotACard,
    /// A message only servers send, or one nobody knows.
    #[error("message type {0} is not for servers")]
    MessageType(u8),
    /// A DHCPREQUEST that names no address at all.
    #[error("it requests no address")]
    NoAddress,
}

impl Request {
    /// Reads a datagram. Whatever is wrong with one option leaves the others as they are.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = Malformed::Short { len: bytes.len() };
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(short)?;
        let (cookie, vend) = rest.split_at_checked(COOKIE.len()).ok_or(short)?;
        let header = Header::parse(header).ok_or(short)??;
        if cookie != COOKIE {
            return Err(Malformed::Cookie);
        }
        let options = Options::parse(vend, header.file, header.sname);
        let asks = Asks { ciaddr: header.ciaddr, options: &options };
        let message = asks.message()?;
        Ok(Self {
            message,
            xid: header.xid,
            flags: header.flags,
            ciaddr: if asks.is_addressed(message) { header.ciaddr } else { Ipv4Addr::UNSPECIFIED },
            giaddr: header.giaddr,
            mac: header.mac,
            asker: asker(&options),
            class: class(&options),
            asked: options.get(OptionCode::ParameterRequestList).unwrap_or_default().to_vec(),
            client_id: owned(&options, OptionCode::ClientIdentifier),
            machine_id: owned(&options, OptionCode::ClientMachineIdentifier),
            relay_info: owned(&options, OptionCode::RelayAgentInformation),
            boot_item: boot_item(&options),
            size_max: size_max(&options),
        })
    }

    /// Whether option 55 lists `code`.
    pub fn asks_for(&self, code: OptionCode) -> bool {
        self.asked.contains(&u8::from(code))
    }

    /// Whether the client cannot take unicast before it has an address (RFC 2131 section 4.1).
    pub fn wants_broadcast(&self) -> bool {
        self.flags & BROADCAST != 0
    }

    /// Whether a BIOS boot program asks.
    pub fn is_bios(&self) -> bool {
        self.arch() == Some(Arch::Bios)
    }

    /// What it runs on, when it is a boot program.
    pub fn arch(&self) -> Option<Arch> {
        match self.asker {
            Asker::Rom(arch) | Asker::HttpBoot(arch) | Asker::Ipxe { arch, .. } => Some(arch),
            Asker::System => None,
        }
    }
}

/// The fixed part (RFC 2131 section 2), as far as it matters.
struct Header<'a> {
    xid: u32,
    flags: u16,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    mac: Mac,
    sname: &'a [u8],
    file: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None` when it is too short, which the caller has excluded.
    fn parse(bytes: &'a [u8]) -> Option<Result<Self, Malformed>> {
        let (&[op, htype, hlen, hops], rest) = bytes.split_first_chunk()?;
        let (&xid, rest) = rest.split_first_chunk()?;
        let (&[_, _, flags_high, flags_low], rest) = rest.split_first_chunk()?;
        let (&ciaddr, rest) = rest.split_first_chunk::<4>()?;
        let (_yiaddr_siaddr, rest) = rest.split_first_chunk::<8>()?;
        let (&giaddr, rest) = rest.split_first_chunk::<4>()?;
        let (&chaddr, rest) = rest.split_first_chunk::<6>()?;
        let (_padding, rest) = rest.split_first_chunk::<10>()?;
        let (sname, file) = rest.split_at_checked(64)?;
        if op != 1 {
            return Some(Err(Malformed::NotARequest(op)));
        }
        if (htype, hlen) != (1, 6) {
            return Some(Err(Malformed::NotEthernet { htype, hlen }));
        }
        if hops > HOPS_MAX {
            return Some(Err(Malformed::Hops(hops)));
        }
        let Some(mac) = Mac::from_wire(chaddr) else { return Some(Err(Malformed::NotACard)) };
        Some(Ok(Self {
            xid: u32::from_be_bytes(xid),
            flags: u16::from_be_bytes([flags_high, flags_low]),
            ciaddr: ciaddr.into(),
            giaddr: giaddr.into(),
            mac,
            sname,
            file,
        }))
    }
}

struct Asks<'a> {
    ciaddr: Ipv4Addr,
    options: &'a Options,
}

impl Asks<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is for clients")]
    fn message(&self) -> Result<Message, Malformed> {
        let Some(&code) = self.options.get(OptionCode::MessageType).and_then(<[u8]>::first) else {
            return Ok(Message::Bootp);
        };
        let server = self.ip(OptionCode::ServerIdentifier);
        match MessageType::from(code) {
            MessageType::Discover => Ok(Message::Discover { wanted: self.wanted() }),
            MessageType::Request => self.claim(server).map(Message::Request),
            MessageType::Decline => Ok(Message::Decline { ip: self.wanted(), server }),
            MessageType::Release => Ok(Message::Release),
            MessageType::Inform => Ok(Message::Inform),
            _ => Err(Malformed::MessageType(code)),
        }
    }

    fn claim(&self, server: Option<Ipv4Addr>) -> Result<Claim, Malformed> {
        let has_address = !self.ciaddr.is_unspecified();
        match (server, self.wanted()) {
            (Some(server), ip) => {
                Ok(Claim::Selecting { server, ip: ip.or(has_address.then_some(self.ciaddr)) })
            }
            (None, Some(ip)) => Ok(Claim::InitReboot { ip }),
            (None, None) if has_address => Ok(Claim::Renewing),
            (None, None) => Err(Malformed::NoAddress),
        }
    }

    /// Only these senders have an address; others that fill ciaddr are wrong about it (dnsmasq
    /// knows such clients).
    fn is_addressed(&self, message: Message) -> bool {
        match message {
            Message::Request(Claim::Renewing) | Message::Inform | Message::Release => true,
            Message::Bootp | Message::Discover { .. } | Message::Decline { .. } => false,
            Message::Request(Claim::Selecting { .. } | Claim::InitReboot { .. }) => false,
        }
    }

    fn wanted(&self) -> Option<Ipv4Addr> {
        self.ip(OptionCode::RequestedIpAddress)
    }

    fn ip(&self, code: OptionCode) -> Option<Ipv4Addr> {
        let ip = Ipv4Addr::from(self.options.fixed::<4>(code)?);
        (!ip.is_unspecified()).then_some(ip)
    }
}

fn owned(options: &Options, code: OptionCode) -> Option<Vec<u8>> {
    options.get(code).map(<[u8]>::to_vec)
}

/// Option 57 counts the IP and UDP headers in (RFC 2132 section 9.10). It is a hint at best: edk2's
/// PXE client says 1472 in its DISCOVER and 65280 in its REQUEST.
fn size_max(options: &Options) -> usize {
    let asked = options.fixed::<2>(OptionCode::MaxMessageSize).map_or(0, u16::from_be_bytes);
    usize::from(asked).saturating_sub(UDP_AND_IP).clamp(SIZE_MIN, SIZE_MAX)
}

fn class(options: &Options) -> Option<Class> {
    let text = options.get(OptionCode::ClassIdentifier)?;
    if text.starts_with(b"PXEClient") {
        return Some(Class::Pxe);
    }
    text.starts_with(b"HTTPClient").then_some(Class::Http)
}

fn asker(options: &Options) -> Asker {
    let codes = options.get(OptionCode::ClientSystemArchitecture);
    let class = class(options);
    if is_ipxe(options) {
        return Asker::Ipxe { arch: arch(options, 0), http: has_http(options) };
    }
    match (class, codes) {
        (Some(Class::Http), _) => Asker::HttpBoot(arch(options, 16)),
        (Some(Class::Pxe), _) | (None, Some(_)) => Asker::Rom(arch(options, 0)),
        (None, None) => Asker::System,
    }
}

/// Option 77 as a bare text, as iPXE sends it, or as RFC 3004 wants it: texts with lengths.
fn is_ipxe(options: &Options) -> bool {
    let Some(text) = options.text(OptionCode::UserClass) else { return false };
    let mut rest = text;
    let listed = std::iter::from_fn(move || {
        let (&len, behind) = rest.split_first()?;
        let (class, behind) = behind.split_at_checked(usize::from(len))?;
        rest = behind;
        Some(trim_nuls(class))
    });
    std::iter::once(text).chain(listed).any(|class| IPXE_CLASSES.contains(&class))
}

fn has_http(options: &Options) -> bool {
    let features = options.get(OptionCode::from(IPXE_ENCAPSULATED));
    // A build that does not tell is taken at its best: older ones all have HTTP.
    features.is_none_or(|features| walk(features).any(|(code, _)| code == IPXE_HTTP))
}

/// From option 93, which may list several; else from the text of option 60; else `default`.
fn arch(options: &Options, default: u16) -> Arch {
    let codes = options.get(OptionCode::ClientSystemArchitecture).unwrap_or_default();
    let (codes, _odd) = codes.as_chunks();
    let archs = || codes.iter().map(|code| Arch::from_code(u16::from_be_bytes(*code)));
    let known = archs().find(|arch| !matches!(arch, Arch::Other(_)));
    known
        .or_else(|| archs().next())
        .or_else(|| arch_in_class(options))
        .unwrap_or_else(|| Arch::from_code(default))
}

/// `PXEClient:Arch:00007:UNDI:003000`.
fn arch_in_class(options: &Options) -> Option<Arch> {
    let text = std::str::from_utf8(options.text(OptionCode::ClassIdentifier)?).ok()?;
    let (_, digits) = text.split_once(":Arch:")?;
    let code = digits.split(':').next()?.parse().ok()?;
    Some(Arch::from_code(code))
}

fn boot_item(options: &Options) -> Option<Vec<u8>> {
    const BOOT_ITEM: u8 = 71;
    let vendor = options.get(OptionCode::VendorExtensions)?;
    walk(vendor).find(|(code, _)| *code == BOOT_ITEM).map(|(_, item)| item.to_vec())
}

#[cfg(test)]
mod tests;
