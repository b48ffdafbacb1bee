//! The servers: how each is set up for what is measured, as its own manual says it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use crate::place::{ADDRESS, PREFIX, Place, Server};

const REKINDLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/rekindle");
const ATFTPD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/usr/sbin/atftpd");
/// Where Debian has the loaders.
pub const LOADERS: &str = "/usr/lib/ipxe";

/// The card of a machine.
pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x52, 0x54, 0, 0xaa, high, low]
}

/// Its address.
pub fn ip(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, 1 + high, low)
}

pub fn colons(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What is served by HTTP, and its paths: a big file and one of 2 KB.
pub struct Files {
    pub big: &'static str,
    pub small: &'static str,
    pub big_len: usize,
}

pub const FILES: Files =
    Files { big: "tree/el9/images/install.img", small: "tree/el9/small", big_len: 100 << 20 };

/// An install tree as small as rekindle takes one, and the two files.
fn tree(root: &Path) -> Result<()> {
    let treeinfo = "[general]\nfamily = AlmaLinux\nversion = 9.8\narch = x86_64\n\n[images-x86_64]\n\
        kernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\n[variant-BaseOS]\nid = BaseOS\n\
        repository = BaseOS\n";
    let big = root.join("images/install.img");
    for (file, content) in [
        (".treeinfo", treeinfo.as_bytes()),
        ("images/pxeboot/vmlinuz", b"kernel"),
        ("images/pxeboot/initrd.img", b"initrd"),
        ("BaseOS/repodata/repomd.xml", b"<repomd/>\n"),
        ("RPM-GPG-KEY-x", b"a key\n"),
        ("small", &[b'k'; 2048]),
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, content)?;
    }
    if !big.exists() {
        fs::write(big, vec![0xa5; FILES.big_len])?;
    }
    Ok(())
}

/// Starts `rekindle serve` with so many nodes.
pub fn rekindle(place: &Place, nodes: u16) -> Result<Server> {
    let dir = place.dir.join("rekindle");
    fs::create_dir_all(&dir)?;
    tree(&place.dir.join("www/tree/el9"))?;
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz a@b";
    let mut text = format!(
        "[network]\nuplink = \"eth0\"\ninterface = \"eth1\"\naddress = \"{ADDRESS}/{PREFIX}\"\n\
         workers = \"10.77.1.0-10.77.60.255\"\ndiscovery = \"10.77.200.0-10.77.200.255\"\n[os.el9]\ntree = \"{}\"\n\
         [defaults]\nos = \"el9\"\nadmin_keys = [\"{key}\"]\n",
        place.dir.join("www/tree/el9").display()
    );
    for number in 0..nodes {
        text.push_str(&format!(
            "[[node]]\nname = \"n{number}\"\nmac = \"{}\"\nip = \"{}\"\n",
            colons(mac(number)),
            ip(number)
        ));
    }
    let config = dir.join("cluster.toml");
    fs::write(&config, text)?;
    let (config, state) = (config.display(), dir.join("state"));
    let line = format!("{REKINDLE} --config {config} --state {} serve", state.display());
    place.start(&words(&line), |said| said.contains("serving DHCP"))
}

/// Starts one of the DHCP servers with reservations for so many machines.
pub fn dhcp(place: &Place, server: &str, nodes: u16) -> Result<Server> {
    let dir = &place.dir;
    let all = || (0..nodes).map(|number| (number, colons(mac(number)), ip(number)));
    let at = |name: &str| dir.join(name).display().to_string();
    match server {
        "rekindle" => rekindle(place, nodes),
        "dnsmasq" => {
            let hosts: String = all().map(|(_, mac, ip)| format!("{mac},{ip}\n")).collect();
            fs::write(at("hosts"), hosts)?;
            let line = format!(
                "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth1 --bind-interfaces \
                 --dhcp-authoritative --no-ping --user=root --dhcp-lease-max=20000 \
                 --dhcp-range=10.77.0.0,static,255.255.0.0 --dhcp-hostsfile={} --dhcp-leasefile={} \
                 --dhcp-boot=undionly.kpxe --log-facility=- --quiet-dhcp",
                at("hosts"),
                at("dnsmasq.leases")
            );
            place.start(&words(&line), |said| said.contains("read "))
        }
        "isc-dhcpd" => {
            let mut text = "authoritative; ping-check off; default-lease-time 86400; max-lease-time 86400;\n\
                subnet 10.77.0.0 netmask 255.255.0.0 { option routers 10.77.0.1; filename \"undionly.kpxe\"; }\n"
                .to_owned();
            for (number, mac, ip) in all() {
                text.push_str(&format!(
                    "host n{number} {{ hardware ethernet {mac}; fixed-address {ip}; }}\n"
                ));
            }
            fs::write(at("dhcpd.conf"), text)?;
            fs::write(at("dhcpd.leases"), "")?;
            let line = format!(
                "dhcpd -4 -f -user root -group root --no-pid -cf {} -lf {} eth1",
                at("dhcpd.conf"),
                at("dhcpd.leases")
            );
            place.start(&words(&line), |said| said.contains("Socket/fallback"))
        }
        "kea" => {
            let reservations: Vec<_> = all()
                .map(|(_, mac, ip)| format!("{{\"hw-address\":\"{mac}\",\"ip-address\":\"{ip}\"}}"))
                .collect();
            let text = format!(
                "{{\"Dhcp4\":{{\"interfaces-config\":{{\"interfaces\":[\"eth1\"]}},\
                 \"lease-database\":{{\"type\":\"memfile\",\"persist\":true,\"name\":\"{}\"}},\
                 \"valid-lifetime\":86400,\"subnet4\":[{{\"id\":1,\"subnet\":\"10.77.0.0/16\",\
                 \"boot-file-name\":\"undionly.kpxe\",\"reservations\":[{}]}}],\
                 \"loggers\":[{{\"name\":\"kea-dhcp4\",\"output_options\":[{{\"output\":\"stdout\"}}],\
                 \"severity\":\"INFO\"}}]}}}}",
                at("kea.leases"),
                reservations.join(",")
            );
            fs::write(at("kea.json"), text)?;
            fs::create_dir_all("/run/kea")?;
            let line = format!("kea-dhcp4 -c {}", at("kea.json"));
            place.start(&words(&line), |said| said.contains("DHCP4_STARTED"))
        }
        other => anyhow::bail!("{other} is no DHCP server"),
    }
}

/// Starts one of the TFTP servers. They serve the loader that BIOS machines fetch.
pub fn tftp(place: &Place, server: &str) -> Result<Server> {
    let root = place.dir.join("tftp");
    fs::create_dir_all(&root)?;
    for loader in ["undionly.kpxe", "ipxe.efi"] {
        fs::copy(Path::new(LOADERS).join(loader), root.join(loader))?;
    }
    let root = root.display();
    let waits = |port: &'static str| move |_: &str| is_bound("udp", port);
    match server {
        "rekindle" => rekindle(place, 250),
        "dnsmasq" => {
            let line = format!(
                "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth1 --bind-interfaces \
                 --user=root --enable-tftp --tftp-root={root} --tftp-max=1000"
            );
            place.start(&words(&line), waits(":0045"))
        }
        "tftpd-hpa" => {
            let line = format!("in.tftpd -L -u root -a {ADDRESS}:69 -s {root}");
            place.start(&words(&line), waits(":0045"))
        }
        "atftpd" => {
            let line = format!(
                "{ATFTPD} --daemon --no-fork --user root --group root --maxthread 1000 --bind-address {ADDRESS} {root}"
            );
            place.start(&words(&line), waits(":0045"))
        }
        other => anyhow::bail!("{other} is no TFTP server"),
    }
}

/// Starts one of the HTTP servers.
pub fn http(place: &Place, server: &str) -> Result<Server> {
    let www = place.dir.join("www");
    tree(&www.join("tree/el9"))?;
    let nopush = match server {
        "rekindle" => return rekindle(place, 250),
        // As Debian's nginx.conf has it, and as small answers want it.
        "nginx" => "on",
        "nginx-nopush-off" => "off",
        other => anyhow::bail!("{other} is no HTTP server"),
    };
    let conf = place.dir.join("nginx.conf");
    let (pid, www) = (place.dir.join("nginx.pid"), www.display());
    let text = format!(
        "user root; worker_processes 1; daemon off; pid {}; error_log stderr;\n\
         events {{ worker_connections 2048; }}\nhttp {{ sendfile on; tcp_nopush {nopush}; access_log off; \
         keepalive_requests 10000000; types {{}} default_type application/octet-stream;\n\
         server {{ listen {ADDRESS}:80 backlog=1024; root {www}; }} }}\n",
        pid.display()
    );
    fs::write(&conf, text)?;
    let line = format!("nginx -c {}", conf.display());
    place.start(&words(&line), |_| is_bound("tcp", ":0050"))
}

/// Whether a port is open in the server's namespace.
fn is_bound(table: &str, port: &str) -> bool {
    let words = ["netns", "exec", crate::place::SERVER, "cat"];
    let done =
        std::process::Command::new("ip").args(words).arg(format!("/proc/net/{table}")).output();
    let text = done.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|it| it.ends_with(port)))
}
