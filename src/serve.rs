//! Shells.

pub mod sendfile;
