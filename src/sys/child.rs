//! Programs that end when we do, also when we are killed: an import that is stopped leaves no download behind.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Lets a program be ended with the thread that starts it (prctl(2), PR_SET_PDEATHSIG).
pub fn ends_with_us(command: &mut Command) {
    let parent = getpid();
    let before_it_runs = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        // We may be gone already, and then nobody will say so any more.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec it only makes two system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(before_it_runs) };
}
