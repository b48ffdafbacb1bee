//! The owner's commands: arguments -> one call -> what is printed.
//!
//! Exit codes: 0 done, 1 findings (something of the owner's is wrong), 2 failure.

mod check;
mod doctor;
mod explain;
mod init;
mod log;
mod machines;
mod master;
mod media;
mod node;
mod out;
mod push;
mod render;
mod repo;
mod serve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::change::Lock;
use crate::cluster::{self, Cluster, Findings};
use crate::journal::Journal;
use crate::media::BadTree;
use crate::mirrors::{self, Preset};
use crate::snippets::BadSnippets;

/// Give old computers a second life as a cluster.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

/// Where things are kept.
#[derive(Debug, Clone, Args)]
struct Files {
    /// What the owner wants
    #[arg(long, global = true, env = "REKINDLE_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/rekindle/cluster.toml")]
    config: PathBuf,
    /// Folder of the journal and the secrets
    #[arg(long, global = true, env = "REKINDLE_STATE", value_name = "DIR")]
    #[arg(default_value = "/var/lib/rekindle")]
    state: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented cluster.toml from this machine's own interfaces
    Init(init::Init),
    /// Check cluster.toml and the install trees it names
    Check(check::Check),
    /// Serve DHCP, TFTP and HTTP on the private interface
    Serve(serve::Serve),
    /// Set up this machine as the master
    #[command(subcommand)]
    Master(master::Master),
    /// Import install media, look at install trees, remove them
    #[command(subcommand)]
    Media(media::Media),
    /// Packages of your own for the nodes
    #[command(subcommand)]
    Repo(repo::Repository),
    /// Add, list, remove and reinstall nodes
    #[command(subcommand)]
    Node(node::Node),
    /// List machines that asked to boot and are not in the cluster
    Machines(machines::Machines),
    /// Show what happened
    Log(log::Log),
    /// Write the cluster's files on installed nodes as a new installation would get them
    Push(push::Push),
    /// Print what a node would get, secrets masked
    Render(render::Render),
    /// Look for everything that may be wrong with this master
    Doctor(doctor::Doctor),
    /// Explain why things are as they are
    #[command(subcommand)]
    Explain(explain::Explain),
}

/// Something of the owner's is wrong: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Wrong(String);

/// Runs the command of these arguments; errors are printed, one line each.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { files, command } = cli;
    let done = match command {
        Command::Init(init) => init.run(&files),
        Command::Check(check) => check.run(&files),
        Command::Serve(serve) => serve.run(&files),
        Command::Master(master) => master.run(&files),
        Command::Media(media) => media.run(&files),
        Command::Repo(repo) => repo.run(&files),
        Command::Node(node) => node.run(&files),
        Command::Machines(machines) => machines.run(&files),
        Command::Log(log) => log.run(&files),
        Command::Push(push) => push.run(&files),
        Command::Render(render) => render.run(&files),
        Command::Doctor(doctor) => doctor.run(&files),
        Command::Explain(explain) => explain.run(&files),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if out::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out::error(&error);
            ExitCode::from(if is_the_owners(&error) { 1 } else { 2 })
        }
    }
}

/// Whether something that the owner wrote or copied is wrong, and not the doing of it.
fn is_the_owners(error: &anyhow::Error) -> bool {
    error.is::<Findings>()
        || error.is::<Wrong>()
        || error.is::<BadTree>()
        || error.is::<BadSnippets>()
}

impl Files {
    fn text(&self) -> anyhow::Result<String> {
        let bytes = std::fs::read(&self.config).map_err(|error| {
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            let hint = if is_missing { " (`rekindle init` writes one)" } else { "" };
            anyhow::Error::new(error)
                .context(format!("cannot read {}{hint}", self.config.display()))
        })?;
        Ok(cluster::utf8(bytes, &self.config)?)
    }

    /// The right to change the file; where there is none, says so before anything is made.
    fn lock(&self) -> anyhow::Result<Lock> {
        self.text()?;
        Ok(Lock::take(&self.config)?)
    }

    fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::parse(&self.text()?, &self.config)?)
    }

    /// Where media and packages come from by name.
    fn mirrors(&self) -> anyhow::Result<BTreeMap<String, Preset>> {
        let file = self.config.with_file_name("mirrors.toml");
        let own = match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(file.display().to_string()),
        };
        mirrors::read(own.as_deref()).with_context(|| file.display().to_string())
    }

    fn journal(&self) -> anyhow::Result<Journal> {
        Ok(Journal::open(&self.state)?)
    }
}
