//! rekindle gives old computers a second life as a cluster.
//!
//! Two facts and one function: what the owner wants is [`cluster::Cluster`], what happened is a
//! journal folded into [`stage::State`], and [`boot::decide`] says what a machine gets now.
//! Protocols are pure (bytes and time in, bytes out); only the shells at the bottom of this list
//! touch sockets, clocks and files. Each module uses only modules above it.

// Words.
pub mod mac;
pub mod machine;
pub mod name;

// What the owner wants, what there is to install, what has happened.
pub mod answers;
pub mod cluster;
pub mod hardware;
pub mod media;
pub mod mirrors;
pub mod repodata;
pub mod site;
pub mod snippets;
pub mod stage;

// The decision, and who may have what.
pub mod boot;
pub mod trust;

// Texts.
pub mod artifacts;
pub mod escape;
pub mod firewall;
pub mod foreign;
pub mod grub;
pub mod ipxe;
pub mod kickstart;
pub mod push;
pub mod pxelinux;
pub mod setup;

pub mod doctor;

// Protocols, and the whole product as a pure core.
pub mod arp;
pub mod dhcp;
pub mod http;
pub mod tftp;

pub mod master;

// Shells: files, sockets, clocks.
pub mod apply;
pub mod change;
pub mod host;
pub mod import;
pub mod journal;
pub mod repo;
pub mod sys;

pub mod serve;

pub mod cmd;
