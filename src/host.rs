//! This machine: its network interfaces, and whether one may carry a DHCP server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::cluster::Network;
use crate::mac::Mac;
use crate::name::IfName;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: IfName,
    /// Its hardware address, when it is a card.
    pub mac: Option<Mac>,
    /// Its IPv4 addresses with prefix length.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether a default route leaves through it.
    pub has_default_route: bool,
}

/// Why this machine cannot serve on the private interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The system does not tell its interfaces.
    #[error("cannot list the network interfaces: {0}")]
    Unlisted(String),
    /// No such interface.
    #[error(
        "there is no interface `{interface}`; `ip -br link` lists those there are, set network.interface to the one of the private switch"
    )]
    Missing {
        /// The name that was asked for.
        interface: IfName,
    },
    /// It lacks the master's address.
    #[error(
        "{interface} does not have the address {address}; give it one: `ip addr add {address}/{prefix} dev {interface} && ip link set {interface} up`"
    )]
    Address {
        /// Which interface.
        interface: IfName,
        /// Which address.
        address: Ipv4Addr,
        /// Prefix length of the private subnet.
        prefix: u8,
    },
    /// It is switched off.
    #[error("{interface} is down; run `ip link set {interface} up`")]
    Down {
        /// Which interface.
        interface: IfName,
    },
    /// It leads to the outside.
    #[error(
        "{interface} carries a default route, so it leads to your institute or home network, where a second DHCP server does harm; set network.interface to the private switch's (or, if this really is private, use --serve-on-default-route)"
    )]
    DefaultRoute {
        /// Which interface.
        interface: IfName,
    },
}

/// Checks that the private interface exists, has the master's address and leads nowhere else.
pub fn fit_to_serve(network: &Network, on_default_route: bool) -> Result<(), Unfit> {
    let interfaces = interfaces().map_err(|error| Unfit::Unlisted(error.to_string()))?;
    fits(&interfaces, network, on_default_route)
}

fn fits(all: &[Interface], network: &Network, on_default_route: bool) -> Result<(), Unfit> {
    let interface = network.interface.clone();
    let Some(found) = all.iter().find(|one| one.name == interface) else {
        return Err(Unfit::Missing { interface });
    };
    if found.has_default_route && !on_default_route {
        return Err(Unfit::DefaultRoute { interface });
    }
    if !found.is_up {
        return Err(Unfit::Down { interface });
    }
    if !found.addresses.iter().any(|(address, _)| *address == network.address) {
        let (address, prefix) = (network.address, network.subnet.prefix_len());
        return Err(Unfit::Address { interface, address, prefix });
    }
    Ok(())
}

/// The last words of a program that failed, out of what it wrote to stderr.
pub fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing").trim().to_owned()
}

/// The address of a card that is switched on.
pub fn running_card(name: &IfName) -> Option<Mac> {
    interfaces().ok()?.into_iter().find(|one| one.name == *name && one.is_up)?.mac
}

/// Lists the interfaces of this machine but the loopback one.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    let routes = std::fs::read_to_string("/proc/self/net/route")?;
    // Absent where the kernel has no IPv6.
    let routes_v6 = std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    let with_default = [default_routes(&routes), default_routes_v6(&routes_v6)].concat();
    let mut found = BTreeMap::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let Ok(name) = entry.interface_name.parse::<IfName>() else { continue };
        if entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let interface = found.entry(name.clone()).or_insert_with(|| Interface {
            mac: card(&name),
            has_default_route: with_default.contains(&name.as_str()),
            is_up: entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP),
            addresses: vec![],
            name,
        });
        let ip = |address: &Option<nix::sys::socket::SockaddrStorage>| {
            address
                .as_ref()
                .and_then(|address| address.as_sockaddr_in())
                .map(|address| address.ip())
        };
        if let Some(address) = ip(&entry.address) {
            let mask = ip(&entry.netmask).map_or(0, |mask| u32::from(mask).count_ones());
            interface.addresses.push((address, u8::try_from(mask).unwrap_or(0)));
        }
    }
    Ok(found.into_values().collect())
}

/// The hardware address of an interface.
pub fn card(name: &IfName) -> Option<Mac> {
    let path = Path::new("/sys/class/net").join(name.as_str()).join("address");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The interfaces with a default route, from the text of `/proc/net/route`: destination and mask
/// are zero (columns 2 and 8).
fn default_routes(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, "00000000", _, _, _, _, _, "00000000", ..] => Some(*name),
            _ => None,
        })
        .collect()
}

/// The same of `/proc/net/ipv6_route`: an institute's router announces itself to whatever is
/// plugged in, also to an interface whose IPv4 address was set by hand.
fn default_routes_v6(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [to, "00", .., name] if to.bytes().all(|digit| digit == b'0') => Some(*name),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::sample;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t01001FAC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00001FAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    const ROUTES_V6: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo
";

    fn eth1() -> Interface {
        Interface {
            name: "eth1".parse().expect("name"),
            mac: None,
            addresses: vec![(Ipv4Addr::new(192, 168, 10, 1), 24)],
            is_up: true,
            has_default_route: false,
        }
    }

    fn check(change: impl FnOnce(&mut Interface), allow: bool) -> Result<(), String> {
        let mut interface = eth1();
        change(&mut interface);
        fits(&[interface], &sample::network(), allow).map_err(|unfit| unfit.to_string())
    }

    #[test]
    fn only_the_uplink_has_a_default_route() {
        assert_eq!(default_routes(ROUTES), ["eth0"]);
        assert_eq!(default_routes("garbage\n\n"), Vec::<&str>::new());
        assert_eq!(default_routes_v6(ROUTES_V6), ["eth0"]);
        assert_eq!(default_routes_v6("garbage\n\n"), Vec::<&str>::new());
    }

    #[test]
    fn a_private_interface_is_fit() {
        assert_eq!(check(|_| {}, false), Ok(()));
    }

    #[test]
    fn an_interface_that_leads_outside_is_refused_unless_its_owner_insists() {
        let message = check(|one| one.has_default_route = true, false).expect_err("refused");
        assert!(message.contains("--serve-on-default-route"), "{message}");
        assert_eq!(check(|one| one.has_default_route = true, true), Ok(()));
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_mends_it() {
        let address = check(|one| one.addresses.clear(), false).expect_err("address");
        assert!(address.contains("ip addr add 192.168.10.1/24 dev eth1"), "{address}");
        let down = check(|one| one.is_up = false, false).expect_err("down");
        assert!(down.contains("ip link set eth1 up"), "{down}");
        let missing = fits(&[], &sample::network(), false).expect_err("missing").to_string();
        assert!(missing.contains("there is no interface `eth1`"), "{missing}");
    }

    #[test]
    fn this_machine_lists_its_interfaces() {
        interfaces().expect("interfaces");
    }
}
