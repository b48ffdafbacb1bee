//! Everything that needs more than one module: replay of real captures, the command line, real
//! sockets in namespaces, and the house rules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails may say so by panicking"
)]

mod cli;
mod corpus;
mod disk;
mod hostile;
mod lab;
mod media;
mod netns;
mod pcap;
mod render;
mod replay_boot;
mod replay_dhcp;
mod replay_tftp;
mod repo;
mod sandbox;
mod simulate;
mod tidy;
mod wire;
