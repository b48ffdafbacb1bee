//! Everything that needs more than one module: replay of real captures, the command line, real
//! sockets in namespaces, and the house rules.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml's exceptions do not reach helpers here"
)]

mod pcap;
mod replay_boot;
mod replay_dhcp;
mod replay_tftp;
mod tidy;
mod wire;
