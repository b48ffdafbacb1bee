//! `rekindle explain`.

mod boot;

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::Cluster;
use crate::firewall::walk::{End, Flow, Leg, Traffic, flow};
use crate::firewall::{Rule, SOMEWHERE, Verdict};

/// Why things are as they are
#[derive(Debug, Subcommand)]
pub(super) enum Explain {
    /// The way of a packet through the firewalls, there and back
    Flow(FlowArgs),
    /// What a machine gets when it boots from the network, and why
    Boot(boot::BootArgs),
}

/// The way of a packet through the firewalls that rekindle writes, there and back
#[derive(Debug, Args)]
pub(super) struct FlowArgs {
    /// Who begins: a node, `master`, `outside`, or an address
    from: String,
    /// To whom: the same with `:PORT`; without a port a ping
    to: String,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        match self {
            Self::Flow(args) => args.run(&files.cluster()?),
            Self::Boot(args) => args.run(files),
        }
    }
}

impl FlowArgs {
    fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let (to, port) = match self.to.rsplit_once(':') {
            None => (self.to.as_str(), None),
            Some((to, port)) => {
                let wrong = || Wrong(format!("`{port}` is no port; write one like 443"));
                (to, Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?))
            }
        };
        let traffic = match port {
            None => Traffic::Echo,
            Some(port) if self.udp => Traffic::Udp(source_port(port), port),
            Some(port) => Traffic::Tcp(port),
        };
        let (from, to) = (end(cluster, &self.from)?, end(cluster, to)?);
        let found = flow(cluster, &from, &to, traffic);
        let found = found.ok_or_else(|| Wrong("one of them is not in the cluster".to_owned()))?;
        let title = format!("{} -> {}{}", self.from, self.to, if self.udp { "/udp" } else { "" });
        if self.json {
            return out::json(&as_json(&title, &found));
        }
        out::text(&told(&title, &found))
    }
}

/// A client asks from a port of its own, but for DHCP.
fn source_port(port: u16) -> u16 {
    if port == 67 { 68 } else { 40_000 }
}

fn end(cluster: &Cluster, text: &str) -> anyhow::Result<End> {
    let network = cluster.network();
    if text == "outside" {
        return Ok(End::Outside(SOMEWHERE));
    }
    if text == "master" || text == network.master.as_str() {
        return Ok(End::Master);
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(match cluster.node_by_ip(ip) {
            Some(node) => End::Worker(node.name.clone()),
            None if ip == network.address => End::MasterPrivate,
            None if network.subnet.contains(&ip) => {
                return Err(Wrong(format!("nobody in the cluster has {ip}")).into());
            }
            None => End::Outside(ip),
        });
    }
    let name = text.parse().ok().filter(|name| cluster.node(name).is_some());
    name.map(End::Worker).ok_or_else(|| {
        Wrong(format!("`{text}` is no node; write a node, `master`, `outside` or an address"))
            .into()
    })
}

fn told(title: &str, flow: &Flow) -> String {
    let mut lines = vec![title.to_owned()];
    let mut way = |name: &str, legs: &[Leg]| {
        for leg in legs {
            lines.push(format!("  {name}, {}:", leg.place));
            lines.extend(leg.rules.iter().map(|rule| format!("    {}", rule_words(rule))));
            if !leg.passes && !leg.rules.iter().any(|rule| rule.verdict == Verdict::Drop) {
                lines.push("    no rule lets it pass: dropped".to_owned());
            }
            lines.extend(leg.hidden.iter().map(|rule| format!("    {}", rule_words(rule))));
        }
    };
    way("there", &flow.there);
    way("back", &flow.back);
    lines.push(if flow.works() { "it works" } else { "it does not work" }.to_owned());
    lines.join("\n")
}

fn rule_words(rule: &Rule) -> String {
    let verdict = match rule.verdict {
        Verdict::Accept => "accept",
        Verdict::Drop => "drop",
        Verdict::Lan => "the rules of the private wire",
        Verdict::Log(_) => "log",
        Verdict::Masquerade => "masquerade; the answer's destination is put back",
    };
    format!("{} {}: {verdict}", rule.id, rule.why)
}

fn as_json(title: &str, flow: &Flow) -> serde_json::Value {
    let legs = |legs: &[Leg]| -> Vec<_> {
        legs.iter()
            .map(|leg| {
                let rules: Vec<_> = leg.rules.iter().chain(&leg.hidden).map(rule_words).collect();
                json!({ "place": leg.place, "passes": leg.passes, "rules": rules })
            })
            .collect()
    };
    json!({ "flow": title, "works": flow.works(), "there": legs(&flow.there), "back": legs(&flow.back) })
}
