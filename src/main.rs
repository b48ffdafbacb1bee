//! `rekindle`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use rekindle::cmd;

fn main() -> ExitCode {
    cmd::run(cmd::Cli::parse())
}
