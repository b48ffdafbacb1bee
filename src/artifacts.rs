//! Files that every node gets: the cluster -> their text. Pure, and the same on all nodes.

use std::fmt::Write;

use crate::cluster::Cluster;
use crate::media::Tree;
use crate::name::OsName;

fn lines<T>(items: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.into_iter().fold(String::new(), |mut text, item| {
        // Writing into a String cannot fail.
        writeln!(text, "{}", line(item)).unwrap_or_default();
        text
    })
}

/// `/etc/hosts`: the master and all nodes. No name maps to 127.0.0.1 but localhost, which Torque
/// and munge insist on.
pub fn hosts(cluster: &Cluster) -> String {
    let network = cluster.network();
    let domain = &network.domain;
    let master = (network.address, network.master.as_str());
    let nodes = cluster.nodes().map(|node| (node.ip, node.name.as_str()));
    let head = "127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n";
    let rest = lines(std::iter::once(master).chain(nodes), |(ip, name)| {
        format!("{ip} {name}.{domain} {name}")
    });
    format!("{head}{rest}")
}

/// `/etc/ssh/ssh_known_hosts`: one line for all hosts there will ever be (sshd(8),
/// "SSH_KNOWN_HOSTS FILE FORMAT"), so that a reinstalled node raises no alarm.
pub fn known_hosts(host_ca: &str) -> String {
    format!("@cert-authority * {}\n", host_ca.trim())
}

/// `/etc/ssh/shosts.equiv`: from where ordinary users come without a password. sshd looks names
/// up, or takes the address when it does not; both are here. The master is not: it holds root.
pub fn shosts(cluster: &Cluster) -> String {
    let domain = &cluster.network().domain;
    lines(cluster.nodes(), |node| format!("{}\n{}.{domain}\n{}", node.name, node.name, node.ip))
}

/// MPI's list of hosts.
pub fn hostfile(cluster: &Cluster) -> String {
    lines(cluster.nodes(), |node| node.name.to_string())
}

/// The node's `/etc/yum.repos.d/rekindle.repo`: the tree's repositories and the cluster's own,
/// all with `gpgcheck=1`.
pub fn repo_file(cluster: &Cluster, os: &OsName, tree: &Tree) -> String {
    let base = base_url(cluster);
    let own = cluster.systems().get(os).and_then(|os| os.repo.as_ref());
    let trees = tree.repos.iter().map(|(name, path)| {
        let slash = if path.is_empty() { "" } else { "/" };
        (name.to_lowercase(), format!("{base}/tree/{os}{slash}{path}"))
    });
    let own = own.map(|_| ("cluster".to_owned(), format!("{base}/repo/{os}")));
    let keys: Vec<_> = tree.gpg_keys.iter().map(|key| format!("{base}/keys/{os}/{key}")).collect();
    lines(trees.chain(own), |(name, url)| {
        format!(
            "[rekindle-{name}]\nname=rekindle {name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\n\
             gpgkey={}",
            keys.join(" ")
        )
    })
}

/// Where nodes find the master.
pub fn base_url(cluster: &Cluster) -> String {
    format!("http://{}", cluster.network().address)
}
