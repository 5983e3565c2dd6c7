//! How the process holds its memory: in small pages, and not longer than it must.

/// From now on this process and its children get memory in small pages, whatever the allocator asks for. A huge page is
/// there as a whole, touched or not, in the master and in each worker again: with 10,000 vhosts that is a fifth of all
/// memory. Huge pages would make a start a twelfth shorter.
pub fn small_pages() {
    // A kernel without huge pages refuses, and need not be told.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Gives free memory back to the system. Before a fork: what the load of a large configuration has left behind would
/// count for as long as the workers live.
pub fn give_back() {
    // SAFETY: mimalloc frees its own free pages; it touches nothing that is allocated. In a program with another
    // allocator it finds nothing to do.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
