//! Memory that the process has freed and still holds.

/// Gives free memory back to the system. Before a fork: what the load of a large configuration has left behind would
/// count for as long as the workers live.
pub fn give_back() {
    // SAFETY: mimalloc frees its own free pages; it touches nothing that is allocated. In a program with another
    // allocator it finds nothing to do.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
