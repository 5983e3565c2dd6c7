//! The proxy with faults on demand (`dysvr_node::poison`): for tests, never shipped.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(dysvr_node::master::run(dysvr_node::master::options::Options::from_command_line()));
}
