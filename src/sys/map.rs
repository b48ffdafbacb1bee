//! File mappings that serve only as handles for sendfile.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A read-only mapping of a whole file. Its pages are never touched by rekindle: the bytes leave
/// by sendfile(2), so a file that shrinks meanwhile ends the connection instead of us (SIGBUS).
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the mapping is read-only and private to its owner until it is dropped; moving or sharing
// the two words between threads touches no memory.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file`.
    pub fn new(file: &File, len: NonZeroUsize) -> io::Result<Self> {
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address the kernel chooses overlaps nothing of ours.
        let start = unsafe { mmap(None, len, ProtFlags::PROT_READ, flags, file, 0)? };
        Ok(Self { start, len })
    }

    /// The address of the first byte.
    pub fn start(&self) -> usize {
        self.start.as_ptr().addr()
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no slice of it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}
