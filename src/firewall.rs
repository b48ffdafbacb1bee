//! A worker's firewall: the cluster -> the text of `/etc/sysconfig/nftables.conf`.

use askama::Template;
use ipnet::Ipv4Net;

use crate::cluster::Cluster;

#[derive(Template)]
#[template(path = "worker.nft", syntax = "ks")]
struct Worker {
    subnet: Ipv4Net,
}

/// The ruleset of S6: default deny, the cluster's subnet open, IPv6 closed, drops logged slowly.
pub fn worker(cluster: &Cluster) -> Result<String, askama::Error> {
    // The engine drops a template's last line end, and this text stands in a here-document.
    Worker { subnet: cluster.network().subnet }.render().map(|text| text + "\n")
}
