//! The one place with `unsafe`: system calls that no crate wraps safely.
#![expect(unsafe_code, reason = "each block says why it is sound")]

pub mod arp;
pub mod child;
pub mod map;
pub mod mtu;
pub mod packet;
