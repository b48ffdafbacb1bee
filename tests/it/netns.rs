//! The real binary, real sockets and real clients, in namespaces made by [`crate::lab`].

mod ban;
mod dhcp;
mod doctor;
mod flows;
mod hardship;
mod http;
mod install;
mod names;
mod serving;
mod setup;
mod slurm;
mod start;
mod storm;
mod tftp;
mod torque;
mod uplink;
