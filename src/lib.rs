//! rekindle gives old computers a second life as a cluster.
//!
//! Two facts and one function: what the owner wants is [`cluster::Cluster`], what happened is a
//! journal folded into [`stage::State`], and [`boot::decide`] says what a machine gets now.
//! Protocols are pure (bytes and time in, bytes out); only `serve` and `cmd` touch sockets,
//! clocks and files. The modules below stand bottom layer first.

pub mod mac;
pub mod machine;
pub mod name;

pub mod cluster;
pub mod media;
pub mod stage;

pub mod journal;

pub mod boot;
pub mod trust;

pub mod dhcp;
pub mod http;
pub mod tftp;
