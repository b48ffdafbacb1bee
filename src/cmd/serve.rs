//! `rekindle serve`.

use clap::Args;

use super::Files;
use crate::serve;

/// Serve DHCP, TFTP and HTTP on the private interface, until SIGTERM
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Serve although the private interface carries a default route. A DHCP server on an
    /// institute's or home network disturbs every computer there: only for wires that are yours
    #[arg(long)]
    serve_on_default_route: bool,
    /// How much to say: error, warn, info, debug or trace (every packet)
    #[arg(long, env = "REKINDLE_LOG", default_value = "info", value_name = "LEVEL")]
    log: tracing_subscriber::filter::LevelFilter,
}

impl Serve {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        // Files that we make are for us alone; those that others may read say so.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        tracing_subscriber::fmt()
            .with_max_level(self.log)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_target(false)
            // Else a log that cannot be written (its disk is full) ends us by a panic.
            .log_internal_errors(false)
            .init();
        let settings = serve::Settings {
            config: files.config.clone(),
            state: files.state.clone(),
            on_default_route: self.serve_on_default_route,
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(4).enable_all();
        runtime.build()?.block_on(serve::run(settings))
    }
}
