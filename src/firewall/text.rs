//! A [`Ruleset`] as text: one table for nft(8), or one file a family for iptables-restore(8).

use std::fmt::Write;

use super::{Condition, Family, Limit, Per, Rule, Ruleset, Tracked, Verdict};

/// The name of our table; nothing else is touched.
pub const TABLE: &str = "rekindle";

/// For `nft -f`. Replaces our own table and no other, in one step.
pub fn nft(rules: &Ruleset) -> String {
    let mut out =
        format!("#!/usr/sbin/nft -f\n# rekindle: {}. Written anew by rekindle.\n", rules.title);
    // `delete` alone fails when there is none yet.
    push(
        &mut out,
        &format!("table inet {TABLE}\ndelete table inet {TABLE}\n\ntable inet {TABLE} {{"),
    );
    let mut chain = |name: &str, hook: Option<&str>, rules: &[Rule]| {
        push(&mut out, &format!("  chain {name} {{"));
        if let Some(hook) = hook {
            push(&mut out, &format!("    {hook}"));
        }
        for rule in rules {
            push(&mut out, &format!("    # {}: {}", rule.id, rule.why));
            push(&mut out, &format!("    {}", nft_rule(rule)));
        }
        push(&mut out, "  }");
    };
    // A chain must be there before a rule leads to it.
    if !rules.lan.is_empty() {
        chain("lan", None, &rules.lan);
    }
    chain("input", Some("type filter hook input priority filter; policy drop;"), &rules.input);
    chain(
        "forward",
        Some("type filter hook forward priority filter; policy drop;"),
        &rules.forward,
    );
    if !rules.masquerade.is_empty() {
        let hook = "type nat hook postrouting priority srcnat; policy accept;";
        chain("postrouting", Some(hook), &rules.masquerade);
    }
    push(&mut out, "}");
    out
}

fn nft_rule(rule: &Rule) -> String {
    let mut words: Vec<String> =
        rule.conditions.iter().map(|condition| nft_condition(condition, rule.family)).collect();
    // An address or an ICMP type says the family by itself.
    let is_said = rule.conditions.iter().any(says_family);
    match rule.family {
        Family::V4 if !is_said => words.insert(0, "meta nfproto ipv4".to_owned()),
        Family::V6 if !is_said => words.insert(0, "meta nfproto ipv6".to_owned()),
        Family::Any | Family::V4 | Family::V6 => {}
    }
    words.push(match rule.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Lan => "jump lan".to_owned(),
        Verdict::Log(prefix) => format!("log prefix \"{prefix}\" level info"),
        Verdict::Masquerade => "masquerade".to_owned(),
    });
    words.join(" ")
}

fn says_family(condition: &Condition) -> bool {
    match condition {
        Condition::From(_)
        | Condition::To(_)
        | Condition::NotTo(_)
        | Condition::Echo
        | Condition::IcmpError
        | Condition::Neighbours => true,
        Condition::In(_)
        | Condition::Loopback
        | Condition::Out(_)
        | Condition::State(_)
        | Condition::Tcp
        | Condition::TcpTo(_)
        | Condition::Udp
        | Condition::UdpFromTo(..)
        | Condition::Limit(_) => false,
    }
}

fn nft_condition(condition: &Condition, family: Family) -> String {
    let is_v6 = family == Family::V6;
    match condition {
        // By name: the rules are loaded before a card is there.
        Condition::In(name) => format!("iifname \"{name}\""),
        Condition::Loopback => "iif lo".to_owned(),
        Condition::Out(name) => format!("oifname \"{name}\""),
        Condition::From(net) => format!("ip saddr {net}"),
        Condition::To(net) => format!("ip daddr {net}"),
        Condition::NotTo(net) => format!("ip daddr != {net}"),
        Condition::State(Tracked::Invalid) => "ct state invalid".to_owned(),
        Condition::State(Tracked::Established) => "ct state established,related".to_owned(),
        Condition::State(Tracked::New) => "ct state new".to_owned(),
        Condition::Tcp => "meta l4proto tcp".to_owned(),
        Condition::TcpTo(port) => format!("tcp dport {port}"),
        Condition::Udp => "meta l4proto udp".to_owned(),
        Condition::UdpFromTo(from, to) => format!("udp sport {from} udp dport {to}"),
        Condition::Echo if is_v6 => "icmpv6 type echo-request".to_owned(),
        Condition::Echo => "icmp type echo-request".to_owned(),
        Condition::IcmpError if is_v6 => format!("icmpv6 type {{ {} }}", ERRORS_V6.join(", ")),
        Condition::IcmpError => format!("icmp type {{ {} }}", ERRORS_V4.join(", ")),
        Condition::Neighbours => {
            let names: Vec<_> = NEIGHBOURS.iter().map(|(nft, _)| *nft).collect();
            format!("icmpv6 type {{ {} }}", names.join(", "))
        }
        Condition::Limit(Limit { packets, per, burst }) => {
            format!("limit rate {packets}/{} burst {burst} packets", unit(*per))
        }
    }
}

const ERRORS_V4: [&str; 3] = ["destination-unreachable", "time-exceeded", "parameter-problem"];
const ERRORS_V6: [&str; 4] =
    ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"];
/// As nft and as ip6tables call them.
const NEIGHBOURS: [(&str, &str); 3] = [
    ("nd-neighbor-solicit", "neighbour-solicitation"),
    ("nd-neighbor-advert", "neighbour-advertisement"),
    ("nd-router-advert", "router-advertisement"),
];

fn unit(per: Per) -> &'static str {
    match per {
        Per::Second => "second",
        Per::Minute => "minute",
    }
}

/// For `iptables-restore`.
pub fn iptables(rules: &Ruleset) -> String {
    restore(rules, Family::V4)
}

/// For `ip6tables-restore`.
pub fn ip6tables(rules: &Ruleset) -> String {
    restore(rules, Family::V6)
}

fn restore(rules: &Ruleset, family: Family) -> String {
    let mut out = format!("# rekindle: {}. Written anew by rekindle.\n*filter\n", rules.title);
    push(&mut out, ":INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]");
    let here = |rule: &&Rule| rule.family == Family::Any || rule.family == family;
    let lan: Vec<_> = rules.lan.iter().filter(here).collect();
    if !rules.lan.is_empty() {
        push(&mut out, ":LAN - [0:0]");
    }
    let chains = [
        ("INPUT", rules.input.iter().filter(here).collect()),
        ("LAN", lan),
        ("FORWARD", rules.forward.iter().filter(here).collect::<Vec<_>>()),
    ];
    for (chain, rules) in chains {
        rules.into_iter().for_each(|rule| restore_rule(&mut out, chain, rule, family));
    }
    push(&mut out, "COMMIT");
    let hidden: Vec<_> = rules.masquerade.iter().filter(here).collect();
    if !hidden.is_empty() {
        push(&mut out, "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]");
        push(&mut out, ":OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]");
        hidden.into_iter().for_each(|rule| restore_rule(&mut out, "POSTROUTING", rule, family));
        push(&mut out, "COMMIT");
    }
    out
}

/// iptables takes one ICMP type a line, so a rule may become several.
fn restore_rule(out: &mut String, chain: &str, rule: &Rule, family: Family) {
    push(out, &format!("# {}: {}", rule.id, rule.why));
    let mut lines = vec![format!("-A {chain}")];
    for condition in &rule.conditions {
        let words = restore_condition(condition, family);
        lines = lines
            .iter()
            .flat_map(|line| words.iter().map(move |word| format!("{line} {word}")))
            .collect();
    }
    let verdict = match rule.verdict {
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Lan => "-j LAN".to_owned(),
        Verdict::Log(prefix) => format!("-j LOG --log-prefix \"{prefix}\" --log-level 6"),
        Verdict::Masquerade => "-j MASQUERADE".to_owned(),
    };
    lines.iter().for_each(|line| push(out, &format!("{line} {verdict}")));
}

fn restore_condition(condition: &Condition, family: Family) -> Vec<String> {
    let (protocol, option) = match family {
        Family::V6 => ("ipv6-icmp", "--icmpv6-type"),
        Family::Any | Family::V4 => ("icmp", "--icmp-type"),
    };
    let icmp = |name: &str| format!("-p {protocol} {option} {name}");
    let one = |text: String| vec![text];
    match condition {
        Condition::In(name) => one(format!("-i {name}")),
        Condition::Loopback => one("-i lo".to_owned()),
        Condition::Out(name) => one(format!("-o {name}")),
        Condition::From(net) => one(format!("-s {net}")),
        Condition::To(net) => one(format!("-d {net}")),
        Condition::NotTo(net) => one(format!("! -d {net}")),
        Condition::State(Tracked::Invalid) => one("-m conntrack --ctstate INVALID".to_owned()),
        Condition::State(Tracked::Established) => {
            one("-m conntrack --ctstate RELATED,ESTABLISHED".to_owned())
        }
        Condition::State(Tracked::New) => one("-m conntrack --ctstate NEW".to_owned()),
        Condition::Tcp => one("-p tcp".to_owned()),
        Condition::TcpTo(port) => one(format!("-p tcp --dport {port}")),
        Condition::Udp => one("-p udp".to_owned()),
        Condition::UdpFromTo(from, to) => one(format!("-p udp --sport {from} --dport {to}")),
        Condition::Echo => one(icmp("echo-request")),
        Condition::IcmpError if family == Family::V6 => {
            ERRORS_V6.iter().map(|name| icmp(name)).collect()
        }
        Condition::IcmpError => ERRORS_V4.iter().map(|name| icmp(name)).collect(),
        Condition::Neighbours => NEIGHBOURS.iter().map(|(_, name)| icmp(name)).collect(),
        Condition::Limit(Limit { packets, per, burst }) => {
            one(format!("-m limit --limit {packets}/{} --limit-burst {burst}", unit(*per)))
        }
    }
}

fn push(text: &mut String, line: &str) {
    // Writing into a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}
