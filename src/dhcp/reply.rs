//! DHCP replies: a request, an address and what to boot -> bytes, and where to send them.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{DhcpOption, MessageType, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};

use super::request::{Class, Request};
use crate::boot::Decision;
use crate::cluster::{DhcpMode, Network};
use crate::mac::Mac;
use crate::machine::{Asker, Loader};
use crate::name::NodeName;

/// The port clients listen on.
pub const CLIENT_PORT: u16 = 68;

/// Relays and strict stacks drop what is shorter (BOOTP's minimum, RFC 1542 section 2.1).
const LEN_MIN: usize = 300;
/// What most replies fit in.
const LEN_USUAL: usize = 576;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const BROADCAST: u16 = 0x8000;
/// Discovery control, bit 3: download the given file, ask nobody else, show no menu (PXE 2.1
/// table 2-1). Without it, or with it but without option 60, edk2 looks for a boot server
/// instead and ends with PXE-E16.
const USE_THE_FILE: [u8; 3] = [6, 1, 8];
const BOOT_ITEM: u8 = 71;
const END: u8 = 255;
/// `no-pxedhcp`: iPXE need not wait 3 s for a proxy (iPXE `dhcp.c`).
const IPXE_OPTIONS: [u8; 3] = [176, 1, 1];
const IPXE_ENCAPSULATED: u8 = 175;

/// What kind of message answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
    /// A BOOTP reply: no DHCP options, no lease.
    Bootp,
}

/// What the client is told to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// Nothing: an address only.
    Nothing,
    /// A first program.
    Loader(Loader),
    /// The script of its MAC, by HTTP.
    Script,
}

/// Where a reply goes (RFC 2131 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To everybody, port 68.
    Broadcast,
    /// To a client that has no address yet. The kernel cannot ask for its hardware address, so
    /// it must be told, or the datagram is lost.
    Unicast {
        /// The address it will have.
        ip: Ipv4Addr,
        /// Its card.
        mac: Mac,
    },
    /// To a relay, port 67.
    Relay(Ipv4Addr),
    /// To a client at the address it has.
    Client(SocketAddrV4),
}

/// A reply before it is bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// What it answers.
    pub request: &'a Request,
    /// Us.
    pub network: &'a Network,
    /// The kind of message.
    pub kind: Kind,
    /// The client's address; zero when none is given.
    pub yiaddr: Ipv4Addr,
    /// For how long; `None` when none is given.
    pub lease_s: Option<u32>,
    /// The node's name, when it is one.
    pub name: Option<&'a NodeName>,
    /// What to boot.
    pub boot: Boot,
}

impl From<&Decision<'_>> for Boot {
    fn from(decision: &Decision<'_>) -> Self {
        match decision {
            Decision::Chainload(loader) => Self::Loader(*loader),
            Decision::Hold(_)
            | Decision::Probe(_)
            | Decision::Install { .. }
            | Decision::LocalBoot { .. } => Self::Script,
            Decision::Ignore(_) | Decision::Address | Decision::NoLoader(_) => Self::Nothing,
        }
    }
}

impl Reply<'_> {
    /// The datagram. At least 300 bytes, and no more than the client takes: options that do not
    /// fit are left out, the last ones first, but never the relay's own.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header();
        let relay_info = self.relay_info();
        let len_max = if self.kind == Kind::Bootp { LEN_MIN } else { self.request.size_max };
        let len_max = len_max.saturating_sub(relay_info.len() + 1);
        let mut encoded = Vec::with_capacity(LEN_MIN);
        for option in self.options() {
            encoded.clear();
            // Encoding fails only for names longer than DNS allows, and we send none.
            if option.encode(&mut Encoder::new(&mut encoded)).is_ok()
                && bytes.len() + encoded.len() <= len_max
            {
                bytes.extend_from_slice(&encoded);
            }
        }
        bytes.extend(relay_info);
        bytes.push(END);
        bytes.resize(bytes.len().max(LEN_MIN), 0);
        bytes
    }

    /// Where to send it. `from` is where the request came from.
    pub fn destination(&self, from: SocketAddrV4) -> Destination {
        let (request, ciaddr) = (self.request, self.request.ciaddr);
        if !request.giaddr.is_unspecified() {
            return Destination::Relay(request.giaddr);
        }
        if self.kind == Kind::Nak {
            return Destination::Broadcast;
        }
        if !ciaddr.is_unspecified() {
            let port = if *from.ip() == ciaddr { from.port() } else { CLIENT_PORT };
            return Destination::Client(SocketAddrV4::new(ciaddr, port));
        }
        // Old ROMs ask for unicast and then do not listen for it; all of them take broadcast. A proxy's offer has no
        // address to be sent to.
        if request.wants_broadcast() || request.is_bios() || self.yiaddr.is_unspecified() {
            return Destination::Broadcast;
        }
        Destination::Unicast { ip: self.yiaddr, mac: request.mac }
    }

    /// The text of the `file` field and of option 67.
    fn file(&self) -> String {
        let (master, request) = (self.network.address, self.request);
        match (self.boot, request.asker) {
            (Boot::Nothing, _) => String::new(),
            (Boot::Loader(loader), Asker::HttpBoot(_)) => {
                format!("http://{master}/boot/{}", loader.file_name())
            }
            (Boot::Loader(loader), _) => loader.file_name().to_owned(),
            (Boot::Script, _) => format!("http://{master}/ipxe/{}", request.mac.hyphens()),
        }
    }

    /// RFC 2131 section 2, table 3. `file`, `siaddr` and `sname` are always filled: shim and old
    /// ROMs read nothing else.
    fn header(&self) -> Vec<u8> {
        let (request, is_nak) = (self.request, self.kind == Kind::Nak);
        let flags = if is_nak && !request.giaddr.is_unspecified() {
            request.flags | BROADCAST
        } else {
            request.flags
        };
        let ciaddr = if self.kind == Kind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let siaddr = if is_nak { Ipv4Addr::UNSPECIFIED } else { self.network.address };
        let sname = if is_nak { String::new() } else { self.network.address.to_string() };
        let mut bytes = Vec::with_capacity(LEN_USUAL);
        bytes.extend([2, 1, 6, 0]);
        bytes.extend(request.xid.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(flags.to_be_bytes());
        for ip in [ciaddr, self.yiaddr, siaddr, request.giaddr] {
            bytes.extend(ip.octets());
        }
        bytes.extend(request.mac.octets());
        bytes.extend([0; 10]);
        bytes.extend(field::<64>(&sname));
        bytes.extend(field::<128>(&self.file()));
        bytes.extend(COOKIE);
        bytes
    }

    /// 53 first, because some tiny stacks look for it nowhere else.
    fn options(&self) -> Vec<DhcpOption> {
        let message = match self.kind {
            Kind::Offer => Some(MessageType::Offer),
            Kind::Ack => Some(MessageType::Ack),
            Kind::Nak => Some(MessageType::Nak),
            Kind::Bootp => None,
        };
        let mut options = vec![];
        if let Some(message) = message {
            options.push(DhcpOption::MessageType(message));
            options.push(DhcpOption::ServerIdentifier(self.network.address));
        }
        if self.kind == Kind::Nak {
            options.extend(self.client_id());
            return options;
        }
        options.extend(self.lease_s.map(DhcpOption::AddressLeaseTime));
        if self.network.dhcp == DhcpMode::Serve {
            self.network_options(&mut options);
        }
        if let Some(lease_s) = self.lease_s {
            options.push(DhcpOption::Renewal(lease_s / 2));
            options.push(DhcpOption::Rebinding(lease_s / 8 * 7));
        }
        if self.kind != Kind::Bootp {
            self.boot_options(&mut options);
            options.extend(self.client_id());
        }
        options
    }

    fn network_options(&self, options: &mut Vec<DhcpOption>) {
        let network = self.network;
        options.push(DhcpOption::SubnetMask(network.subnet.netmask()));
        options.push(DhcpOption::Router(vec![network.address]));
        options.push(DhcpOption::DomainNameServer(network.resolvers()));
        options.extend(self.name.map(|name| DhcpOption::Hostname(name.as_str().to_owned())));
        options.push(DhcpOption::DomainName(network.domain.as_str().to_owned()));
        options.push(DhcpOption::BroadcastAddr(network.subnet.broadcast()));
        if self.request.asks_for(OptionCode::NtpServers) {
            options.push(DhcpOption::NtpServers(vec![network.address]));
        }
    }

    fn boot_options(&self, options: &mut Vec<DhcpOption>) {
        let request = self.request;
        let is_ipxe = matches!(request.asker, Asker::Ipxe { .. });
        match request.class {
            Some(Class::Pxe) if !is_ipxe && self.boot != Boot::Nothing => {
                options.push(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
                // UEFI takes a proxy's file only when it has asked port 4011 for it, where dnsmasq and pixiecore send it,
                // too. That it need not ask is said by these options.
                if self.network.dhcp == DhcpMode::Serve || request.is_bios() {
                    options.push(DhcpOption::VendorExtensions(self.vendor_options()));
                }
            }
            // This is how iPXE tells a proxy's offer from any other (`dhcp_has_pxeopts`).
            Some(Class::Pxe) if is_ipxe && self.network.dhcp == DhcpMode::Proxy => {
                options.push(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            }
            Some(Class::Http) if !is_ipxe => {
                options.push(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
            }
            Some(Class::Pxe | Class::Http) | None => {}
        }
        options.extend(request.machine_id.clone().map(DhcpOption::ClientMachineIdentifier));
        if self.boot != Boot::Nothing {
            if request.asks_for(OptionCode::TFTPServerName) {
                let master = self.network.address.to_string();
                options.push(DhcpOption::TFTPServerName(with_nul(&master)));
            }
            if request.asks_for(OptionCode::BootfileName) {
                options.push(DhcpOption::BootfileName(with_nul(&self.file())));
            }
        }
        if is_ipxe {
            options.push(raw(IPXE_ENCAPSULATED, IPXE_OPTIONS.to_vec()));
        }
    }

    fn vendor_options(&self) -> Vec<u8> {
        let mut vendor = USE_THE_FILE.to_vec();
        if let Some(item) = &self.request.boot_item
            && let Ok(len) = u8::try_from(item.len())
        {
            vendor.extend([BOOT_ITEM, len]);
            vendor.extend(item);
        }
        vendor.push(END);
        vendor
    }

    fn client_id(&self) -> Option<DhcpOption> {
        self.request.client_id.clone().map(DhcpOption::ClientIdentifier)
    }

    /// Encoded option 82, unless it is so long that nothing else would fit.
    fn relay_info(&self) -> Vec<u8> {
        const MOST: usize = 255 + 2;
        let info = self.request.relay_info.clone();
        let option = info.map(|info| raw(u8::from(OptionCode::RelayAgentInformation), info));
        let encoded = option.and_then(|option| option.to_vec().ok()).unwrap_or_default();
        if encoded.len() <= MOST { encoded } else { vec![] }
    }
}

fn raw(code: u8, value: Vec<u8>) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), value))
}

/// ROMs read the value as a C string; without its NUL they swallow the byte behind it.
fn with_nul(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A text in a field of fixed length, with at least one NUL behind it.
fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *place = byte;
    }
    field
}

#[cfg(test)]
mod tests;
