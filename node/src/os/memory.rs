//! How the process holds its memory: in small pages, and not longer than it must.

use std::ffi::{c_int, c_long};

/// mimalloc's options by their numbers (`mi_option_e` of its version 3), which libmimalloc-sys has no names for: after how
/// many milliseconds free memory goes back to the system, and how much address space it takes at a time, KiB.
const PURGE_DELAY: c_int = 15;
const ARENA_RESERVE: c_int = 23;

/// What mimalloc does by itself, ms.
const USUAL_DELAY: c_long = 1000;
/// Half of what mimalloc takes by itself, KiB. With a gibibyte 2.5 MiB of its notes about it are touched at once.
const RESERVE: c_long = 512 << 10;

/// Before the first allocation, which is before `main`: address space is taken then.
// SAFETY: the C library calls what stands in this section before `main`, when there is one thread; `before_main` stores a
// number and needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    set(ARENA_RESERVE, RESERVE);
}

fn set(option: c_int, value: c_long) {
    // SAFETY: mimalloc stores the number, which other threads may read; it needs no initialization for that. In a program
    // with another allocator nothing asks for it.
    unsafe { libmimalloc_sys::mi_option_set(option, value) };
}

/// From now on this process and its children get memory in small pages, whatever the allocator asks for. A huge page is
/// there as a whole, touched or not, in the master and in each worker again: with 10,000 vhosts that is a fifth of all
/// memory. Huge pages would make a start a twelfth shorter.
pub fn small_pages() {
    // A kernel without huge pages refuses, and need not be told.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Before the load of a whole configuration: from now on, until [`give_back`], free memory goes back to the system at once.
/// What a load leaves behind counts in all processes that are forked after it, and mimalloc loses sight of some of what it
/// puts off: with 10,000 vhosts of up to 9 MiB.
pub fn give_back_at_once() {
    set(PURGE_DELAY, 0);
}

/// Behind such a load, and before what is forked with it: all that is free goes back to the system. From then on free memory
/// is kept for a while again, for those who take and free it all the time.
pub fn give_back() {
    // SAFETY: mimalloc frees its own free pages; it touches nothing that is allocated. In a program with another
    // allocator it finds nothing to do.
    let collect = || unsafe { libmimalloc_sys::mi_collect(true) };
    // What becomes free by it goes at once; what was put off before the load is found when pages are put off again.
    collect();
    set(PURGE_DELAY, USUAL_DELAY);
    collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_numbers_of_this_mimalloc() {
        // SAFETY: mimalloc gives a number.
        let get = |option| unsafe { libmimalloc_sys::mi_option_get(option) };
        assert_eq!(get(PURGE_DELAY), USUAL_DELAY, "as mimalloc has it by itself");
        assert_eq!(get(ARENA_RESERVE), RESERVE, "as it was set before main");
        // Its neighbours by what mimalloc says of them: they are not what was set.
        assert_eq!((get(ARENA_RESERVE - 1), get(ARENA_RESERVE + 1)), (0, 1));
    }
}
