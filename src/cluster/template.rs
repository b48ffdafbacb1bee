//! The text that `rekindle init` writes: this machine's interfaces and the admin's keys -> a
//! commented `cluster.toml` to go on from.

use super::is_public_key;
use crate::host::Interface;

const TEXT: &str = include_str!("../../docs/cluster.example.toml");

/// Fills the example in. What cannot be known keeps the example's value.
pub fn write(interfaces: &[Interface], admin_keys: &[String]) -> String {
    let uplink = interfaces.iter().find(|one| one.has_default_route);
    let private = interfaces.iter().find(|one| one.mac.is_some() && !one.has_default_route);
    let mut text = TEXT.to_owned();
    if let Some(uplink) = uplink {
        text = text.replace("uplink = \"eth0\"", &format!("uplink = \"{}\"", uplink.name));
    }
    if let Some(private) = private {
        text = text.replace("interface = \"eth1\"", &format!("interface = \"{}\"", private.name));
    }
    let quoted: Vec<_> = admin_keys
        .iter()
        .filter(|key| is_public_key(key))
        .map(|key| format!("  \"{key}\","))
        .collect();
    text.replace("  \"ssh-ed25519 AAAA… you@home\",", &quoted.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::{Cluster, sample};

    fn interface(name: &str, has_default_route: bool) -> Interface {
        let name = name.parse().expect("name");
        let mac = Some(sample::mac(1));
        Interface { name, mac, addresses: vec![], is_up: true, has_default_route }
    }

    #[test]
    fn what_init_writes_is_sound_but_for_a_missing_key() {
        let interfaces = [interface("enp1s0", true), interface("enp2s0", false)];
        let text = write(&interfaces, &sample::parts().admin_keys);
        let cluster = Cluster::parse(&text, Path::new("cluster.toml")).expect("sound");
        assert_eq!(cluster.network().uplink.as_str(), "enp1s0");
        assert_eq!(cluster.network().interface.as_str(), "enp2s0");
        let bare = write(&[], &[]);
        let found = Cluster::parse(&bare, Path::new("cluster.toml")).expect_err("no key").list;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.starts_with("`admin_keys` is empty"), "{found:?}");
    }
}
